"""The fault matrix: its rows, their bars, and the table that a run of the fault tests prints.

A test reports what it did with the fixture ``fault_row``; the rows of all tests, also of other xdist workers, are added
up. ``SMALLQ_FAULTS=full`` (``make faults``) runs every row at its full size and fails below a bar; else a seeded subset
runs. A row may be skipped only where this machine lacks what the row needs; the probes here decide that.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.mounts import with_own_mounts

# Read at import: the tests' own environment has no variable of ours.
FULL = os.environ.get("SMALLQ_FAULTS") == "full"
_SHOWN = 20


@dataclass(frozen=True)
class Row:
    """One line of the matrix. ``bar`` is the least number of ``unit`` that a full run must do."""

    fault: str
    unit: str
    bar: int
    needs: tuple[str, ...] = ()


ROWS = {
    "1": Row("SIGKILL at every mutating system call", "points", 800, ("strace",)),
    "2": Row("SIGKILL during recovery", "pairs", 200, ("strace",)),
    "3": Row("SIGKILL, SIGTERM, SIGINT of the process group at random times", "kills", 300),
    "4 ext4": Row("power cut on ext4", "rounds", 300, ("loop mounts",)),
    "4 xfs": Row("power cut on xfs", "rounds", 300, ("loop mounts",)),
    "4 btrfs": Row("power cut on btrfs", "rounds", 300, ("loop mounts",)),
    "4 model": Row("power cut on a modelled disk that keeps only what was synced", "disks", 3000),
    "5": Row("an error at every system call", "injections", 800, ("strace",)),
    "6": Row("a file system that is full", "sizes", 20, ("mounts",)),
    "7": Row("read-only, immutable, wrong owner, no permission", "places", 15, ("mounts",)),
    "8": Row("several processes at once", "races", 500),
    "9": Row("links put in the way", "attacks", 30),
    "10": Row("hostile packages, made by hand", "packages", 60),
    "10 fuzz": Row("hostile packages, random", "packages", 5000),
    "11": Row("hostile manifests, random", "manifests", 5000),
    "12": Row("bad signatures", "signatures", 12),
    "13": Row("smoke tests that fail, hang, crash, babble, leave children", "endings", 12),
    "14": Row("environments that lie", "machines", 40),
    "15": Row("drift", "changes", 36),
    "16": Row("random commands and kills against a model", "sequences", 2000),
    "16 command": Row("the same through the real command", "sequences", 100),
    "18": Row("saved states of every released schema", "states", 1),
}


@functools.cache
def lacking(ability: str) -> str:
    """'' when this machine can do it, else why not."""
    return {"strace": _no_strace, "mounts": _no_mounts, "loop mounts": _no_loop_mounts}[ability]()


def _no_strace() -> str:
    from tests.support.killer import why_not

    return why_not()


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{' '.join(command)}: {done.stderr.strip()[-200:]}"


def _said(work: Callable[[], str]) -> str:
    """What ``work`` says in a child with mounts of its own, '' is success; the last line where that fails."""
    return "".join(with_own_mounts(lambda: [work()])).strip().rpartition("\n")[2]


def _no_mounts() -> str:
    with tempfile.TemporaryDirectory() as place:
        return _said(lambda: _run("mount", "-t", "tmpfs", "tmpfs", place))


def _no_loop_mounts() -> str:
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed"
    with tempfile.TemporaryDirectory() as place:
        image = Path(place, "image")
        with open(image, "wb") as stream:
            stream.truncate(16 << 20)
        Path(place, "at").mkdir()
        return _said(
            lambda: (
                _run("mkfs.ext4", "-q", "-F", str(image))
                or _run("mount", "-o", "loop", str(image), f"{place}/at")
                or _run("umount", f"{place}/at")
            )
        )


class FaultRow:
    """The fixture ``fault_row`` of one test."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record

    def __call__(self, row: str, done: int, violations: Sequence[str] = (), *, what: str = "") -> None:
        """Report ``done`` units of ``row`` (a key of ROWS) and fail the test when there were violations."""
        assert row in ROWS, f"the matrix has no row {row!r}"
        unit = ROWS[row].unit
        self._record("fault_row", json.dumps([row, done, len(violations)]))
        if what:
            self._record("measured", f"row {row}, {what}: {done} {unit}, {len(violations)} violations")
        shown = "\n".join(violations[:_SHOWN])
        assert not violations, f"row {row}: {len(violations)} violations in {done} {unit}\n{shown}"

    def need(self, row: str) -> None:
        """Skip this test, loudly and counted, where the machine lacks what its row needs."""
        for ability in ROWS[row].needs:
            if reason := lacking(ability):
                self.skip(row, f"no {ability}: {reason}")

    def skip(self, row: str, reason: str) -> NoReturn:
        """Skip this test and count it for ``row``."""
        self._record("fault_skip", json.dumps([row, reason]))
        pytest.skip(f"ROW {row} NOT TESTED: {reason}")


@dataclass
class Tally:
    """What all tests of a run reported."""

    done: dict[str, int] = field(default_factory=dict)
    violations: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, set[str]] = field(default_factory=dict)

    def add(self, properties: Iterable[tuple[str, object]]) -> None:
        for name, value in properties:
            if name == "fault_row":
                row, done, violations = json.loads(str(value))
                self.done[row] = self.done.get(row, 0) + done
                self.violations[row] = self.violations.get(row, 0) + violations
            elif name == "fault_skip":
                row, reason = json.loads(str(value))
                self.skipped.setdefault(row, set()).add(reason)

    def table(self) -> list[str]:
        """One line a row, as printed at the end of a run; empty when no test reported anything."""
        if not self.done and not self.skipped and not FULL:
            return []
        lines = [f"{'row':<11}{'done':>7} {'bar':>5}  {'unit':<11}{'violations':>10}  fault"]
        for name, row in ROWS.items():
            if name not in self.done and name not in self.skipped:
                continue
            count, bad = self.done.get(name, 0), self.violations.get(name, 0)
            lines.append(f"{name:<11}{count:>7} {row.bar if FULL else '-':>5}  {row.unit:<11}{bad:>10}  {row.fault}")
            lines += [f"{'':<11}NOT TESTED: {reason}" for reason in sorted(self.skipped.get(name, ()))]
        return lines

    def shortfalls(self) -> list[str]:
        """What makes a full run fail: rows below their bar, and rows skipped although the machine could."""
        found = []
        for name, row in ROWS.items():
            if any(lacking(ability) for ability in row.needs):
                continue
            if name in self.skipped:
                found.append(f"row {name} was skipped, though this machine allows it")
            if self.done.get(name, 0) < row.bar:
                found.append(f"row {name}: {self.done.get(name, 0)} {row.unit}, the bar is {row.bar}")
        return found
