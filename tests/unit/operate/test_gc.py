"""``gc`` deletes what nobody needs and nothing else; pins, mapped files and the way back are safe from it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from smallq_deploy import __version__
from smallq_deploy.base.errors import ConflictError, SmallqError, UsageError
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.operate.gc import choose, collect, pin
from smallq_deploy.operate.inuse import processes_using, users_of
from smallq_deploy.operate.mover import recover_store, rollback, uninstall
from smallq_deploy.operate.status import status
from smallq_deploy.store.generations import Generation, generation_numbers, list_generations
from smallq_deploy.store.history import read_history
from smallq_deploy.store.pins import read_pins
from tests.support import packages
from tests.support.opp import FAIL, PASS, World
from tests.support.world import live_digest, others_digest, settled_problems


def generation(number: int, *, failed: str = "", proven: bool = True, origin: str = "installed") -> Generation:
    smoke = {"verdict": "pass"} if proven else None
    return Generation(number, "customize", "2026-01-01T00:00:00Z", origin, smoke=smoke, failed=failed)


def gone(*arguments: object, **options: object) -> list[int]:
    return [item.number for item in choose(*arguments, **options) if item.deleted]  # type: ignore[arg-type]


class TestChoice:
    FIVE = tuple(generation(number) for number in (1, 2, 3, 4, 5))
    SIZES = dict.fromkeys(range(1, 9), 100)

    def test_the_newest_stay(self) -> None:
        assert gone(self.FIVE, self.SIZES, {}, keep=3) == [1, 2]
        assert gone(self.FIVE, self.SIZES, {}, keep=0) == [1, 2, 3, 4, 5]
        assert gone(self.FIVE, self.SIZES, {}, keep=9) == []

    def test_a_protected_one_stays_whatever_is_asked(self) -> None:
        items = choose(self.FIVE, self.SIZES, {1: "pinned: x", 5: "live"}, keep=0, max_size=0)
        assert [item.number for item in items if not item.deleted] == [1, 5]
        assert items[0].reason == "pinned: x"

    def test_failed_ones_go_and_do_not_count_among_the_newest(self) -> None:
        mixed = (*self.FIVE[:3], generation(4, failed="SMOKE_WRONG_NUMBERS"), generation(5, failed="x"))
        items = choose(mixed, self.SIZES, {}, keep=3)
        assert [item.number for item in items if item.deleted] == [4, 5]
        assert "SMOKE_WRONG_NUMBERS" in items[3].reason

    def test_a_size_takes_the_oldest_until_it_is_reached_and_no_more(self) -> None:
        assert gone(self.FIVE, self.SIZES, {}, keep=5, max_size=250) == [1, 2, 3]
        assert gone(self.FIVE, self.SIZES, {}, keep=5, max_size=300) == [1, 2]
        assert gone(self.FIVE, self.SIZES, {1: "live"}, keep=5, max_size=250) == [2, 3, 4]
        assert gone(self.FIVE, self.SIZES, {}, keep=5, max_size=500) == []


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Generation 1 is what was found, 2 to 5 were installed, 5 is live."""
    world = World(tmp_path).make()
    for content in "1234":
        world.install(world.package(content))
    return world


def test_what_stays_is_complete_and_the_history_says_what_went(world: World) -> None:
    before, others = live_digest(world.store), others_digest(world.store)
    report = collect(world.store, keep=1)
    assert [item.number for item in report.items if item.deleted] == [2, 3]
    assert {item.number: item.reason for item in report.items if not item.deleted} == {
        1: "found here, nothing could bring it back",
        4: "`rollback` goes there",
        5: "live",
    }
    assert generation_numbers(world.store) == (1, 4, 5)
    assert report.freed > 0
    assert live_digest(world.store) == before
    assert list(settled_problems(world.store, (before,), others)) == []
    line = read_history(world.store)[-1]
    assert (line["action"], line["deleted"], line["live"]) == ("gc", [2, 3], 5)
    assert line["version"] == __version__
    assert collect(world.store, keep=1).decision == "nothing"
    assert len([line for line in read_history(world.store) if line["action"] == "gc"]) == 1


