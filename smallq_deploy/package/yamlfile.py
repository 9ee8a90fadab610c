"""YAML manifests as typed values with their place: one list of problems, each with file and line.

Only a plain subset is read: mappings with string keys, sequences, strings, integers, floats, booleans, null. Anchors,
tags, duplicate keys and files over 256 KiB (or the reader's own limit) are refused, so that a manifest means what it
shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from smallq_deploy.base.errors import PackageError, SmallqError, raise_problems

SIZE_LIMIT = 256 * 1024
_MAX_PROBLEMS = 50
_MAX_DEPTH, _MAX_NODES = 20, 500_000
_COMPOSED_DEPTH = 200  # up to here the refusal names the place; PyYAML composes by recursion
_SCALARS = {"str", "int", "float", "bool", "null"}
_INTEGER = re.compile(r"^[-+]?(0|[1-9][0-9]*)$")
_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}
T = TypeVar("T")


class _Composer(yaml.SafeLoader):
    """SafeLoader that refuses aliases: a manifest is small, and aliases are how small files become huge ones."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark: Any = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)


def _compose(text: str) -> Any:
    """The node tree of ``text``, through libyaml where there is one: six times as fast."""
    fast: Any = getattr(yaml, "CSafeLoader", None)
    if fast is None:
        return yaml.compose(text, Loader=_Composer)
    depth = nodes = 0
    try:
        for event in yaml.parse(text, Loader=fast):
            if isinstance(event, yaml.AliasEvent):
                mark: Any = event.start_mark
                raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed", problem_mark=mark)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            nodes += isinstance(event, yaml.NodeEvent)
            if depth > _COMPOSED_DEPTH:
                raise RecursionError
            if nodes > _MAX_NODES:
                raise ValueError(f"more than {_MAX_NODES} values")
    except yaml.MarkedYAMLError as error:
        if error.problem == "exceeded maximum nesting depth":  # libyaml's own limit, met before ours
            raise RecursionError from error
        raise
    return yaml.compose(text, Loader=fast)


class Opaque:
    """A value that was not read: of a foreign type, in a file that may have such. It is never shown."""


def bad_manifest(message: str, details: Mapping[str, Any]) -> SmallqError:
    """A mistake in a manifest."""
    hint = "docs/reference/manifests.md lists the keys and their types"
    return PackageError("BAD_MANIFEST", message, hint=hint, details=details)


@dataclass
class Problem:
    """Where (1-based line; 0 = the file as a whole), at which key, what is wrong."""

    line: int
    where: str
    text: str


