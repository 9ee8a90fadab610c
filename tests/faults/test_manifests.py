"""Row 11: hostile manifests and records: a typed error with its line, in bounded time and memory, or a safe value.

Each input is read in a forked process with 1 GB of address space, and 20 s for one input.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import resource
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.operate.bundlefile import parse_index
from smallq_deploy.operate.status import history, status
from smallq_deploy.operate.verifier import verify
from smallq_deploy.package.compat import CompatFile, load_compat
from smallq_deploy.package.data import data_root
from smallq_deploy.package.releases import Release, ShapeMatrix, load_matrix, load_release
from smallq_deploy.store.journal import read_journal
from tests.support import packages
from tests.support.faultrows import FULL, FaultRow
from tests.support.forked import in_child
from tests.support.opp import World, release

SEED = 20260803
MEMORY, SECONDS = 1 << 30, 20
LOADERS: dict[str, Callable[[Path], Any]] = {"releases": load_release, "compat": load_compat, "matrices": load_matrix}
DATA = data_root() / "manifests"


class Hang(BaseException):
    """An input took longer than it may."""


def _too_long(number: int, frame: object) -> None:
    raise Hang


def guarded(work: Callable[[], Iterator[str]]) -> list[str]:
    """What ``work`` finds wrong, in a process that may not take more memory or time than it should."""

    def limited() -> list[str]:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.signal(signal.SIGALRM, _too_long)
        return list(work())

    return in_child(limited)


def attempt(call: Callable[[], Any]) -> Any:
    """The value, the SmallqError, or the text of what should never be."""
    signal.alarm(SECONDS)
    try:
        return call()
    except SmallqError as error:
        return error
    except Hang:
        return f"took more than {SECONDS} s"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.alarm(0)


# --- YAML manifests ---

_PLAIN = re.compile(r"[A-Za-z0-9_.{}/-]+")


def unsafe(value: Any) -> str:
    """What of an accepted manifest could do harm where it is used: in paths, commands, names."""
    words: list[str] = []
    paths: list[str] = []
    if isinstance(value, Release):
        words = [value.name, value.version, value.vendor, value.operator, *value.units, *value.required_symbols]
        words += [case.name for case in value.smoke_cases] + [item.sha256 for item in value.artifacts]
        paths = list(value.required_files)
    elif isinstance(value, ShapeMatrix):
        words = [value.name, *(case.name for case in value.cases)]
    elif isinstance(value, CompatFile):
        words = [value.release] if value.release else []
        words += [unit for item in value.compat.tested for unit in (*item.units, *item.arches)]
    for word in (*words, *paths):
        if not _PLAIN.fullmatch(word):
            return f"accepted {word!r}"
    for path in paths:
        if path.startswith("/") or ".." in path.split("/"):
            return f"accepted the path {path!r}"
    return next((f"accepted {word!r}" for word in words if "/" in word or word.startswith((".", "-"))), "")


def poor(found: Any, must_fail: bool) -> str:
    """Why this is no good answer; '' when it is one."""
    if isinstance(found, str):
        return found
    if not isinstance(found, SmallqError):
        return "accepted" if must_fail else unsafe(found)
    for problem in found.problems:
        if problem.code != "BAD_MANIFEST" or not problem.hint:
            return f"{problem.code} {problem.message} ({problem.hint})"
        if not isinstance(problem.details.get("line"), int) or f":{problem.details['line']}:" not in problem.message:
            return f"no line: {problem.message}"
        if len(problem.message) > 2000:
            return f"a message of {len(problem.message)} characters"
    return ""


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(12)
)
# Texts that no loader may take.
TEXTS: dict[str, bytes] = {
    "billion laughs": LAUGHS.encode(),
    "alias to itself": b"a: &a [*a]\n",
    "anchor as a key": b"? &a x\n: *a\n",
    "merge key": b"x: &x {a: 1}\ny:\n  <<: *x\n",
    "python object": b"name: !!python/object/apply:os.system ['touch /tmp/owned']\n",
    "python name": b"name: !!python/name:os.system\n",
    "python module": b"!!python/module:os\n",
    "own tag": b"name: !secret x\n",
    "binary": b"name: !!binary aGVsbG8=\n",
    "set": b"name: !!set {a, b}\n",
    "timestamp": b"name: 2026-01-01\n",
    "two documents": b"schema: 1\n---\nschema: 1\n",
    "list": b"- 1\n- 2\n",
    "empty": b"",
    "comment": b"# nothing\n",
    "zero byte": b"schema: 1\nname: a\0b\n",
    "UTF-16": "schema: 1\n".encode("utf-16"),
    "Latin-1": b"name: caf\xe9\n",
    "surrogate": b"name: \xed\xa0\x80\n",
    "tab": b"a:\n\tb: 1\n",
    "unclosed": b"a: [1, 2\n",
    "deep lists": b"[" * 100_000,
    "deep maps": b"{a: " * 50_000,
    "deep blocks": b"".join(b" " * n + b"a:\n" for n in range(500)),
    "10 MB": b"schema: 1\nname: " + b"x" * (10 << 20) + b"\n",
    "10 MB of lines": b"- 1\n" * (10 << 18),
    "one long line": b"x" * 250_000,
    "many keys": b"".join(b"k%d: 1\n" % n for n in range(20_000)),
    "huge number": b"schema: " + b"9" * 100_000 + b"\n",
    "complex key": b"? [a, b]\n: 1\n",
    "JSON with a key twice": b'{"schema": 1, "schema": 1}',
    "sexagesimal": b"schema: 1:30\n",
    "octal": b"schema: 0o1\n",
    "not a number": b"schema: .nan\n",
}
_GRID = "  - {name: g%d, num_heads: 1, head_dim: 1, v_head_dim: 1, q_len: [%s], kv_len: [%s]}\n"
_HUNDRED = ",".join(str(n + 1) for n in range(100))
GRID_BOMB = (
    "schema: 1\nname: bomb\ndescription: x\ntolerance: {abs: 0.1, rel: 0.1, rel_l2: 0.1}\ngrids:\n"
    + "".join(_GRID % (n, _HUNDRED, _HUNDRED) for n in range(200))
).encode()
INJECTED = (
    *(
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../b",
        "..",
        ".",
        "a/./b",
        "{unit}/../../x",
        "~/x",
        "-rf",
        "$(id)",
        "`id`",
    ),
    *(
        "a;id",
        "a|id",
        "a&id",
        "a>b",
        "a b",
        "a\nb",
        "a\tb",
        "'a'",
        '"a"',
        "a\\b",
        "*",
        "?",
        "#a",
        "%s",
        "{0.__class__}",
    ),
    *(
        "cuѕtomize",
        "ａscend910b",
        "ascend910b\u200b",
        "\u202eb019dnecsa",
        "x\u0301",
        "٠.١.٠",
        "０.１.０",
        "ⅷ",
        "\ufeffa",
    ),
    *("a" * 5000, "", " ", "\x7f", "\x1b[2J", "\x85", "\u2028", "con.o", "a.json", "nul\x00", "😀"),
)
WRONG_TYPES: tuple[Any, ...] = ([], {}, None, [[]], {"a": 1}, [None])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place of a document, with what is there."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value there."""
    if not path:
        return value
    made = copy.deepcopy(document)
    place = made
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return made


