"""What came of a rollout, host by host and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smallq_deploy.base.errors import ExitStatus
from smallq_deploy.fleet.rollout.waves import Ended, HostState, Kind, RolloutState

# How a host stands in the end. Bad ones come first in reports.
STATUSES: Mapping[str, str] = {
    "failed": "failed, and is as it was before",
    "failed-changed": "was changed, and is not as it should be",
    "unknown": "not known: it may have been changed",
    "undo-failed": "was changed, and could not be taken back",
    "unplannable": "cannot be changed",
    "not-run": "its turn did not come",
    "undone": "was changed, and taken back",
    "changed": "changed",
    "verified": "sees what was changed in the shared opp",
    "unchanged": "was as wanted before",
}
GOOD = frozenset({"changed", "verified", "unchanged"})


@dataclass(frozen=True)
class HostResult:
    """One host in the end. ``status`` is one of STATUSES; ``code``, ``message`` and ``hint`` say why it is not good."""

    name: str
    status: str
    wave: int = 0
    code: str = ""
    message: str = ""
    hint: str = ""
    tries: int = 0
    seconds: float = 0.0
    drained: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.status in GOOD and not self.code

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "seconds": round(self.seconds, 3), "data": dict(self.data)}


@dataclass(frozen=True)
class WaveResult:
    """A wave in numbers: ``hosts`` in it, and how many of them stand how."""

    number: int
    hosts: int
    counts: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        return {"number": self.number, "hosts": self.hosts, "counts": dict(self.counts)}


@dataclass(frozen=True)
class Report:
    """``result``: done, refused, stopped, rolled-back, aborted, or interrupted (it can be resumed).

    ``hosts`` in the order of the inventory.
    """

    run: str
    action: str
    result: str
    reason: str
    hosts: tuple[HostResult, ...]
    waves: tuple[WaveResult, ...]
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """How many hosts stand how, bad ones first; those that are none are left out."""
        found = Counter(host.status for host in self.hosts)
        return {status: found[status] for status in STATUSES if found[status]}

    @property
    def failed(self) -> tuple[HostResult, ...]:
        """The hosts that are not as wanted, the worst first."""
        order = list(STATUSES)
        return tuple(sorted((host for host in self.hosts if not host.ok), key=lambda host: order.index(host.status)))

    @property
    def drained(self) -> tuple[str, ...]:
        """Hosts that were taken out of service and are not back."""
        return tuple(host.name for host in self.hosts if host.drained)

    @property
    def how_to_resume(self) -> str:
        """The command that goes on; '' where nothing is left to go on with."""
        return f"smallq-deploy fleet resume {self.run}" if self.result == "interrupted" else ""

    @property
    def exit_status(self) -> ExitStatus:
        if self.result == "interrupted":
            return ExitStatus.INTERRUPTED
        well = self.result == "done" and all(host.ok for host in self.hosts)
        return ExitStatus.OK if well else ExitStatus.HOSTS_FAILED

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "action": self.action,
            "result": self.result,
            "reason": self.reason,
            "counts": self.counts,
            "waves": [wave.to_dict() for wave in self.waves],
            "drained": list(self.drained),
            "how_to_resume": self.how_to_resume,
            "seconds": round(self.seconds, 3),
            "hosts": [host.to_dict() for host in self.hosts],
        }


def make_report(
    state: RolloutState, run: str, action: str, result: str, reason: str, seconds: float, *, drains: bool = False
) -> Report:
    """The report of ``state``; ``drains``: there are hooks that take hosts out of service."""
    leaders = {name: leader for wave in state.waves for name, leader in wave.verify.items()}
    hosts = tuple(_result(host, leaders.get(host.name, ""), drains) for host in state.hosts.values())
    by_wave: dict[int, Counter[str]] = {}
    for host in hosts:
        by_wave.setdefault(host.wave, Counter())[host.status] += 1
    waves = tuple(WaveResult(wave.number, len(wave), by_wave.get(wave.number, Counter())) for wave in state.waves)
    return Report(run, action, result, reason, hosts, waves, seconds)


def _result(host: HostState, leader: str, drains: bool) -> HostResult:
    status, ended = _status(host)
    values: dict[str, Any] = {"wave": host.wave, "tries": host.tries, "drained": drains and host.held}
    if ended is not None:
        values |= {"code": ended.code, "message": ended.message, "hint": ended.hint}
        values |= {"seconds": ended.seconds, "data": ended.data}
    if status == "not-run" and leader:
        values["message"] = f"{leader}, which changes the opp that both use, has not been changed"
    if not values.get("code") and host.released is not None and not host.released.ok:
        values |= {"code": host.released.code, "message": host.released.message, "hint": host.released.hint}
    return HostResult(host.name, status, **values)


def _status(host: HostState) -> tuple[str, Ended | None]:
    """How the host stands, and the event that says so."""
    last, plan = host.last, host.plan
    if plan is not None and not plan.ok:
        return "unplannable", plan
    if last is None:
        if host.running in (Kind.CHANGE, Kind.CONFIRM, Kind.LOOK):
            return "unknown", None
        return ("unchanged" if plan is not None and plan.changed is False else "not-run"), None
    if host.undo is not None:
        return ("undone" if host.undo.ok else "undo-failed"), (last if host.undo.ok and not last.ok else host.undo)
    if host.changed is None:
        return "unknown", last
    if not last.ok:
        return ("failed-changed" if host.changed else "failed"), last
    if last.kind is Kind.VERIFY:
        return "verified", last
    return ("changed" if host.changed else "unchanged"), last