def test_a_dry_run_says_the_same_and_changes_nothing(world: World) -> None:
    before = tree_digest(world.store.vendors)
    planned = collect(world.store, keep=0, dry_run=True)
    assert planned.decision == "planned"
    assert tree_digest(world.store.vendors) == before
    assert collect(world.store, keep=0).items == planned.items


def test_rollback_and_uninstall_go_on_as_before(world: World) -> None:
    collect(world.store, keep=0)
    rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)
    rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)
    with pytest.raises(UsageError) as caught:
        rollback(world.store, operator=packages.OPERATOR, to=2)
    assert caught.value.code == "NO_SUCH_GENERATION"
    assert "was deleted" in caught.value.message
    with pytest.raises(UsageError, match="there is no generation 99"):
        rollback(world.store, operator=packages.OPERATOR, to=99)
    uninstall(world.store, restore_adopted=True)


def test_the_adopted_state_goes_only_when_asked_and_never_while_it_is_needed(world: World) -> None:
    assert 1 in [item.number for item in collect(world.store, keep=0).items if not item.deleted]
    assert 1 in [item.number for item in collect(world.store, keep=0, adopted=True).items if item.deleted]
    first = World(world.root / "second").make()
    first.install(first.package("1"))
    assert 1 not in [item.number for item in collect(first.store, keep=0, adopted=True).items if item.deleted]


def test_the_last_proven_one_stays_when_an_unproven_one_is_live(tmp_path: Path) -> None:
    world = World(tmp_path).make(found="")
    world.install(world.package("1"))
    for content in "23":
        world.install(world.package(content), no_smoke=True)
    kept = [item.number for item in collect(world.store, keep=0).items if not item.deleted]
    assert kept == [1, 2, 3]
    world.install(world.package("4"), no_smoke=True)
    items = {item.number: item for item in collect(world.store, keep=0).items}
    assert items[1].reason == "the last that a smoke test proved"
    assert items[2].deleted


def test_failed_generations_go(world: World) -> None:
    with pytest.raises(SmallqError):
        world.install(world.package("5"), smoke=FAIL)
    assert list_generations(world.store)[-1].failed
    assert 6 in [item.number for item in collect(world.store, keep=9).items if item.deleted]
    assert generation_numbers(world.store) == (1, 2, 3, 4, 5)


class TestPins:
    def test_a_pinned_one_stays_until_it_is_unpinned(self, world: World) -> None:
        assert pin(world.store, 2, reason="benchmark of May").changed
        assert not pin(world.store, 2, reason="benchmark of May").changed
        assert status(world.store).to_dict()["pins"][0]["reason"] == "benchmark of May"
        items = {item.number: item for item in collect(world.store, keep=0).items}
        assert items[2].reason == "pinned: benchmark of May"
        assert items[3].deleted
        assert pin(world.store, 2, remove=True).changed
        assert not pin(world.store, 2, remove=True).changed
        assert read_pins(world.store) == {}
        assert 2 in [item.number for item in collect(world.store, keep=0).items if item.deleted]

    def test_what_cannot_be_pinned(self, world: World) -> None:
        with pytest.raises(SmallqError):
            world.install(world.package("5"), smoke=FAIL)
        before = tree_digest(world.store.vendors)
        for number, code in ((99, "NO_SUCH_GENERATION"), (6, "FAILED_GENERATION")):
            with pytest.raises(UsageError) as caught:
                pin(world.store, number)
            assert caught.value.code == code
        pin(world.store, 2, dry_run=True)
        assert tree_digest(world.store.vendors) == before

    def test_a_damaged_list_of_pins_stops_gc(self, world: World) -> None:
        pin(world.store, 2)
        world.store.pins.write_text('{"schema": 1, "pins": 7}\n')
        with pytest.raises(SmallqError) as caught:
            collect(world.store, keep=0)
        assert caught.value.code == "STORE_DAMAGED"
        assert generation_numbers(world.store) == (1, 2, 3, 4, 5)

    def test_purge_takes_the_pins_with_it(self, world: World) -> None:
        pin(world.store, 2)
        uninstall(world.store, purge=True)
        assert not world.store.root.exists()


