"""Is every fsync needed, and every order of two steps? Each is removed or turned round: ``make mutants``.

    python -m tests.faults.mutants [--only TEXT] [--jobs N]

A mutant is a copy of smallq_deploy with one statement changed, found in the syntax tree of the store and of fsops, not
in a list. It runs the power cuts on the modelled disk (tests/support/strictrun.py) until a violation is seen. Prints a
table, and ends with status 1 where a mutant survives: then a test is missing, or the statement is not needed.
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
    *("base/fsops.py", "store/transaction.py", "store/settle.py", "store/switch.py", "store/journal.py"),
    *("store/configini.py", "store/generations.py", "store/paths.py", "store/recovery.py", "store/pins.py"),
)
SYNCS = frozenset({"fsync", "fsync_dir", "fsync_file", "fsync_tree"})
STEPS = SYNCS | {
    *("write_journal", "_write", "write_state", "append_history", "move", "take", "remove_tree", "apply_change"),
    *("revert_change", "restore", "_close", "drop_journal", "write_generation", "rename", "unlink", "rename_exchange"),
    *("_drop_failed", "_move_if_there", "switch", "note", "_perform", "_copy_old", "prove"),
}
# What the cuts are tried on, the likeliest first.
SCENARIOS = (
    *("upgrade", "adopting install", "rollback", "restore", "failing smoke", "uninstall", "first install"),
    *("upgrade by renames", "repair", "gc", "pin"),
)
# The modelled disk gives out new inode numbers, which the copy method must not see: that one is cut on a real ext4.
REAL = ("upgrade by copy",)


@dataclass(frozen=True)
class Mutant:
    """``file`` with the text of lines ``first`` to ``last`` (from 1) replaced."""

    name: str
    file: str
    first: int
    last: int
    text: str


def _called(node: ast.AST) -> set[str]:
    names = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            function = inner.func
            names.add(function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", ""))
    return names


def mutants() -> Iterator[Mutant]:
    """Every fsync removed, every two neighbouring steps turned round.

    Left out: two fsyncs in a row (nothing is between them), and two conditional blocks (mostly alternatives).
    """
    for file in FILES:
        source = (CHECKOUT / "smallq_deploy" / file).read_text()
        lines = source.splitlines()
        for function in ast.walk(ast.parse(source)):
            if not isinstance(function, ast.FunctionDef):
                continue
            for block in _blocks(function):
                yield from _removed(file, function.name, lines, block)
                yield from _swapped(file, function.name, lines, block)


def _blocks(function: ast.FunctionDef) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef) and node is not function:
            continue
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                yield block


def _removed(file: str, function: str, lines: list[str], block: list[ast.stmt]) -> Iterator[Mutant]:
    for statement in block:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and _called(statement) & SYNCS:
            text = lines[statement.lineno - 1].strip()
            name = f"{file}:{statement.lineno} {function}: without {text}"
            yield Mutant(name, file, statement.lineno, statement.end_lineno or 0, " " * statement.col_offset + "pass")


def _swapped(file: str, function: str, lines: list[str], block: list[ast.stmt]) -> Iterator[Mutant]:
    for one, two in itertools.pairwise(block):
        first, second = _called(one) & STEPS, _called(two) & STEPS
        if not first or not second or (first <= SYNCS and second <= SYNCS) or isinstance(one, ast.Return):
            continue
        if isinstance(one, ast.If) and isinstance(two, ast.If):
            continue
        before = lines[one.lineno - 1 : one.end_lineno]
        after = lines[two.lineno - 1 : two.end_lineno]
        if isinstance(two, ast.Return):
            pad = " " * two.col_offset
            after = [after[0].replace("return ", "_turned = ", 1), *after[1:]]
            text = [*after, *before, f"{pad}return _turned"]
        else:
            text = [*after, *before]
        name = f"{file}:{two.lineno} {function}: {after[0].strip()[:44]} before {before[0].strip()[:44]}"
        yield Mutant(name, file, one.lineno, two.end_lineno or 0, "\n".join(text))


_RUN = """
import json, random, sys, tempfile
from pathlib import Path
from smallq_deploy.operate import gc, inuse, mover, preflight
from tests.support.cutscenarios import CUTS, SEED
from tests.support.strictrun import strict_cuts
preflight.processes_using = mover.processes_using = lambda directory: ()
gc.users_of = lambda store: inuse.Users()
for name in json.loads(sys.argv[1]):
    scenario = CUTS[name]
    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as place:
        try:
            tried, found = strict_cuts(scenario.prepare, scenario.act, Path(place), seed=SEED, edited=scenario.edited,
                                       first_only=True, more=1)
        except BaseException as error:
            found = [f"it does not even run: {type(error).__name__}: {error}"]
    if found:
        print(json.dumps([name, found[0]]))
        sys.exit()
if len(sys.argv) > 3:
    from tests.faults.test_power_cut import cut
    from tests.support.mounts import with_own_mounts
    for name in json.loads(sys.argv[3]):
        with tempfile.TemporaryDirectory(dir=sys.argv[2]) as place:
            found = [text for text in with_own_mounts(lambda: cut("ext4", name, Path(place), 90)) if not text.isdigit()]
        if found:
            print(json.dumps([name, found[0]]))
            break
"""


def try_one(mutant: Mutant, names: tuple[str, ...] = SCENARIOS, real: tuple[str, ...] = REAL) -> str:
    """What caught it; '' when nothing did."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="smallq-mutant-", dir=memory) as place:
        shutil.copytree(
            CHECKOUT / "smallq_deploy", f"{place}/smallq_deploy", ignore=shutil.ignore_patterns("native", "__pycache__")
        )
        path = Path(place, "smallq_deploy", mutant.file)
        lines = path.read_text().splitlines()
        lines[mutant.first - 1 : mutant.last] = mutant.text.splitlines()
        path.write_text("\n".join(lines) + "\n")
        for beside in ("tests", "src_op", "manifests"):
            os.symlink(CHECKOUT / beside, f"{place}/{beside}")
        env = {**os.environ, "PYTHONPATH": place, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                [sys.executable, "-c", _RUN, json.dumps(names), place, json.dumps(real)],
                cwd=place,
                env=env,
                capture_output=True,
                text=True,
                timeout=900,
            )
        except subprocess.TimeoutExpired:
            return "it hangs"
    if done.returncode != 0:
        return f"it cannot be imported: {done.stderr.strip().splitlines()[-1]}"
    if not done.stdout.strip():
        return ""
    name, found = json.loads(done.stdout)
    return f"{name}: {found}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Remove each fsync and turn round each two steps.")
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    chosen = [mutant for mutant in mutants() if arguments.only in mutant.name]
    begun, survived = time.monotonic(), []
    untouched = try_one(Mutant("nothing changed", FILES[0], 1, 0, "# nothing"), ("upgrade", "pin"))
    if untouched:
        print(f"the unchanged source is not well either: {untouched}")
        return 1
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, caught in zip(chosen, pool.map(try_one, chosen), strict=True):
            print(f"{mutant.name}\n    {'caught by ' + caught[:150] if caught else 'SURVIVED'}", flush=True)
            survived += [] if caught else [mutant.name]
    print(
        f"{len(chosen)} mutants, {len(chosen) - len(survived)} caught, {time.monotonic() - begun:.0f} s, modelled disk"
    )
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
