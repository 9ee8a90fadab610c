"""Row 4: the power goes at any moment, on real ext4, xfs and btrfs; what exit status 0 said stays done."""

from __future__ import annotations

import os
import random
from pathlib import Path
from unittest import mock

import pytest

from smallq_deploy.base import fsops
from smallq_deploy.operate.mover import recover_store
from tests.support.cutscenarios import CUTS, SEED, attempt
from tests.support.faultrows import FULL, FaultRow
from tests.support.mounts import with_own_mounts
from tests.support.opp import World, nobody_else
from tests.support.powercut import FILE_SYSTEMS, Disk, around_each_call
from tests.support.world import live_digest, others_digest, world_problems


@nobody_else()
def cut(kind: str, name: str, place: Path, cuts: int) -> list[str]:
    """Run a scenario once, copy the device at ``cuts`` of its calls and after its end, and judge each copy.

    The last item is not a violation but the number of rounds.
    """
    scenario = CUTS[name]
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

    with disk.mounted(), around_each_call(count):
        said = attempt(world, scenario.act)
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
        with around_each_call(snapshot):
            attempt(world, scenario.act)
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


CASES = [(kind, name) for kind in FILE_SYSTEMS for name, scenario in CUTS.items() if scenario.cuts]
SUBSET = [("ext4", "upgrade"), ("ext4", "rollback")]


@pytest.mark.parametrize(("kind", "name"), CASES if FULL else SUBSET)
def test_power_cuts(kind: str, name: str, memory: Path, fault_row: FaultRow) -> None:
    row = f"4 {kind}"
    fault_row.need(row)
    *bad, rounds = with_own_mounts(lambda: cut(kind, name, memory, CUTS[name].cuts if FULL else 8))
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
