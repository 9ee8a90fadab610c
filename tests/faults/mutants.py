"""Is every fsync needed, and every order of two steps? Each is removed or turned round: ``make mutants``.

    python -m tests.faults.mutants [--only TEXT] [--jobs N]

A mutant is a copy of smallq_deploy with one statement changed. Removed fsyncs, swapped neighbours and steps moved
behind the end of their transaction are found in the syntax tree; orders in which the later step needs the result of the
earlier one are written down below, and must still be found in the source. Each mutant runs the power cuts on the
modelled disk (tests/support/modelrun.py), first a sample, then all, then the unit tests of the store, until something
fails.

Prints a table; ends with 1 where a mutant survives: then a test is missing, or the statement is not needed. An order
that may be either way stands in FREE with its proof; one of those that *is* caught also ends with 1.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = (
    "base/fsops.py",
    *(f"store/{path.name}" for path in sorted((CHECKOUT / "smallq_deploy" / "store").glob("*.py"))),
    "operate/mover.py",
)
SYNCS = frozenset({"fsync", "fsync_dir", "fsync_file", "fsync_tree"})
STEPS = SYNCS | {
    *("write_journal", "_write", "write_state", "append_history", "move", "take", "remove_tree", "apply_change"),
    *("revert_change", "restore", "_close", "drop_journal", "write_generation", "rename", "unlink", "rename_exchange"),
    *("_drop_failed", "_move_if_there", "switch", "note", "_perform", "_copy_old", "prove"),
}
# What the cuts are tried on, the likeliest and quickest first.
SCENARIOS = (
    *("first install", "pin", "repair of config.ini", "rollback", "uninstall", "upgrade", "failing smoke"),
    *("adopting install", "restore", "upgrade by renames", "upgrade by copy", "failing smoke, by renames"),
    *("failing smoke, by a copy", "first install fails", "recover", "after a failed one", "repair", "gc"),
    *("uninstall, no other vendor", "first install fails, no other vendor", "uninstall an edited one", "purge"),
    "rollback by a copy",
)
UNIT_TESTS = ("tests/unit/store", "tests/unit/base/test_fsops.py", "tests/unit/operate/test_installer_back.py")

# (file, what, text, text of the mutant): orders in which the second step needs the first one's result.
WRITTEN = (
    (
        "store/switch.py",
        "journal `switching` written after the switch",
        "        noted = note(method)\n        try:\n"
        "            _perform(store, area, noted)\n            return noted\n",
        "        noted = type(journal)(**{**vars(journal), 'method': method})\n        try:\n"
        "            _perform(store, area, noted)\n            return note(method)\n",
    ),
    (
        "store/transaction.py",
        "config.ini changed before the switch",
        "            done = switch(\n",
        "            configini.apply_change(store, planned.config)\n            done = switch(\n",
    ),
    (
        "store/transaction.py",
        "journal `switched` written before the switch",
        "lambda name: self._write(replace(planned, method=name))",
        "lambda name: self._write(replace(planned, method=name, phase=journals.SWITCHED))",
    ),
    (
        "store/transaction.py",
        "journal `staging` not written before a generation's tree is taken",
        "        return self._write(\n            Journal(",
        "        return (\n            Journal(",
    ),
    (
        "store/transaction.py",
        "decision `ok` written before the proof",
        "        proof = self.proof = self.change.prove()",
        "        self._write(replace(journal, phase=journals.OK))\n        proof = self.proof = self.change.prove()",
    ),
    (
        "store/transaction.py",
        "trees brought home, state and history written before the decision `ok`",
        "            return self._write(replace(journal, phase=journals.OK, proof=record))",
        "            return [settle.keep(self.store, replace(journal, phase=journals.OK, proof=record)),"
        " self._write(replace(journal, phase=journals.OK, proof=record))][1]",
    ),
    (
        "store/switch.py",
        "a move syncs only where the tree went",
        "dict.fromkeys((target.parent, source.parent))",
        "(target.parent,)",
    ),
    (
        "store/switch.py",
        "a move syncs only where the tree was",
        "dict.fromkeys((target.parent, source.parent))",
        "(source.parent,)",
    ),
    (
        "store/settle.py",
        "the way back begins before the journal says `undone`",
        "            write_journal(store, journal)\n        except OSError:",
        "            restore(store, area, journal)\n            write_journal(store, journal)\n        except OSError:",
    ),
)

# Orders that may be either way: a part of the mutant's name, and why.
_AGAIN = "until the journal is dropped, recovery does every step again, and each changes nothing the second time"
FREE = {
    'keep: `append_history(store, _line(store, journal, "ok", journal.ne` before `if state != changed:`': _AGAIN,
    "keep: `if journal.made:` before `append_history(": _AGAIN,
    'undo: `append_history(store, _line(store, journal, "undone", state.` before `if state != changed:`': _AGAIN,
    "undo: `if journal.config is not None:` before `restore(": _AGAIN + "; the two write to different places",
    "_close: `drop_journal(store)` before `remove_tree(area.root)`": "every tree is at home by then, and each session "
    "begins by sweeping what no journal names",
    "_perform: `fsync_dir(store.vendors)` before `if area.tree.is_symlink()": "the later one only looks, and exchanges "
    "back what somebody else put there; nothing of a transaction stands between them",
    "_stage: `if journal.adopt:` before `fsync_dir(area.root.parent)`": "a record of the directory found is needed "
    "after the switch only; the trees that are moved in come later than both",
    "_stage: `write_generation(area.record": "package and record become part of the store together, by one rename "
    "after the decision",
    "_purge: `for number in [item.number for item in list_generations(stor` before `write_state(": "the state names no "
    "live generation by then; one that is gone cannot be rolled back to in either order, and a second purge ends it",
    "the way back begins before the journal says `undone`": "recovery from `switching` and `switched` goes the same "
    "way back, which is why a disk too full for the journal need not stop it",
}


@dataclass(frozen=True)
class Mutant:
    """``file`` of smallq_deploy with the text ``source``."""

    name: str
    file: str
    source: str

    @property
    def free(self) -> str:
        return next((proof for part, proof in FREE.items() if part in self.name), "")


def _called(node: ast.AST) -> set[str]:
    names = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            function = inner.func
            names.add(function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", ""))
    return names


def _names(node: ast.AST, kind: type[ast.expr_context]) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, kind)}


class _Source:
    """One file, to be changed by whole lines."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.text = (CHECKOUT / "smallq_deploy" / file).read_text()
        self.lines = self.text.splitlines()

    def of(self, statement: ast.stmt) -> list[str]:
        return self.lines[statement.lineno - 1 : statement.end_lineno]

    def shown(self, statement: ast.stmt) -> str:
        return self.of(statement)[0].partition("  #")[0].strip()[:60]

    def with_lines(self, name: str, first: ast.stmt, last: ast.stmt, lines: list[str]) -> Mutant:
        changed = [*self.lines[: first.lineno - 1], *lines, *self.lines[last.end_lineno or 0 :]]
        return Mutant(name, self.file, "\n".join(changed) + "\n")


