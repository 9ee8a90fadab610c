"""What a rollout does next, as a pure function of its policy and of what has happened. No clock, no file, no network.

The controller performs steps and appends events, and decides nothing itself: so one that reads the events of a dead
controller goes on as that one would have.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from smallq_deploy.fleet.rollout.policy import Member, Policy, Wave, cut_waves


class Kind(str, enum.Enum):
    """What a host is asked for."""

    PLAN = "plan"  # what the change would do
    CHANGE = "change"
    VERIFY = "verify"  # is there what another host changed in the shared opp?
    CONFIRM = "confirm"  # is the change there? asked where two attempts ended without our knowing how
    LOOK = "look"  # the same, where the rollout has stopped and begins nothing any more
    UNDO = "undo"
    LOOK_UNDO = "look-undo"  # is the change still there? asked where nothing is known of an undo
    RELEASE = "release"  # the hooks after a change or an undo: back in service


CHANGING = frozenset({Kind.CHANGE, Kind.UNDO})
DRAIN_FAILED = "DRAIN_FAILED"
_TRIES = 2  # of a change or an undo on one host


@dataclass(frozen=True)
class Begun:
    """These hosts' turn begins; written before it does."""

    name: ClassVar[str] = "begun"
    kind: Kind
    hosts: tuple[str, ...]
    wave: int = 0


@dataclass(frozen=True)
class Ended:
    """What came of a turn. ``changed``: None where it is not known. ``held``: the hooks before it ran, or may have.

    Of a plan ``changed`` says whether the change would change anything.
    """

    name: ClassVar[str] = "ended"
    kind: Kind
    host: str
    ok: bool
    changed: bool | None = False
    code: str = ""
    message: str = ""
    hint: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    held: bool = False


@dataclass(frozen=True)
class Skipped:
    """These hosts' turn did not begin after all."""

    name: ClassVar[str] = "skipped"
    kind: Kind
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Soaked:
    """The time after ``wave`` is over."""

    name: ClassVar[str] = "soaked"
    wave: int


@dataclass(frozen=True)
class Asked:
    """Somebody asked for ``pause``, ``resume`` or ``abort``."""

    name: ClassVar[str] = "asked"
    what: str


@dataclass(frozen=True)
class Closed:
    """The end; ``result`` as in Finish."""

    name: ClassVar[str] = "closed"
    result: str
    reason: str = ""


Event = Begun | Ended | Skipped | Soaked | Asked | Closed
_EVENTS: Mapping[str, type[Any]] = {each.name: each for each in (Begun, Ended, Skipped, Soaked, Asked, Closed)}


def event_to_dict(event: Event) -> dict[str, Any]:
    """The event as JSON has it, without what is empty."""
    record: dict[str, Any] = {"event": event.name}
    for key, value in vars(event).items():
        if key == "changed" or (value is not None and value not in ("", (), {}, 0, False)) or key in ("ok", "wave"):
            record[key] = value.value if isinstance(value, Kind) else value
    return record


def event_from_dict(record: Mapping[str, Any]) -> Event:
    """The event of :func:`event_to_dict`. Raises ValueError, KeyError, TypeError for anything else."""
    members = {key: value for key, value in record.items() if key != "event"}
    if "kind" in members:
        members["kind"] = Kind(members["kind"])
    if "hosts" in members:
        members["hosts"] = tuple(members["hosts"])
    event: Event = _EVENTS[record["event"]](**members)
    return event


@dataclass(frozen=True)
class Run:
    """Ask ``hosts`` for ``kind``; when the state says ``over`` meanwhile, begin no further one."""

    kind: Kind
    hosts: tuple[str, ...]
    wave: int = 0


@dataclass(frozen=True)
class Soak:
    """Wait after ``wave``."""

    wave: int
    seconds: float


@dataclass(frozen=True)
class Pause:
    """Wait until somebody says ``resume`` or ``abort``."""


@dataclass(frozen=True)
class Finish:
    """``result``: done, refused (a plan is impossible), stopped, rolled-back or aborted."""

    result: str
    reason: str = ""


Step = Run | Soak | Pause | Finish


@dataclass(slots=True)
class HostState:
    """What is known of one host. ``wave`` is 0 before the waves are cut; ``running`` a turn without an end.

    ``held``: the hooks before its turn have run and those after have not; ``due``: these are to be run now.
    """

    name: str
    shared: str = ""
    wave: int = 0
    running: Kind | None = None
    tries: int = 0
    undo_tries: int = 0
    plan: Ended | None = None
    last: Ended | None = None  # of the change, or of what stood for it
    changed: bool | None = False
    undo: Ended | None = None
    held: bool = False
    due: bool = False
    released: Ended | None = None

    @property
    def undone(self) -> bool:
        return self.undo is not None and self.undo.ok


