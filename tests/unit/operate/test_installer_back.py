"""Rollback, uninstall, recover, status and history as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smallq_deploy.base.errors import ConflictError, InstallError, SmokeError, UsageError
from smallq_deploy.base.events import Events
from smallq_deploy.base.fsops import remove_tree, tree_digest
from smallq_deploy.operate.installer import history, recover_store, rollback, status, uninstall
from smallq_deploy.operate.mover import MoveReport
from smallq_deploy.store.generations import list_generations
from smallq_deploy.store.journal import SWITCHED, Journal
from smallq_deploy.store.paths import ABSENT
from tests.support import packages
from tests.support.opp import FAIL, PASS, FakeSmoke, World
from tests.support.world import live_digest, others_digest, settled_problems


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Generation 1 adopted, 2 and 3 installed, 3 live."""
    world = World(tmp_path / "w").make()
    world.install(world.package("1"))
    world.install(world.package("2"))
    return world


def back(world: World, to: int | None = None, smoke: FakeSmoke | None = PASS, **options: object) -> MoveReport:
    test = None if smoke is None else (lambda: smoke)
    return rollback(world.store, operator=packages.OPERATOR, to=to, smoke=test, **options)  # type: ignore[arg-type]


def test_rolling_back_twice_returns(world: World) -> None:
    three = live_digest(world.store)
    assert (back(world).target, live_digest(world.store) == three) == (2, False)
    assert (back(world).target, live_digest(world.store) == three) == (3, True)
    others = others_digest(world.store)
    assert list(settled_problems(world.store, (three,), others)) == []


def test_back_to_a_chosen_generation_makes_no_number(world: World) -> None:
    report = back(world, 1)
    assert (report.source, report.target, report.decision) == (3, 1, "done")
    assert [item.number for item in list_generations(world.store)] == [1, 2, 3]
    assert history(world.store)[-1]["action"] == "rollback"
    assert json.dumps(report.to_dict())


def test_a_generation_without_the_operator_is_not_tested(tmp_path: Path) -> None:
    world = World(tmp_path / "w").make(found="empty")
    world.install(world.package("1"))

    def never() -> FakeSmoke:
        raise AssertionError("called")

    report = rollback(world.store, operator=packages.OPERATOR, smoke=never)
    assert report.target == 1
    assert report.notes == (
        f"{packages.OPERATOR}: no vendor and no part of CANN has it after this",
        f"generation 1 has no {packages.OPERATOR}: it is unproven and was not tested",
    )
    assert "customize" not in world.store.config_ini.read_text(), "as it was found"


def test_a_failing_smoke_test_leaves_the_rolled_back_tree(world: World) -> None:
    report = back(world, smoke=FAIL)
    assert isinstance(report.failure, SmokeError)
    assert "generation 2 is live" in report.failure.message
    assert status(world.store).current is not None
    assert status(world.store).current.number == 2  # type: ignore[union-attr]
    last = history(world.store)[-1]
    assert (last["result"], last["smoke"]["verdict"]) == ("ok", "fail")


def test_to_where_one_is(world: World) -> None:
    before = tree_digest(world.opp)
    assert back(world, 3).decision == "nothing"
    assert tree_digest(world.opp) == before


def test_to_a_failed_generation(world: World) -> None:
    with pytest.raises(SmokeError):
        world.install(world.package("bad"), smoke=FAIL)
    with pytest.raises(UsageError) as caught:
        back(world, 4)
    assert caught.value.code == "FAILED_GENERATION"
    assert back(world).target == 2, "never offered"


def test_nothing_to_roll_back(tmp_path: Path) -> None:
    world = World(tmp_path / "w").make()
    with pytest.raises(UsageError) as caught:
        back(world)
    assert caught.value.code == "NOTHING_TO_ROLL_BACK"
    assert not world.store.exists


def test_a_hand_edited_live_tree_is_kept_by_a_rollback(world: World) -> None:
    (world.live / "version.info").write_text("edited")
    report = back(world)
    assert report.change is not None
    assert report.change.adopted == 4
    back(world, 4)
    assert (world.live / "version.info").read_text() == "edited"


def test_back_to_the_current_generation_repairs_a_changed_tree(world: World) -> None:
    good = live_digest(world.store)
    (world.live / "version.info").write_text("edited")
    assert back(world, 3).decision == "done"
    assert live_digest(world.store) == good


def test_a_lost_tree_comes_back_from_its_package(world: World) -> None:
    back(world, 2)
    two = live_digest(world.store)
    back(world, 3)
    remove_tree(world.store.tree_dir(2))
    assert back(world, 2).decision == "done"
    assert live_digest(world.store) == two


def test_an_adopted_tree_that_is_lost_is_lost(world: World) -> None:
    remove_tree(world.store.tree_dir(1))
    with pytest.raises(InstallError) as caught:
        back(world, 1)
    assert caught.value.code == "GENERATION_DAMAGED"


def test_a_dry_run_of_a_rollback(world: World) -> None:
    before = tree_digest(world.opp)
    report = back(world, dry_run=True)
    assert (report.decision, report.source, report.target) == ("planned", 3, 2)
    assert tree_digest(world.opp) == before


# --- uninstall ---


