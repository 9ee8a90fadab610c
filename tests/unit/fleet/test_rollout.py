"""A rollout's course: waves, budgets, hooks, pause, abort, stop, shared opp; on hosts in memory, with a real ledger."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.base.errors import SmallqError, UsageError
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.rollout.control import request_abort, request_pause, request_resume
from smallq_deploy.fleet.rollout.controller import Rollout
from smallq_deploy.fleet.rollout.hooks import Hooks
from smallq_deploy.fleet.rollout.ledger import Ledger, read_ledger
from smallq_deploy.fleet.rollout.outcome import Report
from smallq_deploy.fleet.rollout.policy import Policy
from smallq_deploy.fleet.rollout.runs import RunInfo
from smallq_deploy.fleet.rollout.waves import Begun, Closed, Ended, Event, Kind, Pause, Run, Soak, Soaked, Step
from smallq_deploy.fleet.transport import Task
from tests.support.fleetsim import NEW, OLD, SimInstall, SimTransport, World, header_of, hosts_of

RUN = "20261201T000000Z-000000"


class Fleet:
    """Hosts n00 ... of a world, and runs over them."""

    def __init__(self, folder: Path, count: int = 10, **scripts: str) -> None:
        self.folder = folder
        self.names = [f"n{number:02d}" for number in range(count)]
        self.world = World(scripts)
        self.stop = threading.Event()
        self.before: Callable[[Task], None] = lambda task: None
        self.watch: Callable[[Event, Any], None] = lambda event, state: None
        self.announced: list[Step] = []
        self.hooks = Hooks()
        self.parallel = 1
        self.batch = 0

    @property
    def path(self) -> Path:
        return self.folder / RUN / "ledger"

    @property
    def info(self) -> RunInfo:
        return RunInfo(self.path, RUN, "install", "test", "", len(self.names), "", True)

    @property
    def hosts(self) -> tuple[Host, ...]:
        return hosts_of(self.names, self.world.shared)

    def run(self, **policy: Any) -> Report:
        if self.path.exists():
            ledger = Ledger.open(self.path)
        else:
            ledger = Ledger.create(self.folder, header_of(self.hosts, Policy.parse(**policy)))
        transport = SimTransport(self.world, self.parallel, lambda task: self.before(task))
        with ledger:
            return Rollout(
                ledger.header.hosts,
                SimInstall(),
                transport,
                ledger,
                hooks=self.hooks,
                batch=self.batch,
                watch=lambda event, state: self.watch(event, state),
                announce=self.announced.append,
                stop=self.stop,
            ).run()

    def events(self) -> tuple[Event, ...]:
        return read_ledger(self.path)[1]

    def waves(self) -> list[tuple[str, ...]]:
        """What was begun, in order."""
        return [event.hosts for event in self.events() if isinstance(event, Begun) and event.kind is Kind.CHANGE]

    def live(self) -> set[str]:
        return {name for name in self.names if self.world.has(name) == NEW}


def test_all_hosts_are_changed_wave_by_wave(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    report = fleet.run(waves="1,30%,100%")
    assert (report.result, int(report.exit_status), report.counts) == ("done", 0, {"changed": 10})
    assert [len(wave) for wave in fleet.waves()] == [1, 2, 7]
    assert [(wave.number, wave.hosts, dict(wave.counts)) for wave in report.waves] == [
        (1, 1, {"changed": 1}),
        (2, 2, {"changed": 2}),
        (3, 7, {"changed": 7}),
    ]
    assert isinstance(fleet.events()[-1], Closed)
    assert not report.how_to_resume


def test_a_canary_that_fails_is_the_only_one_touched(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, n00="smoke")
    report = fleet.run()
    assert (report.result, int(report.exit_status)) == ("rolled-back", 11)
    assert report.counts == {"failed": 1, "not-run": 9}
    assert not fleet.live()
    first = report.failed[0]
    assert (first.name, first.code, first.message, first.hint) == (
        "n00",
        "SMOKE_FAILED",
        "SMOKE_FAILED there",
        "about SMOKE_FAILED",
    )
    assert "1 host failed, --max-fail 0 allows 0" in report.reason


@pytest.mark.parametrize(
    ("on_fail", "result", "live"),
    [
        ("stop", "stopped", {"n00", "n01", "n02", "n03"}),
        ("rollback-wave", "rolled-back", {"n00", "n01", "n02"}),
        ("rollback-all", "rolled-back", set()),
    ],
)
def test_what_happens_after_too_many_failures(tmp_path: Path, on_fail: str, result: str, live: set[str]) -> None:
    fleet = Fleet(tmp_path, n04="fails")
    report = fleet.run(waves="1,3,100%", on_fail=on_fail)
    assert report.result == result
    assert fleet.live() == live
    undone = [host for host, word in fleet.world.ran if word == "rollback"]
    assert undone == {"stop": [], "rollback-wave": ["n03"], "rollback-all": ["n03", "n01", "n02", "n00"]}[on_fail]


def test_a_budget_lets_some_fail(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, n01="fails", n05="install:unreachable", n08="hang")
    report = fleet.run(max_fail="30%")
    assert (report.result, int(report.exit_status)) == ("done", 11)
    assert report.counts == {"failed": 2, "unknown": 1, "changed": 7}
    assert [host.code for host in report.failed] == ["INSTALL_FAILED", "HOST_UNREACHABLE", "HOST_TIMEOUT"]


def test_the_budget_of_a_wave_is_its_own(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, n01="fails", n02="fails", n05="fails", n06="fails", n07="fails")
    report = fleet.run(waves="50%,100%", max_fail="9", max_fail_wave="40%", on_fail="stop")
    assert report.result == "stopped"
    assert "3 hosts of wave 2 failed, --max-fail-wave 40% allows 2" in report.reason
    assert fleet.live() == {"n00", "n03", "n04"}


def test_only_hosts_that_had_begun_come_after_the_last_failure(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 40, **{f"n{number:02d}": "fails" for number in range(5, 40)})
    fleet.parallel = 4
    report = fleet.run(waves="100%", max_fail="2", on_fail="stop")
    assert sum(fleet.world.runs("install").values()) == 5 + 3 + 3
    assert report.counts == {"failed": 6, "not-run": 29, "changed": 5}


def test_one_impossible_plan_changes_nothing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, n07="wrong-arch")
    report = fleet.run()
    assert (report.result, int(report.exit_status)) == ("refused", 11)
    assert report.counts == {"unplannable": 1, "not-run": 9}
    assert not fleet.world.ran
    assert report.failed[0].code == "ARCH_MISMATCH"


def test_impossible_plans_can_be_left_out(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, n00="wrong-arch", n07="plan:unreachable")
    report = fleet.run(skip_unplannable=True)
    assert (report.result, int(report.exit_status)) == ("done", 11)
    assert report.counts == {"unplannable": 2, "changed": 8}
    assert fleet.waves()[0] == ("n01",)


def test_nothing_is_left_when_all_plans_are_impossible(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 2, n00="wrong-arch", n01="wrong-arch")
    assert fleet.run(skip_unplannable=True).result == "refused"


def test_hosts_that_are_as_wanted_are_left_alone(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, n05="fails")
    fleet.world.live = {"n00": NEW, "n04": NEW}
    report = fleet.run(waves="1,100%", on_fail="rollback-all")
    assert fleet.waves()[0] == ("n01",)
    assert fleet.live() == {"n00", "n04"}
    assert report.counts == {"failed": 1, "not-run": 4, "undone": 3, "unchanged": 2}


def test_an_opp_of_several_hosts_is_changed_once_and_seen_by_all(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 6)
    fleet.world.shared = dict.fromkeys(("n01", "n02", "n03"), "nfs")
    report = fleet.run(waves="1,100%")
    assert report.counts == {"changed": 4, "verified": 2}
    assert fleet.world.runs("install") == {"n00": 1, "n01": 1, "n04": 1, "n05": 1}
    assert int(report.exit_status) == 0


def test_followers_of_a_host_that_failed_are_not_asked(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4, n01="fails")
    fleet.world.shared = dict.fromkeys(("n01", "n02", "n03"), "nfs")
    report = fleet.run(waves="1,100%", max_fail="1")
    assert report.counts == {"failed": 1, "not-run": 2, "changed": 1}
    assert "n01, which changes the opp that both use" in report.hosts[2].message


def test_a_follower_that_does_not_see_the_change_counts(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4, n02="facts:unreachable")
    fleet.world.shared = dict.fromkeys(("n01", "n02"), "nfs")
    report = fleet.run(waves="1,100%")
    assert report.result == "rolled-back"
    assert fleet.live() == {"n00"}


def test_a_way_back_that_fails_is_told(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, n03="undo-fails", n04="fails")
    report = fleet.run(waves="1,100%")
    assert report.reason.endswith("1 host could not be taken back")
    assert {host.name: host.status for host in report.failed if host.status != "not-run"} == {
        "n01": "undone",
        "n02": "undone",
        "n03": "undo-failed",
        "n04": "failed",
    }
    assert fleet.live() == {"n00", "n03"}


def test_what_is_not_known_is_not_taken_back(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, n01="hang-done", n02="noise")
    report = fleet.run(waves="100%", max_fail="1")
    assert {host.name: host.status for host in report.hosts[:3]} == {
        "n00": "undone",
        "n01": "unknown",
        "n02": "unknown",
    }
    assert fleet.world.runs("rollback") == {"n00": 1}


def test_ctrl_c_stops_after_the_running_hosts_and_the_next_run_goes_on(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.parallel = 3

    def before(task: Task) -> None:
        if task.host.name == "n04" and task.command == "install":
            fleet.stop.set()
            time.sleep(0.5)

    fleet.before = before
    report = fleet.run(waves="100%")
    assert (report.result, int(report.exit_status)) == ("interrupted", 130)
    assert report.how_to_resume == f"smallq-deploy fleet resume {RUN}"
    assert report.counts == {"not-run": 5, "changed": 5}
    fleet.stop.clear()
    fleet.before = lambda task: None
    report = fleet.run()
    assert (report.result, report.counts) == ("done", {"changed": 10})
    assert max(fleet.world.runs("install").values()) == 1


def test_pause_begins_no_further_host_until_resume(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    paused = threading.Event()

    def before(task: Task) -> None:
        if task.host.name == "n03" and task.command == "install":
            request_pause(fleet.info)
            time.sleep(0.7)

    def watch(event: Event, state: Any) -> None:
        if event.name == "asked":
            paused.set() if state.paused else None

    fleet.before, fleet.watch = before, watch
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.append(fleet.run(waves="100%")))
    thread.start()
    assert paused.wait(30)
    assert sum(fleet.world.runs("install").values()) == 4
    request_resume(fleet.info)
    thread.join(30)
    assert reports[0].counts == {"changed": 10}
    assert fleet.announced.count(Pause()) == 1
    assert [event.what for event in fleet.events() if event.name == "asked"] == ["pause", "resume"]  # type: ignore[union-attr]


def test_a_paused_run_whose_controller_went_is_resumed(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)

    def watch(event: Event, state: Any) -> None:
        if isinstance(event, Ended) and event.kind is Kind.PLAN and event.host == "n09":
            request_pause(fleet.info)
        elif event.name == "asked" and state.paused:
            fleet.stop.set()

    fleet.watch = watch
    assert fleet.run().result == "interrupted"
    assert not fleet.world.ran
    fleet.stop.clear()
    fleet.watch = lambda event, state: None
    assert fleet.run().counts == {"changed": 10}


@pytest.mark.parametrize("on_fail", ["stop", "rollback-all"])
def test_abort_ends_the_run_and_takes_nothing_back(tmp_path: Path, on_fail: str) -> None:
    fleet = Fleet(tmp_path)

    def watch(event: Event, state: Any) -> None:
        if isinstance(event, Ended) and event.kind is Kind.CHANGE and event.host == "n02":
            request_abort(fleet.info)

    fleet.watch = watch
    report = fleet.run(waves="1,3,100%", on_fail=on_fail)
    assert (report.result, int(report.exit_status)) == ("aborted", 11)
    assert fleet.live() == {"n00", "n01", "n02"}
    assert fleet.run().result == "aborted"  # and does not go on


def test_requests_to_a_run_that_is_over_or_dead_are_answered(tmp_path: Path) -> None:
    over = RunInfo(tmp_path / "ledger", RUN, "install", "test", "", 1, "done", False)
    dead = RunInfo(tmp_path / "ledger", RUN, "install", "test", "", 1, "", False)
    with pytest.raises(UsageError, match="is over: done") as caught:
        request_pause(over)
    assert caught.value.code == "RUN_OVER"
    with pytest.raises(UsageError, match="no controller") as caught:
        request_pause(dead)
    assert f"fleet resume {RUN}" in caught.value.hint
    request_abort(dead)
    assert (tmp_path / "control").read_text() == "abort\n"


def test_soak_waits_between_waves_and_abort_ends_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 3)
    fleet.watch = lambda event, state: (
        request_abort(fleet.info) if isinstance(event, Soaked) and event.wave == 2 else None
    )
    report = fleet.run(waves="1,2,100%", soak="0.05s")
    assert [event.wave for event in fleet.events() if isinstance(event, Soaked)] == [1, 2]
    assert (report.result, report.counts) == ("aborted", {"not-run": 1, "changed": 2})
    assert [step.kind.value if isinstance(step, Run) else step for step in fleet.announced] == [
        *("plan", "change", Soak(1, 0.05), "change", Soak(2, 0.05))
    ]


def test_hosts_with_a_lost_outcome_run_once_more_then_are_only_asked(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4)
    with Ledger.create(tmp_path, header_of(fleet.hosts, Policy.parse(waves="100%", max_fail="9"))) as ledger:
        for name in fleet.names:
            ledger.append(Ended(Kind.PLAN, name, True, True))
        ledger.append(Begun(Kind.CHANGE, tuple(fleet.names), 1))
        ledger.append(Begun(Kind.CHANGE, ("n02", "n03"), 1))
    fleet.world.live = {"n01": NEW, "n02": NEW}  # what the dead controllers' attempts did
    report = fleet.run()
    assert fleet.world.runs("install") == {"n00": 1, "n01": 1}
    assert [host.status for host in report.hosts] == ["changed", "changed", "changed", "failed"]
    assert report.hosts[3].code == "NOT_CONFIRMED"


def test_an_undo_with_a_lost_outcome_is_looked_at_first(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 3, n02="fails")
    with Ledger.create(tmp_path, header_of(fleet.hosts, Policy.parse(waves="100%"))) as ledger:
        for name in fleet.names:
            ledger.append(Ended(Kind.PLAN, name, True, True))
        ledger.append(Begun(Kind.CHANGE, tuple(fleet.names), 1))
        for name in fleet.names:
            ledger.append(Ended(Kind.CHANGE, name, name != "n02", name != "n02"))
        ledger.append(Begun(Kind.UNDO, ("n00", "n01"), 1))
    fleet.world.live = {"n00": OLD, "n01": NEW}
    report = fleet.run()
    assert fleet.world.runs("rollback") == {"n01": 1}  # a second one would make the change live again on n00
    assert [host.status for host in report.hosts] == ["undone", "undone", "failed"]


def test_a_ledger_that_cannot_be_written_ends_the_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(tmp_path)
    append = Ledger.append

    def full(ledger: Ledger, event: Event) -> None:
        if isinstance(event, Ended) and event.kind is Kind.CHANGE and event.host == "n04":
            raise SmallqError("NO_SPACE", "cannot write the ledger")
        append(ledger, event)

    monkeypatch.setattr(Ledger, "append", full)
    with pytest.raises(SmallqError, match="cannot write the ledger"):
        fleet.run(waves="100%")
    assert fleet.live() == {"n00", "n01", "n02", "n03", "n04"}  # none was begun after it
    monkeypatch.undo()
    assert fleet.run().counts == {"changed": 10}