class RolloutState:
    """Everything that events say, kept up to date one event at a time."""

    def __init__(self, policy: Policy, members: Sequence[Member]) -> None:
        self.policy = policy
        self.hosts = {member.name: HostState(member.name, member.shared) for member in members}
        self.waves: tuple[Wave, ...] = ()
        self.soaked = 0
        self.paused = False
        self.aborted = False
        self.closed: Closed | None = None
        self.failed = 0
        self.failed_in: dict[int, int] = {}
        self.over = ""  # which budget is exceeded, and how
        self.over_wave = 0
        self._unplanned = len(self.hosts)
        self._limits: dict[int, int | None] = {}
        self._limit = 0
        self._cut()

    @property
    def halted(self) -> bool:
        """No further host is begun."""
        return bool(self.over) or self.aborted

    def apply(self, event: Event) -> None:
        """Take one event. Raises KeyError for a host that is not of this rollout."""
        if isinstance(event, Ended):
            self._ended(self.hosts[event.host], event)
        elif isinstance(event, Begun):
            for name in event.hosts:
                self._count(self.hosts[name], event.kind, 1)
                self.hosts[name].running = event.kind
        elif isinstance(event, Skipped):
            for name in event.hosts:
                self._count(self.hosts[name], event.kind, -1)
                self.hosts[name].running = None
        elif isinstance(event, Soaked):
            self.soaked = max(self.soaked, event.wave)
        elif isinstance(event, Asked):
            self.paused = event.what == "pause"
            self.aborted = self.aborted or event.what == "abort"
        else:
            self.closed = event

    @staticmethod
    def _count(host: HostState, kind: Kind, by: int) -> None:
        if kind is Kind.CHANGE:
            host.tries += by
        elif kind is Kind.UNDO:
            host.undo_tries += by

    def _ended(self, host: HostState, event: Ended) -> None:
        if event.kind is Kind.RELEASE:
            self._released(host, event)
            return
        host.running = None
        if event.kind is Kind.PLAN:
            self._unplanned -= host.plan is None
            host.plan = event
            self._cut()
        elif event.kind is Kind.UNDO:
            host.undo = event
        elif event.kind is Kind.LOOK_UNDO:
            self._looked_undo(host, event)
        elif event.kind is Kind.LOOK and not event.ok and event.changed is False:
            pass  # the change is not there, and does not come any more: as if its turn had never begun
        else:
            self._judge(host, event)
        if event.held:
            host.held, host.released = True, None
            host.due = _settled(host, event)

    def _released(self, host: HostState, event: Ended) -> None:
        host.held, host.due, host.released = not event.ok, False, event
        if not event.ok and host.last is not None and host.last.ok:
            self._fail(host.wave)

    def _judge(self, host: HostState, event: Ended) -> None:
        host.last = event
        host.changed = event.changed
        lost = host.tries - (event.kind is Kind.CHANGE)  # attempts that we know nothing of
        if event.ok and event.changed is False and lost > 0:
            # It is there, and one of those may have done it: what the plan said counts.
            host.changed = host.plan.changed if host.plan is not None else None
        if not event.ok:
            self._fail(host.wave)

    def _fail(self, wave: int) -> None:
        self.failed += 1
        self.failed_in[wave] = self.failed_in.get(wave, 0) + 1
        self._weigh(wave)

    @staticmethod
    def _looked_undo(host: HostState, event: Ended) -> None:
        if not event.ok and event.changed is False:
            host.undo = Ended(Kind.UNDO, event.host, True, True)
        elif not event.ok or host.undo_tries >= _TRIES:
            message = event.message or "the change is still there after two attempts to undo it"
            host.undo = Ended(Kind.UNDO, event.host, False, None, event.code or "NOT_UNDONE", message, event.hint)

    def _cut(self) -> None:
        """Once every plan is known, the waves of those hosts that can be changed and are not yet as wanted."""
        if self._unplanned:
            return
        wanted = [host for host in self.hosts.values() if host.plan and host.plan.ok and host.plan.changed is not False]
        self.waves = cut_waves([Member(host.name, host.shared) for host in wanted], self.policy)
        self._limit = self.policy.max_fail.of(len(wanted))
        for wave in self.waves:
            share = self.policy.max_fail_wave
            self._limits[wave.number] = None if share is None else share.of(len(wave))
            for name in (*wave.change, *wave.verify):
                self.hosts[name].wave = wave.number

    def _weigh(self, wave: int) -> None:
        if self.over:
            return
        limit, failed = self._limits.get(wave), self.failed_in[wave]
        if self.failed > self._limit:
            self.over = f"{_hosts(self.failed)} failed, --max-fail {self.policy.max_fail} allows {self._limit}"
        elif limit is not None and failed > limit:
            self.over = (
                f"{_hosts(failed)} of wave {wave} failed, --max-fail-wave {self.policy.max_fail_wave} allows {limit}"
            )
        self.over_wave = wave if self.over else 0