LOADER = """
import mmap, os, sys
stream = open(sys.argv[1], "rb")
view = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
before = view[:]
print("loaded", flush=True)
sys.stdin.readline()
print("same" if view[:] == before else "CHANGED", flush=True)
"""


@contextmanager
def loaded(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A real process that has a file mapped; it ends when its stdin does."""
    child = subprocess.Popen(
        [sys.executable, "-c", LOADER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        assert child.stdout.readline() == "loaded\n"
        yield child
    finally:
        child.stdin.close()
        child.wait(20)
        child.stdout.close()


class TestInUse:
    LIBRARY = "op_api/lib/libcust_opapi.so"

    def test_who_runs_which_generation(self, world: World) -> None:
        with loaded(world.live / self.LIBRARY) as old:
            assert [item.generation for item in users_of(world.store).processes if item.pid == old.pid] == [5]
            world.install(world.package("5"))
            with loaded(world.live / self.LIBRARY) as new:
                found = {item.pid: item for item in status(world.store).users.processes}
                assert (found[old.pid].generation, found[new.pid].generation) == (5, 6)
                assert found[old.pid].user
                assert "-c" in found[old.pid].command
                assert [item.pid for item in processes_using(world.live)] == [new.pid]
                assert any(f"pid {new.pid}" in text for text in world.plan(world.package("6")).warnings)
        assert users_of(world.store).processes == ()

    def test_a_loaded_generation_is_not_deleted_and_its_process_goes_on(self, world: World) -> None:
        with loaded(world.live / self.LIBRARY) as child:
            for content in "567":
                world.install(world.package(content))
            items = {item.number: item for item in collect(world.store, keep=0).items}
            assert not items[5].deleted
            assert items[5].reason.startswith("in use by")
            assert f"pid {child.pid}" in items[5].reason
            assert items[6].deleted or items[6].reason != items[5].reason
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "same\n"
        assert 5 in [item.number for item in collect(world.store, keep=0).items if item.deleted]

    def test_two_generations_in_one_process(self, world: World) -> None:
        with open(world.live / self.LIBRARY, "rb") as first:
            with mmap.mmap(first.fileno(), 0, access=mmap.ACCESS_READ):
                world.install(world.package("5"))
                with open(world.live / self.LIBRARY, "rb") as second:
                    with mmap.mmap(second.fileno(), 0, access=mmap.ACCESS_READ):
                        mine = [item for item in users_of(world.store).processes if item.pid == os.getpid()]
                        assert [item.generation for item in mine] == [5, 6]


def test_a_kill_between_rename_and_removal_is_cleaned_up_by_the_next_command(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from smallq_deploy.operate import gc

    before, others = live_digest(world.store), others_digest(world.store)

    def die(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gc, "remove_tree", die)
    with pytest.raises(KeyboardInterrupt):
        collect(world.store, keep=0)
    monkeypatch.undo()
    assert os.listdir(world.store.root / "staging") == ["deleted-2"]
    assert status(world.store).live is not None
    recover_store(world.store)
    assert list(settled_problems(world.store, (before,), others)) == []


def test_nothing_installed_is_nothing_to_delete(tmp_path: Path) -> None:
    world = World(tmp_path).make()
    before = tree_digest(world.store.vendors)
    assert collect(world.store).decision == "nothing"
    with pytest.raises(UsageError, match="nothing was ever installed"):
        pin(world.store, 1)
    assert tree_digest(world.store.vendors) == before


def test_on_a_shared_file_system_other_hosts_come_first(tmp_path: Path) -> None:
    world = World(tmp_path / "root")
    world.root.mkdir()
    world.make()
    for content in ("1", "2", "3", "4", "5"):
        world.install(world.package(content))
    with mock.patch("smallq_deploy.operate.gc.shared_kind", lambda path: "NFS"):
        before = [item.number for item in list_generations(world.store)]
        with pytest.raises(ConflictError) as caught:
            collect(world.store, keep=1)
        assert caught.value.code == "OTHER_HOSTS" and "--other-hosts" in caught.value.hint
        assert [item.number for item in list_generations(world.store)] == before
        assert collect(world.store, keep=1, other_hosts=True).freed > 0
        assert collect(world.store, keep=1).decision == "nothing"