def twice(text: str, chance: random.Random) -> str:
    """One line ``key: value`` of a block-style document, given twice."""
    lines = text.splitlines()
    chosen = chance.choice([n for n, line in enumerate(lines) if re.fullmatch(r" *[a-z_0-9]+: [^|>\[{&'\"].*", line)])
    return "\n".join([*lines[: chosen + 1], lines[chosen], *lines[chosen + 1 :]]) + "\n"


def hostile(base: bytes, chance: random.Random) -> tuple[str, bytes, bool]:
    """(what was done, the manifest, must it be refused) of one changed manifest."""
    document = yaml.safe_load(base)
    every = list(places(document))
    leaves = [(path, value) for path, value in every if path and not isinstance(value, (dict, list))]
    kind = chance.choice(
        ["type", "type", "unknown", "missing", "inject", "inject", "inject", "number", "twice", "bytes"]
    )
    if kind == "bytes":
        raw = bytearray(base)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(raw))
            what = chance.choice(
                [b":", b"&a ", b"*a", b"!!x ", b"\x00", b"\xff", b"\t", b"[", b"}", b"- ", b"\n", b"|", b""]
            )
            raw[at : at + chance.randint(0, 4)] = what
        return kind, bytes(raw), False
    if kind == "type":
        path, value = chance.choice(leaves)
        made = put(document, path, chance.choice(WRONG_TYPES))
        must = True
    elif kind == "unknown":
        path, value = chance.choice([item for item in every if isinstance(item[1], dict)])
        made = put(document, path, {**value, f"unknown{chance.randint(0, 99)}": chance.choice([1, "x", [], {}])})
        must = True
    elif kind == "missing":
        path, value = chance.choice([item for item in every if isinstance(item[1], dict) and item[1]])
        left = dict(value)
        del left[chance.choice(list(left))]
        made, must = put(document, path, left), False
    elif kind == "number":
        numbers = [item for item in leaves if isinstance(item[1], (int, float)) and not isinstance(item[1], bool)]
        path, value = chance.choice(numbers or leaves)
        made = put(document, path, chance.choice([-1, 10**17, 10**30, 1e308, float("inf"), float("nan"), True, "1"]))
        must = bool(numbers)
    elif kind == "twice":
        return kind, twice(yaml.safe_dump(document, sort_keys=False), chance).encode(), True
    else:
        texts = [item for item in leaves if isinstance(item[1], str)]
        path, value = chance.choice(texts)
        made, must = put(document, path, chance.choice(INJECTED)), False
    return f"{kind} at {path}", yaml.safe_dump(made, sort_keys=False, allow_unicode=True).encode(), must