def mutants() -> Iterator[Mutant]:
    """Every fsync removed, every two neighbouring steps turned round, every step moved behind the end, and WRITTEN.

    Left out: two fsyncs in a row (nothing is between them), two conditional blocks (mostly alternatives), and a step
    that uses what the one before it made.
    """
    for file in FILES:
        source = _Source(file)
        for function in ast.walk(ast.parse(source.text)):
            if isinstance(function, ast.FunctionDef):
                for block in _blocks(function):
                    yield from _removed(source, function.name, block)
                    yield from _swapped(source, function.name, block)
                    yield from _postponed(source, function.name, block)
    for file, what, old, new in WRITTEN:
        source = _Source(file)
        if source.text.count(old) != 1:
            raise SystemExit(f"{file} no longer holds once what {what!r} changes: {old!r}")
        line = source.text[: source.text.index(old)].count("\n") + 1
        yield Mutant(f"{file}:{line} {what}", file, source.text.replace(old, new))


def _blocks(function: ast.FunctionDef) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef) and node is not function:
            continue
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                yield block


def _removed(source: _Source, function: str, block: list[ast.stmt]) -> Iterator[Mutant]:
    for statement in block:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and _called(statement) & SYNCS:
            name = f"{source.file}:{statement.lineno} {function}: without {source.shown(statement)}"
            yield source.with_lines(name, statement, statement, [" " * statement.col_offset + "pass"])


def _swapped(source: _Source, function: str, block: list[ast.stmt]) -> Iterator[Mutant]:
    for one, two in itertools.pairwise(block):
        first, second = _called(one) & STEPS, _called(two) & STEPS
        if not first or not second or (first <= SYNCS and second <= SYNCS) or isinstance(one, ast.Return):
            continue
        if (isinstance(one, ast.If) and isinstance(two, ast.If)) or _names(one, ast.Store) & _names(two, ast.Load):
            continue
        before, after = source.of(one), source.of(two)
        if isinstance(two, ast.Return):
            after = [after[0].replace("return ", "_turned = ", 1), *after[1:]]
            lines = [*after, *before, " " * two.col_offset + "return _turned"]
        else:
            lines = [*after, *before]
        name = f"{source.file}:{two.lineno} {function}: `{source.shown(two)}` before `{source.shown(one)}`"
        yield source.with_lines(name, one, two, lines)


