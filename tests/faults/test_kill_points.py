"""SIGKILL at every mutating system call: the live tree is the old or the new one, and the next command recovers.

Each scenario is first run undisturbed under strace to list its calls, then once for each call with a kill there.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from smallq_deploy.operate.mover import rollback, uninstall
from smallq_deploy.operate.status import status
from smallq_deploy.store.generations import list_generations
from smallq_deploy.store.live import observe_live
from tests.support import packages
from tests.support.faultrows import FULL, FaultRow
from tests.support.killer import Point, Victim
from tests.support.opp import FAIL, World
from tests.support.world import NOTHING, live_digest, others_digest, settled_problems, world_problems

SEED = 20260801
SAMPLE = 12  # kill points of each scenario in a subset


@dataclass(frozen=True)
class Scenario:
    """``prepare`` makes the world; ``command`` is what is killed; ``ends`` the undisturbed exit status."""

    prepare: Callable[[World], None]
    action: str
    package: str = ""
    method: str = ""
    smoke: str = "pass"
    ends: int = 0
    from_switch: bool = False  # the part before is the same as in another scenario
    every: int = 1  # only each n-th call, where a scenario differs from another in little but its many files


def found_something(world: World) -> None:
    world.make()


def nothing_there(world: World) -> None:
    world.make(found="", other=False)


def installed(world: World) -> None:
    world.make()
    world.install(world.package("1"))


def installed_and_failed(world: World) -> None:
    installed(world)
    with contextlib.suppress(Exception):
        world.install(world.package("3"), smoke=FAIL)


def changed_by_hand(world: World) -> None:
    installed(world)
    (world.live / "version.info").write_text("edited\n")


def uninstalled(world: World) -> None:
    installed(world)
    uninstall(world.store)


def rolled_back(world: World) -> None:
    installed(world)
    rollback(world.store, operator=packages.OPERATOR)


def several(world: World) -> None:
    world.make()
    for content in "3412":
        world.install(world.package(content))


def hand_made(world: World) -> None:
    """The nested directory that the usual shell lines leave, below a store that knows it not."""
    world.make(found="nested")


def nested_over_ours(world: World) -> None:
    installed(world)
    shutil.rmtree(world.live)
    packages.make_vendor_tree(world.live, layout="nested", content="0", set_env=str(world.live))


SCENARIOS = {
    "gc": Scenario(several, "gc"),
    "pin": Scenario(installed, "pin"),
    "repair-flattens": Scenario(hand_made, "repair"),
    "repair-over-an-install": Scenario(nested_over_ours, "repair", from_switch=True),
    "first-install-adopts": Scenario(found_something, "install", "1"),
    "first-install-on-nothing": Scenario(nothing_there, "install", "1"),
    "upgrade-after-a-failure": Scenario(installed_and_failed, "install", "2"),
    "upgrade-of-changed-tree": Scenario(changed_by_hand, "install", "2", from_switch=True),
    "upgrade-fails-smoke": Scenario(installed, "install", "2", smoke="fail", ends=9, from_switch=True),
    "upgrade-by-renames": Scenario(installed, "install", "2", method="renames", from_switch=True),
    "upgrade-by-copy": Scenario(installed, "install", "2", method="copy", from_switch=True),
    "failure-by-copy": Scenario(
        installed, "install", "2", method="copy", smoke="fail", ends=9, from_switch=True, every=4
    ),
    "failure-by-renames": Scenario(installed, "install", "2", method="renames", smoke="fail", ends=9, from_switch=True),
    "rollback": Scenario(installed, "rollback"),
    "rollback-forward-by-copy": Scenario(rolled_back, "rollback", method="copy", every=4),
    "rollback-after-uninstall": Scenario(uninstalled, "rollback"),
    "verify-repairs": Scenario(changed_by_hand, "verify --repair"),
    "uninstall": Scenario(installed, "uninstall"),
    "uninstall-restores-what-was-found": Scenario(installed, "uninstall --restore-adopted"),
    "uninstall-by-copy": Scenario(installed, "uninstall", method="copy", every=4),
}


class Stage:
    """One scenario: the world before, and how to get it back."""

    def __init__(self, scenario: Scenario, memory: Path) -> None:
        self.scenario = scenario
        self.base = memory / "base"
        self.world = World(memory / "world")
        self.world.root.mkdir()
        scenario.prepare(self.world)
        for content in ("1", "2"):
            self.world.package(content)
        self.old = live_digest(self.world.store)
        self.others = others_digest(self.world.store)
        self.edited = self.old if observe_live(self.world.store).kind == "changed" else ""
        self.world.root.rename(self.base)
        package = str(self.world.root / f"op-{scenario.package}.run") if scenario.package else ""
        self.command = (str(self.world.root), scenario.action, package, scenario.method, scenario.smoke)

    def problems(self, allowed: tuple[str, ...]) -> list[str]:
        return world_problems(self.world.store, allowed, self.others, edited=self.edited)

    def reset(self) -> None:
        shutil.rmtree(self.world.root, ignore_errors=True)
        shutil.copytree(self.base, self.world.root, symlinks=True)


def list_points(stage: Stage, victim: Victim, memory: Path) -> list[Point]:
    """The calls to kill at; also learns the new digest."""
    stage.reset()
    ended, points = victim.points(stage.command, stage.world.root, memory / "log")
    assert ended == stage.scenario.ends
    assert list(settled_problems(stage.world.store, (live_digest(stage.world.store),), stage.others)) == []
    if stage.scenario.from_switch:
        copies = [i for i, point in enumerate(points) if re.search(r"staging/\w+/old", point.text)]
        journals = [i for i, point in enumerate(points) if point.name == "rename" and "/journal" in point.text]
        points = points[copies[0] if stage.scenario.method == "copy" else journals[1] - 3 :]
    return points[:: stage.scenario.every]


@pytest.mark.parametrize("name", SCENARIOS)
def test_kill_at_every_mutating_call(name: str, memory: Path, fault_row: FaultRow) -> None:
    fault_row.need("1")
    scenario = SCENARIOS[name]
    stage = Stage(scenario, memory)
    bad = []
    with Victim() as victim:
        points = list_points(stage, victim, memory)
        store = stage.world.store
        new = live_digest(store)
        moves = scenario.ends == 0 and scenario.action not in ("gc", "pin")
        assert points and ((new != stage.old) == moves)
        everything = FULL and scenario.every == 1
        if not FULL:
            points = random.Random(SEED).sample(points, min(SAMPLE, len(points)))
        tried = {item.manifest_digest for item in list_generations(store) if item.failed}
        seen = {"old": 0, "new": 0}
        for number, point in enumerate(points):
            stage.reset()
            ended = victim.kill_at(stage.command, point)
            if ended != -9:
                bad.append(f"{point}: was not killed but ended {ended}")
                continue
            allowed = {stage.old, new, *tried} | ({NOTHING} if scenario.method == "renames" else set())
            at_once = live_digest(store)
            if scenario.method != "copy" and at_once not in allowed:
                bad.append(f"{point}: a mix was live before recovery")
            try:
                status(store)
            except Exception as error:
                bad.append(f"{point}: status failed: {error}")
            bad += [f"{point}: {text}" for text in stage.problems((stage.old, new))]
            seen["old" if live_digest(store) == stage.old else "new"] += 1
            if number % 4 == 0:
                bad += [f"{point}: afterwards: {text}" for text in next_install(stage)]
        # The loop was exhaustive: a run has no further call of any of these names.
        for call in sorted({point.name for point in points} - {"openat", "write"} if everything else ()):
            last = max(point.count for point in points if point.name == call)
            stage.reset()
            ended = victim.kill_at(stage.command, Point(call, last + 1))
            assert ended == scenario.ends, f"{call} {last + 1} was reached: the list of calls is not complete"
    fault_row("1", len(points), bad, what=f"{name} ({seen['old']} old, {seen['new']} new, seed {SEED})")


def next_install(stage: Stage) -> list[str]:
    """The next command succeeds and leaves nothing behind."""
    try:
        stage.world.install(stage.world.root / "op-2.run")
    except Exception as error:
        return [f"the next install failed: {type(error).__name__} {error}"]
    return list(settled_problems(stage.world.store, (live_digest(stage.world.store),), stage.others))


@pytest.mark.parametrize("name", ["first-install-adopts", "upgrade-by-copy", "failure-by-renames", "rollback"])
def test_kill_during_recovery(name: str, memory: Path, fault_row: FaultRow) -> None:
    """A recovery that is killed too is completed by the next one."""
    fault_row.need("2")
    stage = Stage(SCENARIOS[name], memory)
    store, chance = stage.world.store, random.Random(SEED)
    recovery = (str(stage.world.root), "recover")
    bad, pairs = [], 0
    with Victim() as victim:
        points = list_points(stage, victim, memory)
        allowed = (stage.old, live_digest(store))
        for first in chance.sample(points, min(25 if FULL else 3, len(points))):
            stage.reset()
            assert victim.kill_at(stage.command, first) == -9
            _, again = victim.points(recovery, stage.world.root, memory / "log")
            for second in chance.sample(again, min(3, len(again))):
                stage.reset()
                assert victim.kill_at(stage.command, first) == -9
                assert victim.kill_at(recovery, second) == -9
                bad += [f"{first}, {second}: {text}" for text in stage.problems(allowed)]
                pairs += 1
    assert pairs >= (50 if FULL else 3)
    fault_row("2", pairs, bad, what=f"{name} (seed {SEED})")
