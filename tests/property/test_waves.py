"""Laws of rollouts, over any fleet, policy and failures: the real controller on hosts in memory."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from smallq_deploy.fleet.rollout.controller import Rollout
from smallq_deploy.fleet.rollout.hooks import Hooks
from smallq_deploy.fleet.rollout.ledger import Ledger
from smallq_deploy.fleet.rollout.outcome import Report
from smallq_deploy.fleet.rollout.policy import ON_FAIL, Member, Policy, Share, cut_waves
from smallq_deploy.fleet.rollout.waves import Begun, Ended, Kind, event_from_dict, event_to_dict, fold, next_step
from tests.support.fleetsim import NEW, MemoryLedger, SimInstall, SimTransport, World, header_of, hosts_of

_SCRIPTS = ("ok", "ok", "ok", "ok", "fails", "smoke", "install:unreachable", "hang", "hang-done", "undo-fails")
_shares = st.one_of(
    st.integers(0, 12).map(lambda number: Share(number * 1000)),
    st.integers(0, 100_000).map(lambda part: Share(part, True)),
)


@st.composite
def _waves(draw: st.DrawFn) -> tuple[Share, ...]:
    counts = sorted(draw(st.sets(st.integers(1, 12), max_size=2)))
    parts = sorted(draw(st.sets(st.integers(1, 100_000), min_size=1, max_size=3)))
    return (*(Share(count * 1000) for count in counts), *(Share(part, True) for part in parts))


policies = st.builds(
    Policy,
    waves=_waves(),
    max_fail=_shares,
    max_fail_wave=st.none() | _shares,
    on_fail=st.sampled_from(ON_FAIL),
    skip_unplannable=st.booleans(),
)


@st.composite
def fleets(draw: st.DrawFn, most: int = 24) -> tuple[list[str], World]:
    names = [f"n{number}" for number in range(draw(st.integers(1, most)))]
    scripts = {name: draw(st.sampled_from(_SCRIPTS)) for name in names}
    for name in draw(st.lists(st.sampled_from(names), max_size=2)):
        scripts[name] = draw(st.sampled_from(("plan:unreachable", "wrong-arch")))
    shared = {name: label for name in names if (label := draw(st.sampled_from(("", "", "", "a", "b"))))}
    live = {shared.get(name, name): NEW for name in names if draw(st.integers(0, 9)) == 0}
    return names, World(scripts, live, shared)


def rollout(names: list[str], world: World, policy: Policy, parallel: int, events: Any = ()) -> tuple[Report, Any]:
    hosts = hosts_of(names, world.shared)
    ledger = MemoryLedger(header_of(hosts, policy), events)
    report = Rollout(hosts, SimInstall(), SimTransport(world, parallel), cast(Ledger, ledger)).run()
    return report, ledger.written


@settings(deadline=None)
@given(fleets(60), policies)
def test_waves_hold_every_host_once_and_grow(fleet: tuple[list[str], World], policy: Policy) -> None:
    names, world = fleet
    members = [Member(name, world.shared.get(name, "")) for name in names]
    waves = cut_waves(members, policy)
    seen = [name for wave in waves for name in (*wave.change, *wave.verify)]
    assert sorted(seen) == sorted(names)
    assert [wave.number for wave in waves] == list(range(1, len(waves) + 1))
    assert all(len(wave) >= 1 for wave in waves)
    # The fleet after each wave is as large as was asked for, unless that would leave a wave without a host.
    done = 0
    for wave, share in zip(waves, policy.waves, strict=False):
        done, before = done + len(wave), done
        assert done == min(len(names), max(share.of(len(names), up=True), before + 1))
    # One host changes an opp that is shared, and no host is asked what it sees before that.
    turn = {name: wave.number for wave in waves for name in (*wave.change, *wave.verify)}
    for wave in waves:
        assert len({world.shared.get(name, name) for name in wave.change}) == len(wave.change)
        assert all(turn[leader] <= wave.number for leader in wave.verify.values())


@settings(deadline=None)
@given(policies)
def test_a_policy_is_what_its_texts_say(policy: Policy) -> None:
    assert Policy.from_dict(policy.to_dict()) == policy


@settings(max_examples=150, deadline=None)
@given(fleets(), policies, st.integers(1, 5))
def test_a_rollout_ends_and_keeps_to_its_budget(fleet: tuple[list[str], World], policy: Policy, parallel: int) -> None:
    names, world = fleet
    report, events = rollout(names, world, policy, parallel)
    assert report.result in ("done", "refused", "stopped", "rolled-back")
    assert max(world.runs("install").values(), default=0) <= 1
    assert max(world.runs("rollback").values(), default=0) <= 1
    if report.result == "refused":
        assert not world.ran
    state = fold(policy, [Member(name, world.shared.get(name, "")) for name in names], ())
    over_at = None
    installed = 0
    for event in events:
        state.apply(event)
        if isinstance(event, Ended) and event.kind is Kind.CHANGE:
            installed += 1
            over_at = installed if over_at is None and state.over else over_at
    if over_at is not None:
        # Only those that had begun already come after the failure that was one too many.
        assert installed - over_at <= parallel - 1
        # No wave was begun after it, and the waves before are complete.
        begun = {event.wave for event in events if isinstance(event, Begun) and event.kind is Kind.CHANGE}
        assert max(begun) == state.over_wave
        for wave in state.waves[: state.over_wave - 1]:
            assert all(state.hosts[name].last is not None for name in wave.change)
    else:
        assert state.failed <= policy.max_fail.of(sum(len(wave) for wave in state.waves))


@settings(max_examples=150, deadline=None)
@given(fleets(), policies, st.integers(1, 5))
def test_what_is_rolled_back_is_as_before(fleet: tuple[list[str], World], policy: Policy, parallel: int) -> None:
    names, world = fleet
    before = world.copy()
    report, events = rollout(names, world, policy, parallel)
    if report.result != "rolled-back":
        return
    state = fold(policy, [Member(name, world.shared.get(name, "")) for name in names], events)
    first = state.over_wave if policy.on_fail == "rollback-wave" else 1
    status = {host.name: host.status for host in report.hosts}
    for wave in state.waves:
        for name in wave.change:
            if wave.number >= first and status[name] not in ("unknown", "undo-failed"):
                assert world.has(name) == before.has(name)
            elif wave.number < first:
                assert not world.runs("rollback")[name]


@settings(max_examples=40, deadline=None)
@given(fleets(9), policies)
def test_resumed_anywhere_it_ends_as_if_never_killed(fleet: tuple[list[str], World], policy: Policy) -> None:
    names, world = fleet
    hosts = hosts_of(names, world.shared)
    end = world.copy()
    whole = MemoryLedger(header_of(hosts, policy))
    worlds = [end.copy()], [end.copy()]  # just before, and just after the line of that number was written
    whole.before = lambda event: worlds[0].append(end.copy())
    whole.after = lambda event: worlds[1].append(end.copy())
    report = Rollout(hosts, SimInstall(), SimTransport(end), cast(Ledger, whole)).run()
    for lines in range(len(whole.written) + 1):
        # Killed between two lines: what the next one would have told of has happened already, or has not.
        next_line = min(lines + 1, len(whole.written))
        for then in (worlds[1][lines].copy(), worlds[0][next_line].copy()):
            resumed, events = rollout(names, then, policy, 1, whole.written[:lines])
            assert events[:lines] == whole.written[:lines]
            assert resumed.result == report.result
            assert then.live == end.live
            assert max(then.runs("install").values(), default=0) <= 2
            for one, other in zip(report.hosts, resumed.hosts, strict=True):
                # A second attempt may tell more than one whose time ran out, or as little as a confirmation.
                sure = {"changed": "unknown", "failed": "unknown"}
                assert one.status == other.status or sure.get(other.status) == one.status


@settings(max_examples=60, deadline=None)
@given(fleets(), policies, st.integers(1, 5), st.randoms(use_true_random=False))
def test_killed_again_and_again_no_host_runs_more_than_once_more(
    fleet: tuple[list[str], World], policy: Policy, parallel: int, chance: Any
) -> None:
    names, world = fleet
    hosts = hosts_of(names, world.shared)
    events: list[Any] = []
    for _ in range(6):
        ledger = MemoryLedger(header_of(hosts, policy), events)
        ledger.before = lambda event: _die() if chance.random() < 0.1 else None
        try:
            Rollout(hosts, SimInstall(), SimTransport(world, parallel), cast(Ledger, ledger)).run()
        except Killed:
            pass
        events = ledger.written
    report, _ = rollout(names, world, policy, parallel, events)
    assert report.result in ("done", "refused", "stopped", "rolled-back")
    assert max(world.runs("install").values(), default=0) <= 2
    assert max(world.runs("rollback").values(), default=0) <= 2


@settings(max_examples=100, deadline=None)
@given(fleets(), policies, st.integers(1, 5), st.integers(0, 4), st.randoms(use_true_random=False))
def test_a_host_that_is_out_of_service_is_named(
    fleet: tuple[list[str], World], policy: Policy, parallel: int, batch: int, chance: Any
) -> None:
    names, world = fleet
    for name in names:
        if world.scripts[name] == "ok" and chance.random() < 0.15:
            world.scripts[name] = "sh:hook"
    hosts = hosts_of(names, world.shared)
    hooks = Hooks(remote_before="sh drain", remote_after="sh undrain")
    events: list[Any] = []
    report = None
    for life in range(4):
        ledger = MemoryLedger(header_of(hosts, policy), events)
        ledger.before = lambda event, life=life: _die() if life < 3 and chance.random() < 0.1 else None  # type: ignore[misc]
        transport = SimTransport(world, parallel)
        rollout = Rollout(hosts, SimInstall(), transport, cast(Ledger, ledger), hooks=hooks, batch=batch)
        try:
            report = rollout.run()
        except Killed:
            pass
        events = ledger.written
    assert report is not None
    assert world.drained <= set(report.drained)
    for host in report.hosts:
        if host.drained:
            assert host.status in ("failed", "unknown", "undo-failed") or host.code == "UNDRAIN_FAILED"


class Killed(BaseException):
    """No handler stops it."""


def _die() -> None:
    raise Killed


@settings(max_examples=60, deadline=None)
@given(fleets(12), policies, st.integers(1, 4))
def test_the_state_depends_on_events_alone(fleet: tuple[list[str], World], policy: Policy, parallel: int) -> None:
    names, world = fleet
    members = [Member(name, world.shared.get(name, "")) for name in names]
    _, events = rollout(names, world, policy, parallel)
    told = [event_from_dict(event_to_dict(event)) for event in events]
    assert told == events
    state = fold(policy, members, ())
    for number, event in enumerate(events):
        assert next_step(state) == next_step(fold(policy, members, told[:number]))
        state.apply(event)