@dataclass
class Reader:
    """Collects the problems of one file and raises them together.

    ``error`` makes one of a message and details; ``limit`` is in bytes. Values that are ``secret`` by (the dotted key
    of the mapping, the key) are not read. ``lenient``: foreign types are Opaque values instead of problems, and any
    plain key is text.
    """

    path: Path
    problems: list[Problem] = field(default_factory=list)
    _repeated: int = 0
    error: Callable[[str, Mapping[str, Any]], SmallqError] = bad_manifest
    limit: int = SIZE_LIMIT
    secret: Callable[[str, str], bool] = lambda where, key: False
    lenient: bool = False

    def add(self, line: int, where: str, text: str) -> None:
        self.problems.append(Problem(line, where, text))

    def finish(self) -> None:
        """Raise what was found (PackageError BAD_MANIFEST, several as one list), in the file's order, each once."""
        found = {(item.line, item.where, item.text): item for item in self.problems}
        errors: list[SmallqError] = [
            self.error(
                f"{self.path}:{problem.line}: {f'{problem.where:.200}: ' if problem.where else ''}{problem.text}",
                {"file": str(self.path), "line": problem.line, "key": problem.where[:200]},
            )
            for problem in sorted(found.values(), key=lambda item: item.line)[:_MAX_PROBLEMS]
        ]
        raise_problems(errors)

    def load(self) -> Value:
        """The root value. Raises PackageError BAD_MANIFEST for what is no YAML at all, NO_MANIFEST for no file."""
        try:
            with open(self.path, "rb") as stream:
                raw = stream.read(self.limit + 1)
        except OSError as error:
            raise PackageError(
                "NO_MANIFEST",
                f"cannot read the manifest {self.path}: {error.strerror or error}",
                hint="check the path, or leave the option away to use the manifest that comes with the tool",
                details={"file": str(self.path)},
            ) from error
        return self.parse(raw)

    def parse(self, raw: bytes) -> Value:
        """The root value of a text that was read elsewhere; see :meth:`load`."""
        node: Any = None
        try:
            if len(raw) > self.limit:
                raise ValueError(f"larger than {self.limit // 1024} KiB")
            node = _compose(raw.decode("utf-8"))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.add(mark.line + 1 if mark else 0, "", f"not readable as YAML: {error.problem or error.context}")
        except RecursionError:
            self.add(0, "", "nested too deeply")
        except (ValueError, yaml.YAMLError) as error:  # UnicodeDecodeError is a ValueError
            self.add(0, "", f"not readable as YAML: {str(error).splitlines()[0]}")
        if node is None and not self.problems:
            self.add(0, "", "the file is empty")
        value = self._convert(node, "", 0) if node is not None else Value(self, None, 0, "")
        # A key given twice leaves the rest readable; anything else would only cause problems that follow from it.
        if len(self.problems) > self._repeated:
            self.finish()
        return value

    def _convert(self, node: Any, where: str, depth: int) -> Value:
        line = node.start_mark.line + 1
        if depth > _MAX_DEPTH:
            self.add(line, where, f"nested more than {_MAX_DEPTH} levels deep")
            return Value(self, None, line, where)
        if not isinstance(node, yaml.ScalarNode) and node.tag.rpartition(":")[2] not in ("map", "seq"):
            if self.lenient:
                return Value(self, Opaque(), line, where)
            self.add(line, where, f"has the type {node.tag:.80}, which is not allowed")
            return Value(self, None, line, where)
        if isinstance(node, yaml.MappingNode):
            return Value(self, self._mapping(node, where, depth), line, where)
        if isinstance(node, yaml.SequenceNode):
            items = [self._convert(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(node.value)]
            return Value(self, items, line, where)
        return Value(self, self._scalar(node, line, where), line, where)

    def _mapping(self, node: Any, where: str, depth: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            text = isinstance(key_node, yaml.ScalarNode) and (self.lenient or key_node.tag == "tag:yaml.org,2002:str")
            if not text:
                self.add(line, where, "a key must be plain text")
                continue
            key = str(key_node.value)
            place = f"{where}.{key}" if where else key
            if key in found:
                self._repeated += 1
                self.add(line, place, f"the key is given twice (first in line {found[key].key_line})")
                continue
            if self.secret(where, key):
                found[key] = Value(self, Opaque(), line, place, line)
                continue
            value = self._convert(value_node, place, depth + 1)
            found[key] = Value(self, value.raw, value.line, place, line)
        return found

    def _scalar(self, node: Any, line: int, where: str) -> Any:
        kind = node.tag.rpartition(":")[2]
        text = str(node.value)
        if self.lenient and (not node.tag.startswith("tag:yaml.org,2002:") or kind not in _SCALARS):
            return Opaque()
        if not node.tag.startswith("tag:yaml.org,2002:") or kind not in _SCALARS:
            self.add(line, where, f"{text!r:.80} has the type {node.tag:.80}; write it in quotes if text is meant")
            return None
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in ("yes", "true", "on")
        if kind == "int":
            if not _INTEGER.match(text) or len(text) > 18:
                if self.lenient:
                    return text if len(text) <= 18 else Opaque()
                self.add(line, where, f"{text:.40} is no plain decimal number")
                return None
            return int(text)
        try:
            return float(text.replace("_", ""))
        except ValueError:
            if self.lenient:
                return Opaque()
            self.add(line, where, f"{text:.40} is no plain decimal number")
            return None


@dataclass(frozen=True)
class Value:
    """A value of the file with its line and dotted key. Accessors report to the reader and return None when wrong."""

    reader: Reader
    raw: Any
    line: int
    where: str
    key_line: int = 0

    def problem(self, text: str) -> None:
        self.reader.add(self.line, self.where, text)

    def as_type(self, kind: type[T]) -> T | None:
        """The value when it has the type (an integer is also a number; true is no number)."""
        raw = self.raw
        if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
            raw = float(raw)
        if isinstance(raw, kind) and not (isinstance(raw, bool) and kind is not bool):
            return raw
        got = "nothing" if raw is None else _NAMES.get(type(raw), "something else")
        extra = "; write 0.001 instead of 1e-3" if kind is float and re.match(r"^[\d.]+[eE]", str(raw)) else ""
        self.problem(f"must be {_NAMES[kind]}, not {got}{extra}")
        return None

    def mapping(self, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Value]:
        """The members; unknown and missing keys are problems."""
        members: dict[str, Value] | None = self.as_type(dict)
        if members is None:
            return {}
        required, known = list(required), [*required, *optional]
        for key, value in members.items():
            if key not in known:
                self.reader.add(value.key_line, value.where, f"unknown key; known here: {', '.join(known)}")
        for key in required:
            if key not in members:
                self.problem(f"the key {key!r} is missing")
        return {key: value for key, value in members.items() if key in known}

    def items(self, *, at_least: int = 0, at_most: int = 10_000) -> list[Value]:
        """The elements of a list."""
        found: list[Value] | None = self.as_type(list)
        if found is None:
            return []
        if not at_least <= len(found) <= at_most:
            self.problem(f"must have {at_least} to {at_most} elements, has {len(found)}")
        return found

    def text(self, pattern: str = r"[^\x00-\x1f\x7f]{1,400}", what: str = "one line of text") -> str:
        """A string that matches the whole pattern; '' when it does not."""
        value = self.as_type(str)
        if value is not None and not re.fullmatch(pattern, value):
            self.problem(f"{value!r:.80} is not {what}")
            return ""
        return value or ""

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]; ``low`` when it is none."""
        value = self.as_type(int)
        if value is not None and not low <= value <= high:
            self.problem(f"must be between {low} and {high}, is {value}")
            return low
        return low if value is None else value

    def number(self, low: float, high: float) -> float:
        """A number in [low, high]; ``low`` when it is none."""
        value = self.as_type(float)
        if value is not None and not low <= value <= high:
            self.problem(f"must be between {low:g} and {high:g}, is {value:g}")
            return low
        return low if value is None else value

    def parsed(self, parse: Callable[[str], T], fallback: T) -> T:
        """A string through a parser that raises SmallqError."""
        text = self.as_type(str)
        if text is None:
            return fallback
        try:
            return parse(text)
        except SmallqError as error:
            self.problem(error.message)
            return fallback
