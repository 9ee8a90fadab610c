"""Runs cases on several devices at once: a fresh process for each case, and no device's trouble stops the others.

Cases that share keys and values form a group, whose inputs are made once. A device takes a whole group at a time, and
when none is left it helps with the groups of others. What goes wrong is told apart:

- *wrong*: the numbers are not those of the reference. Final; a device that is wrong twice in a row while others are
  right takes no more cases.
- *refused*: the operator itself refuses the call (codes 1xxxxx and 561xxx). Final.
- *failed*, *crashed*, *hung*: the case is given to another device once, because the device may be the cause. When it
  passes there, or after two such cases in a row, the first device takes no more.
- a device that cannot be opened takes no more cases at once; its case goes to another one.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sweep_cases import Case, Inputs, Matrix, compare, make_inputs, tolerance_of

STRIKES = 2
TROUBLE = ("failed", "crashed", "hung")
_CODE = re.compile(r"returned (\d+)")
_TIME = re.compile(r"^time_us ([\d.]+) (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """How a case ended: passed, wrong, refused, failed, crashed or hung. Errors are None where there is no output.

    ``seconds`` is the wall clock of the process; ``time_us`` the call itself, ``time_kind`` measured or simulated.
    """

    case: Case
    status: str
    device: int
    seconds: float
    message: str = ""
    worst_error: float | None = None
    bound: float | None = None
    relative_l2: float | None = None
    time_us: float | None = None
    time_kind: str = ""

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "case": asdict(self.case)}

    @staticmethod
    def from_dict(record: dict[str, Any]) -> Result:
        """Raises KeyError or TypeError for what to_dict did not make."""
        return Result(**{**record, "case": Case(**record["case"])})


@dataclass
class Settings:
    """``program``: the command that runs one case. ``memory``: bytes that inputs and processes may take together."""

    program: Sequence[str]
    environment: dict[str, str]
    timeout: float
    open_timeout: float
    memory: float
    repeat: int
    work: Path


@dataclass
class _Task:
    case: Case
    tried: set[int] = field(default_factory=set)
    trouble: Result | None = None


class _Group:
    """Cases with the same keys and values."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = tuple(cases)
        self.bytes = cases[0].kv_bytes
        self.cost = sum(case.cost for case in cases)
        self.pending = deque(_Task(case) for case in sorted(cases, key=lambda each: -each.cost))
        self.left = len(cases)
        self.opened = False
        self.lock = threading.Lock()
        self.inputs: Inputs | None = None

    def prepared(self, work: Path) -> Inputs:
        """The inputs; whoever comes first makes them, the others wait."""
        with self.lock:
            if self.inputs is None:
                self.inputs = make_inputs(self.cases, Path(tempfile.mkdtemp(prefix="group-", dir=work)))
            return self.inputs

    def clean(self) -> None:
        if self.inputs is not None:
            shutil.rmtree(self.inputs.folder, ignore_errors=True)
            self.inputs = None