def test_fixed_texts(tmp_path: Path, fault_row: FaultRow) -> None:
    """Every loader, every text (a quarter of the pairs in `make test`); a matrix of two million cases."""
    inputs = [(name, load, raw) for name, raw in TEXTS.items() for load in LOADERS.values()]
    inputs = inputs if FULL else inputs[::4]
    inputs.append(("grid bomb", load_matrix, GRID_BOMB))
    assert len(GRID_BOMB) < 256 * 1024

    def work() -> Iterator[str]:
        path = tmp_path / "m.yaml"
        for name, load, raw in inputs:
            path.write_bytes(raw)
            if why := poor(attempt(partial(load, path)), must_fail=True):
                yield f"{name}, {load.__name__}: {why}"

    fault_row("11", len(inputs), guarded(work), what="fixed texts")
    assert not Path("/tmp/owned").exists()


def test_changed_manifests(tmp_path: Path, fault_row: FaultRow) -> None:
    chance = random.Random(SEED)
    bases = [
        (load, path.read_bytes()) for kind, load in LOADERS.items() for path in sorted((DATA / kind).glob("*.yaml"))
    ]
    bases = [(load, raw) for load, raw in bases if len(raw) < 20_000]
    seen: set[bytes] = set()
    inputs: list[tuple[Callable[[Path], Any], str, bytes, bool]] = []
    while len(inputs) < (3600 if FULL else 60):
        load, base = bases[len(inputs) % len(bases)]
        what, raw, must_fail = hostile(base, chance)
        if raw not in seen and raw != base:
            seen.add(raw)
            inputs.append((load, what, raw, must_fail))

    def work() -> Iterator[str]:
        path = tmp_path / "m.yaml"
        for load, what, raw, must_fail in inputs:
            path.write_bytes(raw)
            if why := poor(attempt(partial(load, path)), must_fail):
                yield f"{load.__name__}, {what}: {why}"

    fault_row("11", len(inputs), guarded(work), what=f"changed manifests (seed {SEED})")


# --- our own JSON: state, generations, journal, history, bundle index ---

JSONS: tuple[bytes, ...] = (
    *(b"", b"{", b"[]", b"null", b"7", b'"x"', b"{}", b'{"schema": 1}', b'{"schema": "1"}', b'{"schema": 99}'),
    *(
        b'{"schema": -1}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        b"\0" * 100,
        b"{" + b" " * (10 << 20),
        b"NaN",
    ),
    *(b'{"schema": 1e400}', b'{"schema": ' + b"9" * 10_000 + b"}", b'{"schema": true}'),
)


def hostile_json(base: Any, chance: random.Random) -> bytes:
    if chance.random() < 0.25:
        raw = bytearray(json.dumps(base).encode())
        for _ in range(chance.randint(1, 5)):
            raw[chance.randrange(len(raw))] = chance.choice(b'0{}[]":,\x00\xff-e')
        return bytes(raw)
    path, _ = chance.choice([item for item in places(base) if item[0]])
    if chance.random() < 0.2 and len(path) == 1:
        made = {key: item for key, item in base.items() if key != path[0]}
    else:
        other: tuple[Any, ...] = (
            None,
            [],
            {},
            "",
            -1,
            0,
            1,
            2**70,
            1.5,
            True,
            "../../x",
            "/etc",
            "\x1b[2J",
            [1],
            {"a": 1},
        )
        made = put(base, path, chance.choice((*other, *INJECTED[:4])))
    return json.dumps(made).encode()


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path).make()
    made.install(made.package("1"))
    made.install(made.package("2"))
    return made