def _settled(host: HostState, event: Ended) -> bool:
    """Whether the host may go back in service: it is well, or nothing has been done to it."""
    if event.kind is Kind.LOOK_UNDO:
        return host.undone
    return event.ok or event.code == DRAIN_FAILED or (event.kind is Kind.LOOK and event.changed is False)


def _hosts(number: int) -> str:
    return f"{number} host" + ("" if number == 1 else "s")


def fold(policy: Policy, members: Sequence[Member], events: Iterable[Event]) -> RolloutState:
    """The state after ``events``."""
    state = RolloutState(policy, members)
    for event in events:
        state.apply(event)
    return state


def next_step(state: RolloutState) -> Step:
    """What is to be done now."""
    if state.closed is not None:
        return Finish(state.closed.result, state.closed.reason)
    if due := _names(state, lambda host: host.due):
        return Run(Kind.RELEASE, due)
    if state.halted:
        return _halted(state)
    unplanned = _names(state, lambda host: host.plan is None)
    if unplanned:
        return Pause() if state.paused else Run(Kind.PLAN, unplanned)
    unplannable = _names(state, lambda host: host.plan is not None and not host.plan.ok)
    if unplannable and (not state.policy.skip_unplannable or len(unplannable) == len(state.hosts)):
        return Finish("refused", f"{_hosts(len(unplannable))} cannot be changed as planned")
    for wave in state.waves:
        step = _wave_step(state, wave)
        if step is not None:
            return Pause() if state.paused else step
    return Finish("done")


def _names(state: RolloutState, wanted: Callable[[HostState], bool]) -> tuple[str, ...]:
    return tuple(host.name for host in state.hosts.values() if wanted(host))


def _wave_step(state: RolloutState, wave: Wave) -> Step | None:
    """What is left to do for ``wave``, in this order; None when it is over."""
    open_hosts = [state.hosts[name] for name in wave.change if state.hosts[name].last is None]
    if names := tuple(host.name for host in open_hosts if host.tries < _TRIES):
        return Run(Kind.CHANGE, names, wave.number)
    if open_hosts:
        return Run(Kind.CONFIRM, tuple(host.name for host in open_hosts), wave.number)
    if names := tuple(name for name, leader in wave.verify.items() if _to_verify(state, name, leader)):
        return Run(Kind.VERIFY, names, wave.number)
    last = wave.number == state.waves[-1].number
    if state.policy.soak and not last and state.soaked < wave.number:
        return Soak(wave.number, state.policy.soak)
    return None


def _to_verify(state: RolloutState, name: str, leader: str) -> bool:
    """Where the one that changes the shared opp failed, the others have nothing to see."""
    last = state.hosts[leader].last
    return state.hosts[name].last is None and last is not None and last.ok


def _halted(state: RolloutState) -> Step:
    """The rollout has stopped: learn what is not known, take back what the policy says, end."""
    unknown = _names(state, lambda host: host.running in (Kind.CHANGE, Kind.CONFIRM, Kind.LOOK))
    if unknown:
        return Run(Kind.LOOK, unknown)
    if state.aborted:
        return Finish("aborted", "abort was asked for")
    if state.policy.on_fail == "stop":
        return Finish("stopped", state.over)
    first = state.over_wave if state.policy.on_fail == "rollback-wave" else 1
    for number in range(len(state.waves), first - 1, -1):
        back = [state.hosts[name] for name in state.waves[number - 1].change]
        back = [host for host in back if host.changed and host.undo is None]
        if names := tuple(host.name for host in back if host.undo_tries and host.running is not None):
            return Run(Kind.LOOK_UNDO, names, number)
        if names := tuple(host.name for host in back):
            return Run(Kind.UNDO, names, number)
    left = [host for host in state.hosts.values() if host.changed and host.undo is not None and not host.undone]
    return Finish("rolled-back", state.over + (f"; {_hosts(len(left))} could not be taken back" if left else ""))
