"""Row 4: the power goes at any moment, on real ext4, xfs and btrfs; what exit status 0 said stays done."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from smallq_deploy.base import fsops
from smallq_deploy.base.errors import SmallqError
from smallq_deploy.operate import gc, inuse, mover, preflight
from smallq_deploy.operate.gc import collect
from smallq_deploy.operate.mover import recover_store, restore, rollback, uninstall
from smallq_deploy.operate.repair import repair
from tests.support import packages
from tests.support.faultrows import FULL, FaultRow
from tests.support.mounts import with_own_mounts
from tests.support.opp import FAIL, PASS, World, release
from tests.support.powercut import FILE_SYSTEMS, Disk, before_each_call
from tests.support.world import live_digest, others_digest, world_problems

SEED = 20260804


@dataclass(frozen=True)
class Scenario:
    """What is there and durable, what is done, and how often the power is cut in a full run."""

    prepare: Callable[[World], object]
    act: Callable[[World], object]
    cuts: int
    ends: bool = True  # it ends well
    edited: bool = False  # somebody changed the live tree before


def _nothing(world: World) -> None:
    world.make(found="")


def _found(world: World) -> None:
    world.make()


def _two(world: World) -> None:
    world.make()
    world.install(world.package("1"))
    world.install(world.package("2"))


def _many(world: World) -> None:
    _two(world)
    world.install(world.package("3"))
    world.install(world.package("4"))


def _edited(world: World) -> None:
    _two(world)
    (world.live / "version.info").write_text("edited")


def _nested(world: World) -> None:
    world.make(found="nested")


def _interrupted(world: World) -> None:
    """A process died right after the switch."""
    _two(world)

    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    with mock.patch("smallq_deploy.store.transaction._Transaction._give_up", lambda self, error: None):
        try:
            world.install(world.package("3"), smoke=die)  # type: ignore[arg-type]
        except Died:
            return
    raise AssertionError("it lived")


SCENARIOS = {
    "first install": Scenario(_nothing, lambda world: world.install(world.package("9")), 45),
    "adopting install": Scenario(_found, lambda world: world.install(world.package("9")), 45),
    "upgrade": Scenario(_two, lambda world: world.install(world.package("9")), 60),
    "upgrade by renames": Scenario(_two, lambda world: world.install(world.package("9"), method="renames"), 30),
    "failing smoke": Scenario(_two, lambda world: world.install(world.package("9"), smoke=FAIL), 40, ends=False),
    "rollback": Scenario(_two, lambda world: rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS), 30),
    "uninstall": Scenario(_two, lambda world: uninstall(world.store), 25),
    "gc": Scenario(_many, lambda world: collect(world.store, keep=0, adopted=True), 25),
    "restore": Scenario(
        _edited, lambda world: restore(world.store, operator=packages.OPERATOR, smoke=lambda: PASS), 30, edited=True
    ),
    "repair": Scenario(
        _nested,
        lambda world: repair(world.store, release(), smoke=lambda: PASS, unit=packages.UNIT, arch=packages.ARCH),
        30,
    ),
    "recover": Scenario(_interrupted, lambda world: recover_store(world.store), 15),
}


@pytest.fixture
def memory() -> Iterator[Path]:
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="smallq-power-", dir=place) as directory:
        yield Path(directory)


def cut(kind: str, name: str, place: Path, cuts: int) -> list[str]:
    """Run a scenario once, copy the device at ``cuts`` of its calls and after its end, and judge each copy.

    The last item is not a violation but the number of rounds.
    """
    preflight.processes_using = mover.processes_using = lambda directory: ()
    gc.users_of = lambda store: inuse.Users()
    scenario = SCENARIOS[name]
    disk = Disk(kind, place)
    world = World(disk.at / "world")
    with disk.mounted():
        world.root.mkdir()
        scenario.prepare(world)
        world.package("9")
        if name != "recover":
            old, others = live_digest(world.store), others_digest(world.store)
    base = place / "base"
    disk.snapshot(base)
    if name == "recover":  # what recovery is to come to, and what it leaves alone
        with disk.mounted():
            recover_store(world.store)
            old, others = live_digest(world.store), others_digest(world.store)
        os.replace(base, disk.image)
        disk.snapshot(base)
    calls = 0

    def count(call: str) -> None:
        nonlocal calls
        calls += 1

    with disk.mounted(), before_each_call(count):
        said = _act(scenario, world)
    if (said == "") != scenario.ends:
        return [f"it ended with {said!r}", "0"]
    os.replace(base, disk.image)
    chosen = set(random.Random(SEED).sample(range(1, calls + 1), min(cuts, calls)))
    taken: list[tuple[str, Path]] = []
    number = 0

    def snapshot(call: str) -> None:
        nonlocal number
        number += 1
        if number in chosen:
            taken.append((f"before call {number} of {calls}, {call}", place / f"copy{number}"))
            disk.snapshot(taken[-1][1])

    with disk.mounted():
        with before_each_call(snapshot):
            _act(scenario, world)
        done = place / "done"
        disk.snapshot(done)
        new = live_digest(world.store)
    found = []
    for what, copy, allowed in [
        *((what, copy, (old, new)) for what, copy in taken),
        ("after exit status 0" if scenario.ends else "after the failure", done, (new,)),
    ]:
        with disk.mounted(copy):
            edited = old if scenario.edited else ""
            problems = world_problems(world.store, allowed, others, edited=edited)
        found += [f"{kind}, {name}, {what}: {text}" for text in problems]
        copy.unlink()
    return [*found, str(len(taken) + 1)]


def _act(scenario: Scenario, world: World) -> str:
    try:
        scenario.act(world)
    except SmallqError as error:
        return error.code
    return ""


CASES = [(kind, name) for kind in FILE_SYSTEMS for name in SCENARIOS]
SUBSET = [("ext4", "upgrade"), ("ext4", "rollback")]


@pytest.mark.parametrize(("kind", "name"), CASES if FULL else SUBSET)
def test_power_cuts(kind: str, name: str, memory: Path, fault_row: FaultRow) -> None:
    row = f"4 {kind}"
    fault_row.need(row)
    *bad, rounds = with_own_mounts(lambda: cut(kind, name, memory, SCENARIOS[name].cuts if FULL else 8))
    assert rounds.isdigit(), rounds
    fault_row(row, int(rounds), bad, what=f"{name} on {kind} (seed {SEED})")


def test_a_forgotten_fsync_is_seen(memory: Path, fault_row: FaultRow) -> None:
    """The same rounds with an install that makes nothing durable do end badly."""
    fault_row.need("4 ext4")

    def forgetful() -> list[str]:
        with mock.patch.object(fsops, "fsync_file", lambda path: None), mock.patch.object(os, "fsync", lambda fd: None):
            return cut("ext4", "upgrade", memory, 10)

    *bad, rounds = with_own_mounts(forgetful)
    assert rounds.isdigit(), rounds
    assert any("after exit status 0" in text for text in bad), bad