def test_changed_records_of_the_store(world: World, fault_row: FaultRow) -> None:
    """status, history, verify and the journal's reader answer, or refuse with a type; nothing else is ever raised."""
    chance, store = random.Random(SEED), world.store
    pid = os.fork()
    if pid == 0:  # a transaction that was left open, for its journal
        world.install(world.package("3"), smoke=lambda: os._exit(0))
    os.waitpid(pid, 0)
    journal = json.loads(store.journal.read_bytes())
    store.journal.unlink()
    generation = store.generation_dir(3) / "generation"
    if not generation.exists():
        generation = store.generation_dir(2) / "generation"
    manifest = store.generation_dir(2) / "manifest"
    files = {path: path.read_bytes() for path in (store.state, generation, store.history, manifest)}
    records = {
        path: json.loads(raw if path.name in ("state", "generation") else raw.splitlines()[-1])
        for path, raw in files.items()
    }
    records[store.journal] = journal
    size, fixed = (1150, JSONS) if FULL else (50, JSONS[::3])
    inputs = [(path, raw) for path in records for raw in fixed]
    seen = {raw for _, raw in inputs}
    while len(inputs) < size + len(records) * len(fixed):
        path = chance.choice(list(records))
        raw = hostile_json(records[path], chance)
        if raw not in seen:
            seen.add(raw)
            inputs.append((path, raw))

    def work() -> Iterator[str]:
        for path, raw in inputs:
            path.write_bytes(raw)
            calls: dict[str, Callable[[], Any]] = {
                "status": lambda: json.dumps(status(store).to_dict()),
                "history": lambda: history(store),
                "verify": lambda: json.dumps(
                    verify(store, release(), unit=packages.UNIT, arch=packages.ARCH).to_dict()
                ),
                "journal": lambda: read_journal(store),
            }
            for name, call in calls.items():
                found = attempt(call)
                if isinstance(found, SmallqError) and not (found.hint and found.message):
                    yield f"{path.name} {raw[:200]!r}: {name}: a poor refusal: {found.code} {found.message}"
                if isinstance(found, str) and not found.startswith("{"):
                    yield f"{path.name} {raw[:200]!r}: {name}: {found}"
            path.unlink()
            if path in files:
                path.write_bytes(files[path])

    fault_row("11", len(inputs), guarded(work), what=f"records of the store (seed {SEED})")


INDEX = {
    "schema": 1,
    "tool_version": "0.1.0",
    "python": ">=3.10",
    "release": "a-0.1.0",
    "manifest": "manifests/a.yaml",
    "packages": [
        {
            "path": "packages/a.run",
            "sha256": "0" * 64,
            "size": 5,
            "vendor": "customize",
            "arch": "aarch64",
            "cann": "8.5.0",
            "units": ["ascend910b"],
            "ops": ["X"],
            "beside": [],
        }
    ],
    "distributions": [{"name": "click", "version": "8"}],
    "runtimes": [{"path": "r/p", "arch": "aarch64", "interpreter": "bin/python3"}],
}


def test_changed_bundle_indexes(fault_row: FaultRow) -> None:
    """parse_index raises ValueError (which open_bundle turns into BAD_BUNDLE) or a typed error, nothing else."""
    chance = random.Random(SEED)
    parse_index(json.dumps(INDEX).encode())
    inputs = list(JSONS)
    seen = set(inputs)
    while len(inputs) < (400 if FULL else 60) + len(JSONS):
        raw = hostile_json(INDEX, chance)
        if raw not in seen:
            seen.add(raw)
            inputs.append(raw)

    def work() -> Iterator[str]:
        for raw in inputs:
            found = attempt(partial(parse_index, raw))
            if isinstance(found, str) and not found.startswith(("ValueError", "JSONDecodeError", "UnicodeDecodeError")):
                yield f"{raw[:200]!r}: {found}"

    fault_row("11", len(inputs), guarded(work), what="bundle indexes")
