"""Which hosts there are and how they are reached: from a file of ours, Ansible's, a list of names, or Slurm's text."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from smallq_deploy.base.errors import PackageError, UsageError
from smallq_deploy.fleet.hosts import Inventory
from smallq_deploy.fleet.inventory.ansiblefile import read_ini, read_yaml
from smallq_deploy.fleet.inventory.assemble import Draft, assemble, inventory_digest
from smallq_deploy.fleet.inventory.limits import limited
from smallq_deploy.fleet.inventory.own import SIZE_LIMIT, read_own, reader_for
from smallq_deploy.fleet.inventory.ranges import expand, split_list
from smallq_deploy.fleet.inventory.settings import host_name_problem

__all__ = ["inventory_digest", "load_inventory"]

STDIN = "-"
_OURS = re.compile(r"^(?:\{\s*)?[\"']?(schema|hosts|defaults)[\"']?\s*:", re.MULTILINE)
_YAML = re.compile(r"---|\{|- |[\"']?[^\s\"'=#;]+[\"']?\s*:(\s|$)")
_SECTION = re.compile(r"^\s*\[[^\[\]\s-][^\[\]\s]*\]\s*([#;].*)?$", re.MULTILINE)
_ASSIGNED = re.compile(r"^\s*[^\s#;=]+\s+[A-Za-z_]\w*\s*=", re.MULTILINE)
_ANSIBLE_RANGE = re.compile(r"\[[0-9a-zA-Z]+:[0-9a-zA-Z]+")


def load_inventory(source: str | Path, *, limit: Sequence[str] = ()) -> Inventory:
    """The inventory of ``source``, or the part of it that ``limit`` chooses (see limits.py).

    ``source``: a YAML file of ours, an inventory of Ansible (INI or YAML), a file with a host a line, ``-`` for any of
    these on stdin, a comma-separated list of hosts, ``slurm:LIST``, or ``ansible:FILE``. ``Inventory.kind`` says which
    it was: yaml, ansible-ini, ansible-yaml, list, hosts, slurm.

    Raises PackageError BAD_INVENTORY (every problem of the file, with its line) and NO_INVENTORY, UsageError BAD_HOSTS
    for a list on the command line, and BAD_LIMIT and NO_SUCH_HOST of the limit.
    """
    return limited(_load(str(source)), limit)


def _load(source: str) -> Inventory:
    if source.startswith("slurm:"):
        return _named(source[len("slurm:") :], "slurm")
    if source.startswith("ansible:"):
        place = source[len("ansible:") :]
        return _read(place, _ansible_kind)
    if source != STDIN and not os.path.lexists(source) and ("," in source or "[" in source):
        return _named(source, "hosts")
    return _read(source, _kind)


def _read(place: str, kind_of: Callable[[Path, str], str]) -> Inventory:
    path, raw = _bytes(place)
    reader = reader_for(path)
    if len(raw) > SIZE_LIMIT:
        reader.add(0, "", f"larger than {SIZE_LIMIT // (1024 * 1024)} MiB")
    if raw.startswith(b"#!"):
        reader.add(
            1, "", "is a program; its output may be given: PROGRAM --list, or ansible-inventory --list --yaml, on -i -"
        )
    reader.finish()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reader.add(raw.count(b"\n", 0, error.start) + 1, "", "is not UTF-8 text")
        reader.finish()
        raise AssertionError("finish raises") from error
    kind = kind_of(path, text)
    if kind == "yaml":
        return read_own(path, text.encode())
    if kind == "list":
        return _list(path, text)
    if kind == "ansible-ini":
        found = read_ini(reader, path.stem, text)
    else:
        found = read_yaml(reader_for(path, lenient=True), path.stem, text.encode())
    return _with_beside(found, path)


def _bytes(place: str) -> tuple[Path, bytes]:
    if place == STDIN:
        return Path("stdin"), sys.stdin.buffer.read(SIZE_LIMIT + 1)
    path = Path(place)
    try:
        with open(path, "rb") as stream:
            return path, stream.read(SIZE_LIMIT + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no path of a file"
        hint = "check the path; one host alone is written with a comma: `-i NAME,`"
        if isinstance(error, IsADirectoryError):
            hint = "name a file of it, or pass `ansible-inventory -i DIR --list --yaml` on `-i -`"
        raise PackageError(
            "NO_INVENTORY",
            f"cannot read the inventory {place!a:.200}: {why}",
            hint=hint,
            details={"file": place[:1000]},
        ) from error


def _first_line(text: str) -> str:
    return next((row for line in text.splitlines() if (row := line.strip()) and row[0] not in "#;"), "")


def _kind(path: Path, text: str) -> str:
    """By the name's end where it says so, else by what stands in the first line that is no remark."""
    first = _first_line(text)
    is_yaml = path.suffix in (".yaml", ".yml", ".json") or (path.suffix not in (".ini", ".cfg") and _YAML.match(first))
    if is_yaml:
        return "yaml" if _OURS.search(text) or not _ansible_groups(text) else "ansible-yaml"
    if path.suffix in (".ini", ".cfg") or any(form.search(text) for form in (_SECTION, _ASSIGNED, _ANSIBLE_RANGE)):
        return "ansible-ini"
    return "list" if first else "yaml"  # an empty file is told as one


