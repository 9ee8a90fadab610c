"""Power cuts on the modelled disk: one run of a scenario, every moment of it, every state allowed there."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.store.paths import Store
from tests.support.opp import World
from tests.support.powercut import before_each_call
from tests.support.strictdisk import StrictDisk
from tests.support.world import live_digest, others_digest, world_problems


def strict_cuts(
    prepare: Callable[[World], object],
    act: Callable[[World], object],
    place: Path,
    *,
    seed: int,
    every: int = 1,
    more: int = 2,
    edited: bool = False,
    first_only: bool = False,
) -> tuple[int, list[str]]:
    """(states tried, violations). ``every``: cut only before each n-th call; ``first_only``: stop at a violation."""
    chance = random.Random(seed)
    world = World(place / "world")
    world.root.mkdir(parents=True)
    prepare(world)
    world.package("9")
    old, others = live_digest(world.store), others_digest(world.store)
    base = place / "base"
    shutil.copytree(world.opp, base, symlinks=True)
    try:
        act(world)
        ends = True
    except SmallqError:
        ends = False
    new = live_digest(world.store)
    shutil.rmtree(world.opp)
    shutil.copytree(base, world.opp, symlinks=True)
    disk = StrictDisk(world.opp)
    tried, calls = 0, 0
    found: list[str] = []
    real = os.fsync
    watching = True

    def judge(what: str, allowed: tuple[str, ...], only_promised: bool) -> None:
        nonlocal tried
        for kind, chosen in disk.states(chance, more):
            target = place / "cut" / "opp"
            target.parent.mkdir()
            disk.build(chosen, target)
            tried += 1
            problems = world_problems(Store(target), allowed, others, edited=old if edited else "")
            found.extend(f"{what}, {kind}: {text}" for text in problems)
            shutil.rmtree(target.parent)
            if only_promised or (found and first_only):
                return

    class Enough(BaseException):
        pass

    def before(call: str) -> None:
        nonlocal calls, watching
        if not watching:
            return
        disk.look()
        calls += 1
        if calls % every == 0:
            watching = False
            judge(f"before call {calls}, {call}", (old, new), False)
            watching = True
            if found and first_only:
                raise Enough

    def fsync(fd: int) -> Any:
        answer = real(fd)
        if watching:
            disk.synced(fd)
        return answer

    try:
        with mock.patch.object(os, "fsync", fsync), before_each_call(before):
            try:
                act(world)
            except SmallqError:
                pass
        disk.look()
        watching = False
        judge("after exit status 0" if ends else "after the failure", (new,), True)
    except Enough:
        pass
    finally:
        disk.close()
    return tried, found