def _postponed(source: _Source, function: str, block: list[ast.stmt]) -> Iterator[Mutant]:
    """Each step of a block that ends its transaction, after that end; the neighbour is _swapped's."""
    last = block[-1]
    if _called(last) & STEPS != {"_close"}:
        return
    for place, statement in enumerate(block[:-2]):
        if _called(statement) & STEPS and not any(
            _names(statement, ast.Store) & _names(later, ast.Load) for later in block[place + 1 :]
        ):
            between = source.lines[statement.end_lineno or 0 : last.end_lineno]
            name = f"{source.file}:{statement.lineno} {function}: `{source.shown(statement)}` after the journal is gone"
            yield source.with_lines(name, statement, last, [*between, *source.of(statement)])


_RUN = """
import json, sys, tempfile
from pathlib import Path
import smallq_deploy
place = sys.argv[1]
assert smallq_deploy.__file__.startswith(place), smallq_deploy.__file__
from tests.support.modelrun import judge
for cuts, each in json.loads(sys.argv[3]):
    for name in json.loads(sys.argv[2]):
        with tempfile.TemporaryDirectory(dir=place) as directory:
            try:
                found = judge(name, Path(directory), seed=20260806, cuts=cuts, each=each, first_only=True).violations
            except (NameError, TypeError, ImportError, SyntaxError, AttributeError):
                raise
            except Exception as error:
                found = [f"{name}: the command fails: {type(error).__name__}: {error}"]
        if found:
            print(json.dumps(found[0]))
            sys.exit()
"""
THOROUGH = ((20, 8), (0, 12))  # (calls, 0: all; disks at each)


class Broken(Exception):
    """The mutant is no program: it says nothing about the tests."""


def try_one(
    mutant: Mutant,
    names: tuple[str, ...] = SCENARIOS,
    sizes: tuple[tuple[int, int], ...] = THOROUGH,
    *,
    unit: bool = True,
) -> str:
    """What caught it; '' when nothing did. Raises Broken."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="smallq-mutant-", dir=memory) as place:
        shutil.copytree(
            CHECKOUT / "smallq_deploy", f"{place}/smallq_deploy", ignore=shutil.ignore_patterns("native", "__pycache__")
        )
        Path(place, "smallq_deploy", mutant.file).write_text(mutant.source)
        for beside in ("tests", "src_op", "manifests", "pyproject.toml"):
            os.symlink(CHECKOUT / beside, f"{place}/{beside}")
        env = {**os.environ, "PYTHONPATH": place, "PYTHONDONTWRITEBYTECODE": "1"}
        begin = [sys.executable, "-c", _RUN, place]
        done = _run([*begin, json.dumps(names), json.dumps(sizes)], place, env)
        if done.returncode != 0:
            raise Broken(f"{mutant.name}: {done.stderr.strip()[-400:]}")
        if done.stdout.strip():
            return str(json.loads(done.stdout)).replace(place, "")
        if not unit:
            return ""
        tests = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *UNIT_TESTS]
        done = _run(tests, place, env)
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0] if failed else ""


def _run(command: list[str], place: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=5400)


def main() -> int:
    parser = argparse.ArgumentParser(description="Remove each fsync and turn round each two steps.")
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    chosen = [mutant for mutant in mutants() if arguments.only in mutant.name]
    begun, caught, free, wrong = time.monotonic(), 0, 0, []
    untouched = Mutant("nothing changed", FILES[0], _Source(FILES[0]).text)
    if said := try_one(untouched, sizes=THOROUGH[:1]):
        print(f"the unchanged source is not well either: {said}")
        return 1
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, said in zip(chosen, pool.map(try_one, chosen), strict=True):
            if said and not mutant.free:
                caught += 1
                print(f"{mutant.name}\n    caught by {said[:240]}", flush=True)
            elif mutant.free and not said:
                free += 1
                print(f"{mutant.name}\n    free: {mutant.free}", flush=True)
            else:
                wrong.append(mutant.name)
                print(f"{mutant.name}\n    {'IS CALLED FREE, CAUGHT BY ' + said if said else 'SURVIVED'}", flush=True)
    unused = [part for part in FREE if not arguments.only and not any(part in mutant.name for mutant in chosen)]
    wrong += [f"FREE names no mutant: {part}" for part in unused]
    seconds = time.monotonic() - begun
    print(
        f"{len(chosen)} mutants: {caught} caught, {free} free orders with a proof, {len(wrong)} wrong; {seconds:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
