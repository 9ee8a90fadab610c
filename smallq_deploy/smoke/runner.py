"""Prove that the installed operator computes: a fresh process, a user's environment, real aclnn calls.

Each device is asked in a process of its own with a hard time limit, because a sick device can hang and a broken
operator can crash its process.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from smallq_deploy.base.errors import SmallqError, UsageError
from smallq_deploy.base.events import Events
from smallq_deploy.base.proc import run
from smallq_deploy.machine.devices import unit_of
from smallq_deploy.machine.toolkit import Toolkit
from smallq_deploy.smoke import report, resolve
from smallq_deploy.smoke.report import DeviceResult, SmokeReport, Verdict, fail, inconclusive
from smallq_deploy.smoke.verdict import judge

if TYPE_CHECKING:
    from smallq_deploy.package.releases import Release

OPEN_TIMEOUT = 30.0  # seconds for starting the runtime and opening one device
_CAUSE_CODES = frozenset({561001, 561002, 561003, 561107, 561108, 561109, 561110, 561111, 561112, 561113})
_CAUSE_REASONS = frozenset({report.CRASHED, report.NO_LIBRARY, report.NO_SYMBOL})


def parse_device(text: str) -> int | str:
    """``auto``, ``all`` or a device number; raises UsageError BAD_DEVICE."""
    if text in ("auto", "all"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise UsageError("BAD_DEVICE", f"{text!r} is no device", hint="give a number such as 0, or auto, or all")


def child_command() -> list[str]:
    """How the test process is started; request, progress and result files follow."""
    return [sys.executable, "-m", "smallq_deploy.smoke.child"]


def child_environment(toolkit: Toolkit) -> dict[str, str]:
    """What a user gets from set_env.sh in a clean shell, plus what Python needs to find this package."""
    env = toolkit.environment()
    package_parent = str(Path(__file__).resolve().parents[2])
    env["PYTHONPATH"] = ":".join(part for part in (package_parent, env.get("PYTHONPATH", "")) if part)
    # The toolkit's Python packages may be read-only or shared; the current directory is a private one.
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    return env


class _Test:
    """One smoke test: what is asked, and the process that answers."""

    def __init__(
        self, toolkit: Toolkit, release: Release, live: Path, timeout: float, command: Sequence[str] | None
    ) -> None:
        self.toolkit = toolkit
        self.release = release
        self.live = live
        self.timeout = timeout
        self.command = list(command) if command is not None else child_command()
        self.env: Mapping[str, str] = child_environment(toolkit)
        self.library = ""

    def before(self) -> Verdict | None:
        """What can be said without a process: nothing to load, or not ours, or not for this host."""
        if self.toolkit.arch != platform.machine():
            return inconclusive(
                f"the toolkit is for {self.toolkit.arch} and this host is {platform.machine()}: nothing can run here",
                "run `smallq-deploy smoke` on a machine of that architecture",
            )
        found = resolve.bases(self.release.operator, self.toolkit.opp, self.env)
        winner = resolve.winner(found)
        if winner is None:
            cause = resolve.why_not_live(self.live, self.toolkit.opp)
            reason = report.NO_LIBRARY
            for base in found:
                if base.path == self.live and base.has_library:
                    reason = report.NO_SYMBOL
                    cause = f"{base.library} has no function aclnn{self.release.operator}GetWorkspaceSize"
            hint = "`smallq-deploy repair` mends an installation made by hand; else install a package"
            return fail(reason, f"programs do not find the operator: {cause}", hint)
        if os.path.realpath(winner.path) != os.path.realpath(self.live):
            text = f"programs get {winner.library}, not the one in {self.live}"
            cause = resolve.why_not_live(self.live, self.toolkit.opp)
            own = next((base for base in found if base.path == self.live), None)
            if own is not None and own.has_operator:
                cause = f"{winner.origin} puts {winner.path.name} first"
            return fail(report.OUTSIDE_LIVE_TREE, f"{text}: {cause}", "see `smallq-deploy install --priority first`")
        self.library = str(winner.library)
        return None

    def on_device(self, device: int) -> DeviceResult:
        """Ask one device in a fresh process."""
        names = [case.name for case in self.release.smoke_cases]
        tolerance = self.release.tolerance
        request = {
            "operator": self.release.operator,
            "library": self.library,
            "device": device,
            "cases": [asdict(case) for case in self.release.smoke_cases],
            "tolerance": {"abs": tolerance.abs, "rel": tolerance.rel, "rel_l2": tolerance.rel_l2},
            "open_timeout": max(1.0, min(OPEN_TIMEOUT, self.timeout / 2)),
            "kernel_ms": max(1000, int(self.timeout * 500)),
        }
        with tempfile.TemporaryDirectory(prefix="smallq-smoke-", ignore_cleanup_errors=True) as folder:
            files = [Path(folder, name) for name in ("request.json", "progress", "result.json")]
            files[0].write_text(json.dumps(request), encoding="utf-8")
            done = run([*self.command, *files], env=self.env, cwd=folder, timeout=self.timeout, contain=True)
            result = judge(done, files[2], files[1], live=self.live, cases=names, device=device)
        return replace(result, outcome=self.with_cause(result))

    def with_cause(self, result: DeviceResult) -> Verdict:
        """Where the outcome can come from missing or damaged files, name those that are."""
        outcome = result.outcome
        if outcome.code not in _CAUSE_CODES and outcome.reason not in _CAUSE_REASONS:
            return outcome
        from smallq_deploy.package.validate import validate_vendor

        unit = unit_of(result.soc, self.toolkit)
        try:
            findings = validate_vendor(
                self.live, operator=self.release.operator, unit=unit, arch=self.toolkit.arch, vendor=self.live.name
            )
        except SmallqError as error:
            causes = [error.message]
        else:
            causes = [finding.message for finding in findings if finding.severity == "fail"]
        if not causes:
            return outcome
        more = f" (and {len(causes) - 2} more)" if len(causes) > 2 else ""
        return replace(outcome, message=f"{outcome.message}. Cause: {'; '.join(causes[:2])}{more}")


def caller_warnings(operator: str, live: Path, opp: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where programs started from the caller's own shell would get something else than what is tested."""
    entries = [entry for entry in environ.get("ASCEND_CUSTOM_OPP_PATH", "").split(":") if entry]
    stale = [entry for entry in entries if not os.path.isdir(entry)]
    found = [f"ASCEND_CUSTOM_OPP_PATH of this shell names {entry}, which does not exist" for entry in stale]
    first = resolve.winner(resolve.bases(operator, opp, environ))
    if entries and first is not None and os.path.realpath(first.path) != os.path.realpath(live):
        found.append(
            f"ASCEND_CUSTOM_OPP_PATH of this shell makes programs load {first.library} instead of "
            f"{live / resolve.OPAPI}; the smoke test runs without it"
        )
    return tuple(found)


