"""From a child process that ended, somehow, to a verdict."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smallq_deploy.base.proc import Completed
from smallq_deploy.smoke import report
from smallq_deploy.smoke.codes import explain
from smallq_deploy.smoke.report import CaseResult, DeviceResult, Verdict, fail, inconclusive

_MAX_ANSWER = 16 << 20  # bytes
# Before the operator is called nothing that happens speaks against it.
_DEVICE_PHASES = ("init", "device")
_NODE_HINT = "a problem of this node or its driver: look at `npu-smi info`, try another device with --device N"
_REINSTALL = "install the package again, or roll back with `smallq-deploy rollback`"


class GarbageError(Exception):
    """The child's answer does not have the form it must have."""


def _read(path: Path) -> bytes:
    """What the child wrote, as far as it may be; no pipe or device is waited for. Raises OSError, ValueError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError("it is no plain file")
        raw = stream.read(_MAX_ANSWER + 1)
    if len(raw) > _MAX_ANSWER:
        raise ValueError("it is too large")
    return raw


def read_answer(path: Path) -> dict[str, Any] | None:
    """The child's answer, None when it gave none. Raises GarbageError."""
    try:
        raw = _read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise GarbageError(f"it cannot be read: {error}") from None
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        raise GarbageError("it is not JSON") from None
    if not isinstance(answer, dict):
        raise GarbageError("it is no JSON object")
    return answer