def test_uninstall_and_back(world: World) -> None:
    three, others = live_digest(world.store), others_digest(world.store)
    report = uninstall(world.store)
    assert (report.decision, report.source, report.target) == ("done", 3, ABSENT)
    assert not world.live.exists()
    assert world.store.config_ini.read_text() == "load_priority=other\n"
    assert uninstall(world.store).decision == "nothing"
    assert status(world.store).to_dict()["live"]["state"] == "absent"
    back(world)
    assert live_digest(world.store) == three
    assert others_digest(world.store) == others


def test_uninstall_restores_what_was_found(world: World, tmp_path: Path) -> None:
    untouched = World(tmp_path / "v").make()
    report = uninstall(world.store, restore_adopted=True)
    assert report.target == 1
    (world.live / "bin" / "set_env.bash").unlink()  # names the place
    (untouched.live / "bin" / "set_env.bash").unlink()
    assert live_digest(world.store) == live_digest(untouched.store)
    assert world.store.config_ini.read_text() == untouched.store.config_ini.read_text()


def test_purge_leaves_nothing(world: World) -> None:
    uninstall(world.store, purge=True)
    assert sorted(path.name for path in world.store.vendors.iterdir()) == ["config.ini", "other"]
    assert status(world.store).current is None


def test_purge_after_restoring_keeps_what_is_live(world: World) -> None:
    uninstall(world.store, restore_adopted=True, purge=True)
    assert [item.number for item in list_generations(world.store)] == [1]
    assert list(settled_problems(world.store, (live_digest(world.store),), others_digest(world.store))) == []


def test_a_directory_that_is_not_ours_is_not_removed(tmp_path: Path) -> None:
    world = World(tmp_path / "w").make()
    with pytest.raises(ConflictError) as caught:
        uninstall(world.store)
    assert caught.value.code == "NOT_OURS"
    assert world.live.is_dir()
    world.install(world.package("1"))
    uninstall(world.store)
    packages.make_vendor_tree(world.live, content="by hand")
    with pytest.raises(ConflictError):
        uninstall(world.store)
    assert world.live.is_dir()


def test_nothing_was_adopted(tmp_path: Path) -> None:
    world = World(tmp_path / "w").make(found="")
    world.install(world.package("1"))
    with pytest.raises(UsageError) as caught:
        uninstall(world.store, restore_adopted=True)
    assert caught.value.code == "NOTHING_ADOPTED"


# --- recover, status, history ---


def died(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An install whose process died right after the switch."""

    class Died(BaseException):
        pass

    def smoke() -> FakeSmoke:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr("smallq_deploy.store.transaction._Transaction._give_up", lambda self, error: None)
        with pytest.raises(Died):
            world.install(world.package("9"), smoke=smoke)


def test_an_interrupted_install_is_shown_and_recovered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    three = live_digest(world.store)
    died(world, monkeypatch)
    seen = status(world.store)
    assert seen.transaction is not None
    assert seen.transaction["phase"] == SWITCHED
    assert any("smallq-deploy recover" in text for text in seen.warnings)
    plan = world.plan(world.package("9"))
    assert [problem.code for problem in plan.problems] == ["OPEN_TRANSACTION"]
    assert plan.only_needs_recovery
    report = recover_store(world.store)
    assert report is not None
    assert (report.outcome, report.live) == ("undone", 3)
    assert live_digest(world.store) == three
    assert recover_store(world.store) is None


def test_the_next_install_recovers_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    died(world, monkeypatch)
    events = Events()
    report = world.install(world.package("9"), events=events)
    assert report.recovered is not None
    assert any("interrupted install" in text for text in events.warnings)
    assert report.change is not None
    assert list(settled_problems(world.store, (live_digest(world.store),), others_digest(world.store))) == []


def test_recover_where_nothing_was_installed(tmp_path: Path) -> None:
    world = World(tmp_path / "w").make()
    assert recover_store(world.store) is None
    assert not world.store.exists


def test_status_tells_everything(world: World) -> None:
    seen = status(world.store)
    assert seen.current is not None
    assert (seen.current.number, seen.previous, seen.listed, seen.warnings) == (3, 2, True, ())
    assert [item.origin for item in seen.generations] == ["adopted", "installed", "installed"]
    json.dumps(seen.to_dict())
    (world.live / "version.info").write_text("edited")
    assert any("verify" in text for text in status(world.store).warnings)
    world.store.config_ini.unlink()
    assert any("config.ini" in text for text in status(world.store).warnings)
    remove_tree(world.live)
    assert any("gone" in text for text in status(world.store).warnings)


def test_status_where_nothing_was_installed(tmp_path: Path) -> None:
    world = World(tmp_path / "w").make()
    seen = status(world.store)
    assert seen.live is not None
    assert (seen.current, seen.live.kind, seen.generations) == (None, "unknown", ())


def test_a_torn_history_line_costs_one_line(world: World) -> None:
    with open(world.store.history, "a") as stream:
        stream.write('{"torn": ')
    back(world)
    assert [line["action"] for line in history(world.store)] == ["install", "install", "rollback"]


def test_journal_round_trip(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    died(world, monkeypatch)
    record = json.loads(world.store.journal.read_text())
    again = Journal.from_dict(record)
    assert again.to_dict() == record
    assert (again.old, again.new, again.method) == (3, 4, "exchange")
    assert again.config is not None
