"""What a sweep tells: progress and what is left, a summary by model, JSON, JUnit, and the file to resume from."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from sweep_cases import Case
from sweep_engine import Result, Sweep

STATE_VERSION = 1


def describe(result: Result) -> str:
    """One line about one case."""
    text = f"{'pass' if result.passed else 'FAIL'} {result.case.name} device {result.device}"
    if result.bound is not None and result.relative_l2 is not None and result.worst_error is not None:
        text += f": worst {result.worst_error:.2e} ({result.bound:.3f} of tolerance), relL2 {result.relative_l2:.2e}"
        timed = f", {result.time_us:.0f} us {result.time_kind}" if result.time_us is not None else ""
        return text + timed + ("" if result.passed else f": {result.status}")
    return f"{text}: {result.status}: {result.message}"


def duration(seconds: float) -> str:
    """``75 s``, ``12 min``."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


class Progress:
    """Lines on stderr; on a terminal one line that is written again and again."""

    def __init__(self, cases: Sequence[Case], verbose: bool, quiet: bool) -> None:
        self.total, self.cost = len(cases), sum(case.cost for case in cases)
        self.verbose, self.quiet = verbose, quiet
        self.done, self.done_cost, self.failed = 0, 0.0, 0
        self.started = self.last = time.monotonic()
        self.live = sys.stderr.isatty() and not quiet
        self._lock = threading.Lock()

    def result(self, result: Result) -> None:
        """A final result."""
        with self._lock:
            self.done += 1
            self.done_cost += result.case.cost
            self.failed += not result.passed
            if self.verbose or not result.passed:
                self._line(describe(result))
            now = time.monotonic()
            if self.live or (not self.quiet and now - self.last >= 10) or self.done == self.total:
                self.last = now
                self._status(now - self.started)

    def device(self, device: int, why: str) -> None:
        """A device that takes no more cases."""
        with self._lock:
            self._line(f"device {device} takes no more cases: {why}")

    def _status(self, seconds: float) -> None:
        left = seconds * (self.cost - self.done_cost) / self.done_cost
        text = f"{self.done}/{self.total} cases, {self.failed} not passed, {duration(seconds)}"
        text += f", about {duration(left)} left" if self.done < self.total else ""
        if self.live:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def _line(self, text: str) -> None:
        print(("\r\x1b[K" if self.live else "") + text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.live:
            print(file=sys.stderr)


class State:
    """Results as they come, one JSON document a line, so that an interrupted run can be resumed.

    The first line says which operator they belong to: results of another one do not count.
    """

    def __init__(self, path: Path, fingerprint: str, *, resume: bool) -> None:
        self.path = path
        self.kept: list[Result] = []
        self.note = ""
        if resume:
            self._read(fingerprint)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        self._file: IO[str] = open(fresh, "w", encoding="utf-8")  # noqa: SIM115 - closed by close()
        self._write({"state": STATE_VERSION, "operator": fingerprint})
        for result in self.kept:
            self.add(result)
        os.replace(fresh, path)

    def _read(self, fingerprint: str) -> None:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
            header = json.loads(lines[0])
            if header != {"state": STATE_VERSION, "operator": fingerprint}:
                self.note = "the installed operator is not the one of the earlier run: every case runs again"
                return
            for line in lines[1:]:
                result = Result.from_dict(json.loads(line))
                if result.passed:
                    self.kept.append(result)
        except FileNotFoundError:
            self.note = f"there is no earlier run in {self.path}: every case runs"
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            # The last line of a run that was killed may be half a line; what stands before it counts.
            self.note = f"{self.path} ends in the middle; {len(self.kept)} results were read"

    def add(self, result: Result) -> None:
        """Kept on disk when this returns."""
        self._write(result.to_dict())

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def by_model(results: Iterable[Result]) -> dict[str, list[Result]]:
    """In the order of the first result of each."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.case.model, []).append(result)
    return found


def worst(results: Sequence[Result], name: str) -> float | None:
    """The largest of a figure; None where no result has one."""
    return max((value for each in results if (value := getattr(each, name)) is not None), default=None)


def _figure(value: float | None, pattern: str) -> str:
    return "-" if value is None else format(value, pattern)


def summary(sweep: Sweep, results: Sequence[Result], total: int, seconds: float, simulated: bool) -> str:
    """A table with one line a model, then what did not go well by device, then the totals."""
    rows = [f"{'model':<28}{'cases':>6}{'failed':>8}{'worst |error|':>15}{'of tolerance':>14}{'worst relL2':>13}"]
    for name, mine in sorted(by_model(results).items()):
        failed = sum(not result.passed for result in mine)
        error, bound, l2 = (worst(mine, key) for key in ("worst_error", "bound", "relative_l2"))
        rows.append(
            f"{name:<28}{len(mine):>6}{failed:>8}{_figure(error, '.2e'):>15}{_figure(bound, '.3f'):>14}"
            f"{_figure(l2, '.2e'):>13}"
        )
    rows += [f"device {device} was given up: {why}" for device, why in sorted(sweep.given_up.items())]
    for device in sweep.devices:
        bad = [result for result in results if result.device == device and not result.passed]
        if bad:
            kinds = ", ".join(sorted({result.status for result in bad}))
            rows.append(f"device {device}: {len(bad)} cases not passed ({kinds}): {', '.join(_names(bad))}")
    if len(results) < total:
        rows.append(f"{total - len(results)} of {total} cases were not run; --resume runs what is left")
    failed = sum(not result.passed for result in results)
    where = "simulated toolkit: no NPU took part" if simulated else f"{len(sweep.devices)} devices"
    rows.append(f"{len(results)} cases, {failed} failed, {duration(seconds)}, {where}")
    return "\n".join(rows)


def _names(results: Sequence[Result], limit: int = 6) -> list[str]:
    names = [result.case.name for result in results[:limit]]
    return names + ([f"and {len(results) - limit} more"] if len(results) > limit else [])


def document(
    sweep: Sweep, results: Sequence[Result], *, total: int, resumed: int, seconds: float, simulated: bool, state: Path
) -> dict[str, Any]:
    """The whole run as data."""
    failed = sum(not result.passed for result in results)
    return {
        "matrix": sweep.matrix.name,
        "verdict": "pass" if failed == 0 and len(results) == total and not sweep.given_up else "fail",
        "simulated": simulated,
        "seconds": round(seconds, 3),
        "total": total,
        "passed": len(results) - failed,
        "failed": failed,
        "not_run": total - len(results),
        "resumed": resumed,
        "state": str(state),
        "devices": [
            {
                "device": device,
                "cases": sum(result.device == device for result in results),
                "failed": sum(result.device == device and not result.passed for result in results),
                "given_up": sweep.given_up.get(device, ""),
            }
            for device in sweep.devices
        ],
        "models": [
            {
                "model": name,
                "cases": len(mine),
                "failed": sum(not result.passed for result in mine),
                "worst_error": worst(mine, "worst_error"),
                "bound": worst(mine, "bound"),
                "relative_l2": worst(mine, "relative_l2"),
            }
            for name, mine in sorted(by_model(results).items())
        ],
        "results": [result.to_dict() for result in sorted(results, key=lambda each: each.case.name)],
    }


def write_junit(path: Path, results: Sequence[Result], missing: Sequence[Case]) -> None:
    """One test suite a model, one test a case; cases that were not run are skipped tests."""
    root = ElementTree.Element("testsuites")
    groups: dict[str, list[Result | Case]] = {}
    for result in results:
        groups.setdefault(result.case.model, []).append(result)
    for case in missing:
        groups.setdefault(case.model, []).append(case)
    for name, mine in sorted(groups.items()):
        failed = sum(isinstance(each, Result) and not each.passed for each in mine)
        skipped = sum(isinstance(each, Case) for each in mine)
        counts = {"tests": str(len(mine)), "failures": str(failed), "skipped": str(skipped), "errors": "0"}
        suite = ElementTree.SubElement(root, "testsuite", name=name, **counts)
        for each in mine:
            case = each if isinstance(each, Case) else each.case
            attributes = {"classname": name, "name": case.name}
            if isinstance(each, Case):
                ElementTree.SubElement(ElementTree.SubElement(suite, "testcase", attributes), "skipped")
                continue
            attributes["time"] = f"{each.seconds:.3f}"
            test = ElementTree.SubElement(suite, "testcase", attributes)
            if not each.passed:
                text = f"device {each.device}: {each.status}: {each.message}"
                ElementTree.SubElement(test, "failure", type=each.status, message=_printable(text))
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    """XML has no control characters."""
    return "".join(char if char.isprintable() else " " for char in text)