class Sweep:
    """One run over a list of cases. ``report`` hears every final result, ``on_device`` every device that stops."""

    def __init__(
        self,
        matrix: Matrix,
        cases: Sequence[Case],
        devices: Sequence[int],
        settings: Settings,
        report: Callable[[Result], None],
        on_device: Callable[[int, str], None],
    ) -> None:
        self.matrix, self.devices, self.settings = matrix, tuple(devices), settings
        self.report, self.on_device = report, on_device
        self.results: list[Result] = []
        self.given_up: dict[int, str] = {}
        together: dict[tuple[object, ...], list[Case]] = {}
        for case in cases:
            together.setdefault(case.shared, []).append(case)
        # The most expensive first, so that the devices end together.
        self.groups = sorted((_Group(each) for each in together.values()), key=lambda group: -group.cost)
        self._changed = threading.Condition()
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._active = 0
        self._in_use = 0.0
        self._stop = False
        self._passed_on: set[int] = set()
        self._current: dict[int, _Group] = {}
        self._errors: list[BaseException] = []

    # ---- what a device does next; all of this under the condition ----------------------------------------------------

    def _fits(self, size: float) -> bool:
        return self._active == 0 or self._in_use + size <= self.settings.memory

    def _eligible(self, group: _Group, device: int) -> _Task | None:
        return next((task for task in group.pending if device not in task.tried), None)

    def _choose(self, device: int) -> tuple[_Group, _Task] | None:
        """The device's own group, else a new one, else the open one with most left to do."""
        own = self._current.get(device)
        fresh = [group for group in self.groups if not group.opened]
        open_groups = sorted((g for g in self.groups if g.opened), key=lambda group: -len(group.pending))
        for group in [*([own] if own else []), *fresh, *open_groups]:
            task = self._eligible(group, device)
            # A process holds what it uploads, the device's copy and the emulator's record of it.
            if task is not None and self._fits(group.bytes * (3 if group.opened else 4)):
                return group, task
        return None

    def _next(self, device: int) -> tuple[_Group, _Task] | None:
        """Waits while a running case may still come back; None when there is nothing more for this device."""
        with self._changed:
            while not self._stop and device not in self.given_up:
                chosen = self._choose(device)
                if chosen is not None:
                    group, task = chosen
                    group.pending.remove(task)
                    self._in_use += group.bytes * (3 if group.opened else 4)
                    group.opened = True
                    self._current[device] = group
                    self._active += 1
                    return chosen
                if self._active == 0:
                    return None
                self._changed.wait()
            return None

    # ---- one case ----------------------------------------------------------------------------------------------------

    def _work(self, device: int) -> None:
        trouble, wrong = 0, 0
        try:
            while (chosen := self._next(device)) is not None:
                group, task = chosen
                result, opened = self._attempt(group, task.case, device)
                troubled = result.status in TROUBLE
                trouble = trouble + 1 if troubled else 0
                wrong = wrong + 1 if result.status == "wrong" else 0
                with self._changed:
                    if result.passed:
                        self._passed_on.add(device)
                    why = self._why_give_up(device, result, opened, trouble, wrong)
                    if why:
                        self.given_up[device] = why
                        self.on_device(device, why)
                    self._settle(group, task, result, troubled, opened)
                if why:
                    return
        except BaseException as error:
            with self._changed:
                self._errors.append(error)
                self._stop = True
                self._changed.notify_all()

    def _why_give_up(self, device: int, result: Result, opened: bool, trouble: int, wrong: int) -> str:
        if not opened and result.status in TROUBLE:
            return f"it cannot be opened: {result.message}"
        if trouble >= STRIKES:
            return f"{trouble} cases in a row {result.status}: {result.message}"
        if wrong >= STRIKES and self._passed_on - {device}:
            return f"wrong numbers in {wrong} cases in a row, while other devices compute right ones"
        return ""

    def _settle(self, group: _Group, task: _Task, result: Result, troubled: bool, opened: bool) -> None:
        """Back to the others, or final."""
        task.tried.add(result.device)
        self._active -= 1
        self._in_use -= group.bytes * 3
        others = [d for d in self.devices if d not in self.given_up and d not in task.tried]
        # A device that was never open says nothing about the case; else one more device is asked.
        again = troubled and not self._stop and (not opened or (bool(others) and task.trouble is None))
        if troubled and opened:
            task.trouble = result
        elif result.passed and task.trouble is not None and task.trouble.device not in self.given_up:
            first = task.trouble
            why = f"{first.case.name} {first.status} and passed on device {result.device}: {first.message}"
            self.given_up[first.device] = why
            self.on_device(first.device, why)
        if again:
            group.pending.append(task)
        elif not self._stop:
            group.left -= 1
            self.results.append(result)
            self.report(result)
            if group.left == 0:
                group.clean()
                self._in_use -= group.bytes
        self._changed.notify_all()

    def _attempt(self, group: _Group, case: Case, device: int) -> tuple[Result, bool]:
        """The result, and whether the device could be opened."""
        inputs = group.prepared(self.settings.work)
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=self.settings.work))
        try:
            inputs.write_q(case.q_len, folder / "q.bin")
            for name in ("k.bin", "v.bin"):
                os.symlink(inputs.folder / name, folder / name)
            started = time.monotonic()
            status, hung = self._run(case, device, folder)
            seconds = time.monotonic() - started
            log = (folder / "log").read_text(errors="replace")
            opened = f"device {device} is open" in log
            if status != 0:
                kind, text = _diagnose(status, hung, opened, log, seconds)
                return Result(case, kind, device, seconds, text), opened
            if not (folder / "o.bin").is_file():
                return Result(case, "failed", device, seconds, "the program ended well and wrote no o.bin"), opened
            numbers = compare(folder / "o.bin", case, inputs, tolerance_of(case, self.matrix))
            timed = _TIME.search(log)
            result = Result(
                case,
                "passed" if numbers.passed else "wrong",
                device,
                seconds,
                "" if numbers.passed else _how_far(numbers.bound),
                _finite(numbers.worst_error),
                _finite(numbers.bound),
                _finite(numbers.relative_l2),
                float(timed[1]) if timed else None,
                timed[2] if timed else "",
            )
            return result, True
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, case: Case, device: int, folder: Path) -> tuple[int, bool]:
        """Exit status (negative: the signal) and whether a time limit ended it."""
        settings = self.settings
        env = {**settings.environment, **case.environment(device, folder, settings.repeat)}
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [*settings.program],
                env=env,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            with self._changed:
                self._running[device] = process
                stopping = self._stop
            try:
                if stopping:
                    process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(min(settings.open_timeout, settings.timeout)), False
                if f"device {device} is open".encode() in (folder / "log").read_bytes():
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        return process.wait(max(0.1, settings.timeout - settings.open_timeout)), False
                process.kill()
                return process.wait(), True
            finally:
                with self._changed:
                    self._running.pop(device, None)

    # ---- the whole ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Returns when every case has a result or no device is left for it. KeyboardInterrupt ends all processes."""
        threads = [threading.Thread(target=self._work, args=(device,), daemon=True) for device in self.devices]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.5)
        except BaseException:
            self.stop()
            for thread in threads:
                thread.join(10)
            raise
        finally:
            for group in self.groups:
                group.clean()
        if self._errors:
            raise self._errors[0]
        for group in self.groups:
            for task in group.pending:
                if task.trouble is not None:  # no device was left to try it again
                    self.results.append(task.trouble)
                    self.report(task.trouble)

    def stop(self) -> None:
        """No new case; running processes are killed."""
        with self._changed:
            self._stop = True
            for process in self._running.values():
                process.kill()
            self._changed.notify_all()


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _how_far(bound: float) -> str:
    return f"{bound:.3g} times the tolerance" if math.isfinite(bound) else "the output has values that are not numbers"


def _diagnose(status: int, hung: bool, opened: bool, log: str, seconds: float) -> tuple[str, str]:
    """(kind, text) of a process that did not end well."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith("device ")]
    last = next((line for line in lines if _CODE.search(line)), lines[-1] if lines else "no output")[:400]
    if hung:
        return "hung", f"{'no result' if opened else 'the device was not open'} after {seconds:.0f} s"
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        return "crashed", f"the process was ended by {name}"
    code = _CODE.search(last)
    of_operator = code is not None and re.fullmatch(r"1\d{5}|561\d{3}", code[1]) is not None and code[1] != "107001"
    return ("refused" if (of_operator and opened) or status == 2 else "failed"), last