def run_smoke(
    toolkit: Toolkit,
    release: Release,
    *,
    live: Path,
    device: int | str = "auto",
    timeout: float = 120.0,
    events: Events | None = None,
    command: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> SmokeReport:
    """Call the operator installed in ``live`` on the release's smoke cases and compare with a float64 reference.

    ``device``: a number; ``auto`` asks device 0 and, while the answers are inconclusive, the others; ``all`` needs a
    pass on every one. ``timeout`` (seconds) bounds each process; after it ``auto`` asks no further device.
    ``command`` replaces the test process; ``environ`` is the caller's environment, only looked at for warnings. Never
    raises for what the operator does; raises NoToolkitError when set_env.sh cannot be sourced, UsageError BAD_DEVICE.
    """
    if not isinstance(device, int) and device not in ("auto", "all"):
        device = parse_device(device)
    events = events or Events()
    start = time.monotonic()
    warnings = caller_warnings(release.operator, live, toolkit.opp, os.environ if environ is None else environ)
    for warning in warnings:
        events.warning(warning)
    test = _Test(toolkit, release, live, timeout, command)
    early = test.before()
    results = [] if early is not None else _ask(test, device, events)
    decider = _decider(results, device)
    outcome = early or (decider.outcome if decider else inconclusive("no device was asked"))
    return SmokeReport(
        outcome.verdict,
        outcome.reason,
        outcome.code,
        outcome.code_name,
        outcome.message + _others(results, decider),
        outcome.hint,
        decider.device if decider else None,
        decider.cases if decider else (),
        decider.library if decider else "",
        decider.library_inode if decider else 0,
        time.monotonic() - start,
        toolkit.remark,
        tuple(results),
        warnings,
        decider.output if decider and outcome.verdict != "pass" else "",
    )


def _ask(test: _Test, device: int | str, events: Events) -> list[DeviceResult]:
    results: list[DeviceResult] = []
    queue = [device] if isinstance(device, int) else [0]
    start = time.monotonic()
    while queue:
        if device == "auto" and time.monotonic() - start >= test.timeout:
            events.note(f"no time left to ask {len(queue)} more devices")
            break
        number = queue.pop(0)
        with events.step(f"call the operator on device {number}") as step:
            result = test.on_device(number)
            if result.outcome.verdict != "pass":
                step.fail()
        results.append(result)
        if result.outcome.verdict != "pass":
            events.note(f"device {number}: {result.outcome.verdict}: {result.outcome.message}")
        if device == "auto" and result.outcome.verdict != "inconclusive":
            break
        if len(results) == 1 and not isinstance(device, int):
            queue = list(range(1, result.device_count or 1))
    return results


def _decider(results: Sequence[DeviceResult], device: int | str) -> DeviceResult | None:
    """The result that counts: for ``all`` the worst, else the first that is not inconclusive, else the first."""
    order = ("fail", "inconclusive", "pass") if device == "all" else ("pass", "fail", "inconclusive")
    return min(results, key=lambda item: order.index(item.outcome.verdict), default=None)


def _others(results: Sequence[DeviceResult], decider: DeviceResult | None) -> str:
    """What the other devices said, for the message."""
    if decider is None or len(results) < 2:
        return ""
    if decider.outcome.verdict == "pass":
        undecided = [str(item.device) for item in results if item.outcome.verdict == "inconclusive"]
        if undecided:
            return f" (on device {decider.device}; inconclusive on {', '.join(undecided)})"
        return f" (on each of {len(results)} devices)"
    same = sum(1 for item in results if item.outcome.verdict == decider.outcome.verdict)
    return f" (device {decider.device}; {same} of {len(results)} devices gave no pass)"