def read_progress(path: Path) -> dict[str, Any]:
    """The last phase the child began, with what it knew by then; {} when it did not begin one."""
    known: dict[str, Any] = {}
    try:
        lines = _read(path).decode("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        return known
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            known.update(record)
    return known


def _place(progress: Mapping[str, Any]) -> str:
    """In words, what the child was doing."""
    phase = progress.get("phase")
    return {
        "load": f"loading {progress.get('library', 'the libraries')}",
        "init": "starting the runtime",
        "device": f"opening device {progress.get('device', '')}",
        "case": f"running case {progress.get('case', '')}",
        "close": "closing the device",
    }.get(str(phase), "starting")


def _without_answer(done: Completed, progress: Mapping[str, Any]) -> Verdict:
    place = _place(progress)
    before_operator = progress.get("phase") in _DEVICE_PHASES
    opening_took_too_long = done.returncode == 1 and "Timeout (" in done.stderr and before_operator
    if done.timed_out or opening_took_too_long:
        text = f"the test process hung while {place}; it was stopped after {done.seconds:.0f} s"
        return inconclusive(text, _NODE_HINT) if before_operator else fail(report.HUNG, text, _REINSTALL)
    if done.returncode == 0:
        return fail(report.GARBAGE, f"the test process ended without an answer while {place}", _REINSTALL)
    text = f"the test process {done.describe()} while {place}"
    if not progress:
        return inconclusive(text, "the test itself could not start; its output says more (--json, data.output)")
    return inconclusive(text, _NODE_HINT) if before_operator else fail(report.CRASHED, text, _REINSTALL)


def _acl_error(answer: Mapping[str, Any]) -> Verdict:
    number, function = int(answer["number"]), str(answer["function"])
    code = explain(number)
    said = str(answer["text"])
    at = answer.get("at") or {}
    where = f" (case {at['case']})" if "case" in at else f" while {_place(at)}"
    message = f"{function} returned {number} {code.name}{where}: {code.meaning}" + (
        f"; it said: {said}" if said else ""
    )
    reason = report.ACLNN_ERROR if code.verdict == "fail" else report.INCONCLUSIVE
    return Verdict(code.verdict, reason, message, code.hint, number, code.name)


def _library_error(answer: Mapping[str, Any]) -> Verdict:
    text = str(answer["text"])
    if not answer["operator"]:
        hint = "the toolkit's own libraries cannot be loaded: check the NPU driver (libascend_hal.so) and set_env.sh"
        return inconclusive(f"{answer['library']} cannot be loaded: {text}", hint)
    if "undefined symbol" in text:
        hint = "the package was built with another CANN than this one: build it again with this toolkit"
    elif "wrong ELF class" in text or "invalid ELF header" in text or "file too short" in text:
        hint = "the library is damaged or for another architecture: " + _REINSTALL
    else:
        hint = _REINSTALL
    return fail(report.NO_LIBRARY, f"{answer['library']} cannot be loaded: {text}", hint)


def _numbers(cases: Sequence[CaseResult]) -> Verdict:
    bad = [case for case in cases if not case.passed]
    if not bad:
        return Verdict("pass", message=f"{len(cases)} of {len(cases)} cases agree with the float64 reference")
    names = ", ".join(case.name for case in bad)
    return fail(
        report.WRONG_NUMBERS,
        f"wrong numbers in {len(bad)} of {len(cases)} cases ({names}): {bad[0].detail}",
        "the operator computes something else than attention: roll back, and report it with the output of --json",
    )


def _judge_answer(
    answer: Mapping[str, Any], expected: Sequence[str], device: int
) -> tuple[Verdict, tuple[CaseResult, ...]]:
    """Raises GarbageError, KeyError, TypeError, ValueError for an answer that no child of ours gives."""
    cases = tuple(CaseResult.from_dict(record) for record in answer["cases"])
    names = [case.name for case in cases]
    if names != list(expected)[: len(names)]:
        raise GarbageError(f"it has cases nobody asked for: {', '.join(names)}")
    status = answer["status"]
    if status == "done":
        if len(names) != len(expected):
            raise GarbageError(f"it says done after {len(names)} of {len(expected)} cases")
        return _numbers(cases), cases
    if status == "acl_error":
        wrong = [case for case in cases if not case.passed]
        return (_numbers(cases) if wrong else _acl_error(answer)), cases
    if status == "no_device":
        count = int(answer["device_count"])
        have = {0: "no device", 1: "device 0 only"}.get(count, f"devices 0 to {count - 1}")
        text = f"there is no device {device}: the runtime sees {have}" if count else "the runtime sees no device"
        return inconclusive(text, "see `smallq-deploy detect` for the devices; check the driver"), cases
    if status == "library_error":
        return _library_error(answer), cases
    if status == "missing_symbol":
        text = f"{answer['library']} has no function {answer['symbol']}"
        return fail(
            report.NO_SYMBOL, text, "the library belongs to other operators or another release: " + _REINSTALL
        ), cases
    if status == "overrun":
        at = answer.get("at") or {}
        text = f"{answer['text']} (case {at.get('case', 'unknown')})"
        return fail(report.OVERRUN, text, "it would damage other data: roll back, and report it"), cases
    raise GarbageError(f"it has the unknown status {status!r}")


def _mapped_library(answer: Mapping[str, Any], live: Path) -> tuple[str, int, Verdict | None]:
    """(path, inode, verdict when it is not the live tree's) of the libcust_opapi.so that the child had mapped."""
    mapped = [item for item in answer["mapped"] if os.path.basename(str(item["path"])).startswith("libcust_opapi.so")]
    real_live = os.path.realpath(live)
    inside = [item for item in mapped if str(item["path"]).startswith(real_live + "/")]
    chosen = (inside or mapped or [{"path": "", "inode": 0}])[0]
    path, inode = str(chosen["path"]), int(chosen["inode"])
    if inside and not path.endswith(" (deleted)"):
        return path, inode, None
    text = f"the library in use was {path or 'none at all'}, which is not in {live}"
    if path.endswith(" (deleted)"):
        text = f"{path.removesuffix(' (deleted)')} was replaced while the test ran"
    return (
        path,
        inode,
        fail(report.OUTSIDE_LIVE_TREE, text, "another process changed the tree, or a link leads out of it"),
    )


def judge(
    done: Completed, result: Path, progress: Path, *, live: Path, cases: Sequence[str], device: int
) -> DeviceResult:
    """The verdict on one finished child. ``cases`` are the names asked for, in order."""
    known = read_progress(progress)
    output = done.tail(20)
    count = known.get("device_count")
    base = DeviceResult(
        device,
        fail(report.GARBAGE, ""),
        device_count=count if isinstance(count, int) else None,
        seconds=done.seconds,
        output=output,
    )

    def with_outcome(outcome: Verdict, **more: Any) -> DeviceResult:
        return DeviceResult(**{**base.__dict__, "outcome": outcome, **more})

    try:
        answer = read_answer(result)
        if answer is None or done.timed_out or done.returncode != 0:
            return with_outcome(_without_answer(done, known))
        outcome, results = _judge_answer(answer, cases, device)
        library, inode, outside = ("", 0, None) if "mapped" not in answer else _mapped_library(answer, live)
        if outcome.verdict == "pass" and "mapped" not in answer:
            raise GarbageError("it does not say which library was used")
        if outcome.verdict == "pass" and outside is not None:
            outcome = outside
    except (GarbageError, KeyError, TypeError, ValueError, AttributeError) as error:
        why = str(error) if isinstance(error, GarbageError) else f"{type(error).__name__}: {error}"
        text = f"the answer of the test process makes no sense: {why}"
        return with_outcome(fail(report.GARBAGE, text, "the runtime damaged the process; report it with --json"))
    return with_outcome(
        outcome,
        cases=results,
        library=library,
        library_inode=inode,
        soc=str(answer.get("soc", "")),
        device_count=answer.get("device_count", base.device_count),
    )