def _ansible_groups(text: str) -> bool:
    return re.search(r"\b(hosts|children|vars)[\"']?\s*:", text) is not None


def _ansible_kind(path: Path, text: str) -> str:
    is_yaml = path.suffix in (".yaml", ".yml", ".json") or _YAML.match(_first_line(text))
    return "ansible-yaml" if is_yaml else "ansible-ini"


def _list(path: Path, text: str) -> Inventory:
    """A host, or a range of them, a line; commas and remarks are allowed."""
    reader = reader_for(path)
    draft = Draft(reader, path.stem, "list")
    for line, row in enumerate(text.splitlines(), start=1):
        if draft.hopeless:
            break
        for word in split_list(row.partition("#")[0]):
            try:
                names = expand(word)
            except ValueError as error:
                reader.add(line, "", str(error))
                continue
            for name in names:
                if why := host_name_problem(name):
                    reader.add(line, "", why)
                    break
                if not draft.add_host(name, line):
                    reader.add(line, "", f"{name} is there already (line {draft.hosts[name]})")
                    if draft.hopeless:
                        break
    return assemble(draft, {name: {} for name in draft.hosts}, {})


def _named(text: str, kind: str) -> Inventory:
    """Hosts that stand on the command line themselves; one named twice counts once."""
    hint = "such as `-i npu[001-016,020],login1` or `-i slurm:npu[001-016]`"
    draft = Draft(reader_for(Path("command line")), "command line", kind)
    try:
        words = split_list(text)
        for word in words:
            for name in expand(word):
                if why := host_name_problem(name):
                    raise ValueError(why)
                draft.add_host(name, 0)
        draft.reader.finish()
        if not draft.hosts:
            raise ValueError("no host is named")
        return assemble(draft, {name: {} for name in draft.hosts}, {})
    except ValueError as error:
        raise UsageError("BAD_HOSTS", f"the list of hosts is wrong: {error}", hint=hint) from error
    except PackageError as error:
        raise UsageError("BAD_HOSTS", f"the list of hosts is wrong: {error.message}", hint=hint) from error


def _with_beside(inventory: Inventory, path: Path) -> Inventory:
    """Ansible reads directories beside its inventory, we do not."""
    beside = [name for name in ("group_vars", "host_vars") if (path.parent / name).is_dir()]
    if not beside or path == Path("stdin"):
        return inventory
    text = (
        f"{' and '.join(beside)} beside it are not read; `ansible-inventory -i {path} --list --yaml` on `-i -` has them"
    )
    return replace(inventory, warnings=(*inventory.warnings, text))
