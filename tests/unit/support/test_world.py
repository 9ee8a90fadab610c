"""Each invariant of the reliability promises: a world that breaks it, and the checker names it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.operate.mover import rollback
from smallq_deploy.store.journal import write_journal
from tests.support import packages
from tests.support.opp import FAIL, PASS, World
from tests.support.world import NOTHING, assert_world_ok, live_digest, others_digest


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path).make()
    for content in "12":
        world.install(world.package(content))
    return world


def edit_state(world: World, **changes: object) -> None:
    record = json.loads(world.store.state.read_text())
    record["vendors"][world.store.vendor].update(changes)
    world.store.state.write_text(json.dumps(record))


def edit_history(world: World, change: Callable[[list[dict[str, object]]], object]) -> None:
    lines = [json.loads(line) for line in world.store.history.read_text().splitlines()]
    change(lines)
    world.store.history.write_text("".join(json.dumps(line) + "\n" for line in lines))


def unlist(world: World) -> None:
    world.store.config_ini.write_text("load_priority=other\n")


def forget_failure(world: World) -> None:
    with contextlib.suppress(SmallqError):
        world.install(world.package("3"), smoke=FAIL)
    edit_history(world, lambda lines: lines.pop())


def forget_number(world: World) -> None:
    record = json.loads(world.store.state.read_text())
    record["last_number"] -= 1
    world.store.state.write_text(json.dumps(record))


BROKEN: dict[str, tuple[str, Callable[[World], object]]] = {
    "the live tree is edited": ("I1", lambda world: (world.live / "version.info").write_text("x")),
    "the live tree is gone": ("I1", lambda world: shutil.rmtree(world.live)),
    "a live file is gone": ("I1", lambda world: (world.live / "version.info").unlink()),
    "the state names another": ("I1", lambda world: edit_state(world, current=2, previous=3)),
    "a kept tree is gone": ("I1", lambda world: shutil.rmtree(world.store.tree_dir(1))),
    "a kept tree is damaged": ("I1", lambda world: (world.store.tree_dir(2) / "version.info").write_text("x")),
    "a package is gone": ("I1", lambda world: world.store.package_file(2).unlink()),
    "a package is damaged": ("I1", lambda world: world.store.package_file(2).write_bytes(b"x")),
    "a failure that nobody told of": ("I7", forget_failure),
    "a number is given again": ("I7", forget_number),
    "the live tree is kept twice": ("I1", lambda world: shutil.copytree(world.live, world.store.tree_dir(3))),
    "config.ini does not name us": ("I1", unlist),
    "another vendor's file": ("I2", lambda world: (world.store.vendors / "other" / "new").write_text("x")),
    "another vendor is gone": ("I2", lambda world: shutil.rmtree(world.store.vendors / "other")),
    "config.ini lost the other": ("I2", lambda world: world.store.config_ini.write_text("load_priority=customize\n")),
    "the journal is garbage": ("I3", lambda world: world.store.journal.write_text("{")),
    "the state is garbage": ("I1", lambda world: world.store.state.write_text("{")),
    "a transaction twice": ("I7", lambda world: edit_history(world, lambda lines: lines.append(lines[-1]))),
    "an untested install is called ok": (
        "I7",
        lambda world: edit_history(world, lambda lines: lines[-1].update(smoke={"verdict": "fail"})),
    ),
    "the history names another generation": (
        "I7",
        lambda world: edit_history(world, lambda lines: lines[-1].update(to=2)),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_world_is_named(world: World, name: str) -> None:
    invariant, damage = BROKEN[name]
    digest, others = live_digest(world.store), others_digest(world.store)
    assert_world_ok(world.store, allowed=(digest,), others=others)
    damage(world)
    with pytest.raises(AssertionError, match=f"here: {invariant}: "):
        assert_world_ok(world.opp, allowed=(digest,), others=others, where="here")


def test_leftovers_that_the_next_command_did_not_remove(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from smallq_deploy.store import settle

    digest, others = live_digest(world.store), others_digest(world.store)
    (world.store.root / "staging" / "left").mkdir()
    monkeypatch.setattr(settle, "sweep", lambda store: None)
    with pytest.raises(AssertionError, match="I6: left behind: left"):
        assert_world_ok(world.store, allowed=(digest,), others=others)


def test_a_recovery_that_is_never_done_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from smallq_deploy.store import settle
    from smallq_deploy.store.journal import Journal

    digest, others = live_digest(world.store), others_digest(world.store)
    write_journal(world.store, Journal("abc", "install", "customize", "staging", "2026-01-01T00:00:00Z", {}, old=3))
    monkeypatch.setattr(settle, "drop_journal", lambda store: None)
    with pytest.raises(AssertionError, match="I3: a second recovery found something to do"):
        assert_world_ok(world.store, allowed=(digest,), others=others)


def test_a_lock_that_somebody_still_holds(world: World) -> None:
    digest, others = live_digest(world.store), others_digest(world.store)
    with open(world.store.root / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AssertionError, match=r"I3: recovery failed.*LOCK_BUSY|another smallq-deploy"):
            assert_world_ok(world.store, allowed=(digest,), others=others)


def test_exit_statuses_must_tell_the_truth(world: World) -> None:
    new, others = live_digest(world.store), others_digest(world.store)
    rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)
    old = live_digest(world.store)
    both = {"allowed": (old, new), "others": others, "old": old, "new": new}
    assert_world_ok(world.store, exit_status=8, **both)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="I4"):
        assert_world_ok(world.store, exit_status=0, **both)  # type: ignore[arg-type]
    rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)
    assert_world_ok(world.store, exit_status=0, **both)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="I5: exit status 9"):
        assert_world_ok(world.store, exit_status=9, said="it failed", **both)  # type: ignore[arg-type]
    assert_world_ok(world.store, exit_status=9, said="generation 3 is live and was left in place", **both)  # type: ignore[arg-type]


def test_an_empty_place_may_be_what_was_there(tmp_path: Path) -> None:
    world = World(tmp_path).make(found="", other=False)
    assert_world_ok(world.store, allowed=(NOTHING,), others={})
    os.mkdir(world.live)
    with pytest.raises(AssertionError, match="I1"):
        assert_world_ok(world.store, allowed=(NOTHING,), others={})
