"""Row 8: several processes at once. One changes the opp at a time, the others wait or are told who is busy; readers
never fail, and what programs load is never missing."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from smallq_deploy.base.errors import ExitStatus, SmallqError
from smallq_deploy.operate.gc import collect
from smallq_deploy.operate.mover import recover_store, rollback, uninstall
from smallq_deploy.operate.status import history, status
from smallq_deploy.operate.verifier import verify
from smallq_deploy.store.generations import list_generations
from smallq_deploy.store.history import read_history
from tests.support import packages
from tests.support.faultrows import FULL, FaultRow
from tests.support.opp import PASS, World, release
from tests.support.processes import DIED, end_of, start
from tests.support.world import NOTHING, live_digest, others_digest, world_problems

SEED = 20261124
BUSY, REFUSED = int(ExitStatus.CONFLICT), int(ExitStatus.USAGE)
LIBRARY = "op_api/lib/libcust_opapi.so"
NOBODY = 65534
CONTENTS = ("1", "2", "3", "4")

pytestmark = pytest.mark.usefixtures("alone")


class Race:
    """A world with two generations, made again for each race, and what may be live in the end."""

    def __init__(self, memory: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.base, self.world = memory / "base", World(memory / "world")
        self.world.root.mkdir()
        self.world.make()
        self.digests = {NOTHING, live_digest(self.world.store)}
        for content in CONTENTS:
            self.world.install(self.world.package(content))
            self.digests.add(live_digest(self.world.store))
        rollback(self.world.store, operator=packages.OPERATOR, smoke=lambda: PASS)
        self.others = others_digest(self.world.store)
        self.world.root.rename(self.base)

    def reset(self) -> None:
        shutil.rmtree(self.world.root, ignore_errors=True)
        shutil.copytree(self.base, self.world.root, symlinks=True)

    def install(self, wait: float = 0.0) -> Callable[[], object]:
        package = self.world.root / f"op-{self.chance.choice(CONTENTS)}.run"
        pause = self.chance.uniform(0, 0.004)

        def smoke() -> object:
            time.sleep(pause)
            return PASS

        return lambda: self.world.install(package, smoke=smoke, reinstall=True, wait_seconds=wait)  # type: ignore[arg-type]

    def rollback(self, wait: float = 0.0) -> Callable[[], object]:
        return lambda: rollback(self.world.store, operator=packages.OPERATOR, smoke=lambda: PASS, wait_seconds=wait)

    def uninstall(self) -> object:
        return uninstall(self.world.store)

    def collect(self) -> object:
        return collect(self.world.store, keep=self.chance.randint(0, 2), adopted=True)

    def read(self, *, missing_is_fine: bool = False) -> None:
        """What readers do, again and again: no error, never a mix of two trees, and the library is always there."""
        for _ in range(6):
            seen = status(self.world.store).live
            assert seen is None or seen.kind in ("current", "absent"), seen
            history(self.world.store)
            try:
                found = verify(self.world.store, release(), unit=packages.UNIT, arch=packages.ARCH)
                assert not found.differences, found.differences
                assert found.state in ("installed", "adopted", "absent"), found.state
            except SmallqError as error:
                # Files that come and go under a reader are told as such, never as damage of the store.
                if error.code not in ("OPEN_TRANSACTION", "NOT_INSTALLED"):
                    raise
            if not missing_is_fine:
                (self.world.live / LIBRARY).read_bytes()

    def run(self, *works: Callable[[], object]) -> list[int]:
        """All at once; their exit statuses."""
        reader, writer = os.pipe()
        pids = []
        for work in works:
            pids.append(start(work, go=(reader, writer)))
        os.close(writer)
        os.close(reader)
        return [end_of(pid) for pid in pids]

    def problems(self) -> list[str]:
        return world_problems(self.world.store, self.digests, self.others)


def expect(codes: list[int], allowed: set[int], *, winner: bool = True) -> list[str]:
    found = [f"a process ended {code}" for code in codes if code not in allowed]
    if winner and 0 not in codes:
        found.append(f"nobody won: {codes}")
    return found


def installs(race: Race) -> list[str]:
    codes = race.run(*[race.install() for _ in range(race.chance.randint(2, 16))])
    found = expect(codes, {0, BUSY})
    done = [line for line in read_history(race.world.store) if line["action"] == "install"]
    if len(done) != len(CONTENTS) + codes.count(0):
        found.append(f"{codes.count(0)} installs said 0, the history knows {len(done) - len(CONTENTS)}")
    return found


def waiting_installs(race: Race) -> list[str]:
    return expect(race.run(*[race.install(wait=60.0) for _ in range(race.chance.randint(2, 6))]), {0})


def install_and_gc(race: Race) -> list[str]:
    return expect(race.run(race.install(), race.collect), {0, BUSY})


def install_and_readers(race: Race) -> list[str]:
    codes = race.run(race.install(), race.install(wait=60.0), race.read, race.read)
    return expect(codes[:2], {0, BUSY}) + expect(codes[2:], {0})


def install_and_rollback(race: Race) -> list[str]:
    return expect(race.run(race.install(), race.rollback(), race.rollback(wait=60.0)), {0, BUSY})


def rollback_and_uninstall(race: Race) -> list[str]:
    codes = race.run(race.rollback(), race.uninstall, lambda: race.read(missing_is_fine=True))
    return expect(codes[:2], {0, BUSY, REFUSED}) + expect(codes[2:], {0})


def recover_and_install(race: Race) -> list[str]:
    """A dead process left a journal; several commands find it at once."""
    died = end_of(start(race.install(), die_at=race.chance.randint(5, 90)))
    found = [] if died in (0, DIED) else [f"the process that was to die ended {died}"]
    store = race.world.store
    codes = race.run(lambda: recover_store(store), race.install(wait=60.0), lambda: recover_store(store))
    return found + expect(codes, {0, BUSY})


def stale_owner(race: Race) -> list[str]:
    """The text beside the lock names a process that is gone; only the lock itself counts."""
    owner = race.world.store.root / "owner"
    owner.write_text(json.dumps({"pid": 4_000_000, "host": os.uname().nodename, "user": "root", "command": "install"}))
    (race.world.store.root / "lock").chmod(race.chance.choice((0o600, 0o644)))
    return expect(race.run(race.install(), race.rollback()), {0, BUSY})


def strangers_read(race: Race) -> list[str]:
    """The lock belongs to root and nobody else may open it: reading needs no lock."""
    (race.world.store.root / "lock").chmod(0o600)

    def stranger() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        race.read()

    codes = race.run(race.install(), stranger)
    return expect(codes[:1], {0, BUSY}) + expect(codes[1:], {0})


def clock_jumps(race: Race) -> list[str]:
    """Somebody sets the clock back or forward by years while two install."""
    offset = race.chance.choice((-1, 1)) * 10 * 365 * 86400
    real = time.gmtime

    def jumping() -> None:
        with mock.patch.object(
            time, "gmtime", lambda *seconds: real((seconds[0] if seconds else time.time()) + offset)
        ):
            race.install(wait=60.0)()

    found = expect(race.run(jumping, race.install(wait=60.0)), {0})
    numbers = [item.number for item in list_generations(race.world.store)]
    return found + ([] if numbers == sorted(set(numbers)) else [f"numbers went wrong: {numbers}"])


KINDS: dict[str, tuple[Callable[[Race], list[str]], int]] = {
    "installs": (installs, 90),
    "waiting installs": (waiting_installs, 50),
    "install and gc": (install_and_gc, 60),
    "install and readers": (install_and_readers, 60),
    "install and rollbacks": (install_and_rollback, 60),
    "rollback and uninstall": (rollback_and_uninstall, 60),
    "recoveries and install": (recover_and_install, 60),
    "stale owner": (stale_owner, 30),
    "strangers read": (strangers_read, 30),
    "clock jumps": (clock_jumps, 30),
}


@pytest.mark.parametrize("kind", KINDS)
def test_races(kind: str, memory: Path, fault_row: FaultRow) -> None:
    if kind == "strangers read" and os.geteuid() != 0:
        fault_row.skip("8", "only root can become somebody else")
    body, full = KINDS[kind]
    race, bad = Race(memory, SEED), []
    count = full if FULL else 3
    for number in range(count):
        race.reset()
        bad += [f"{kind} {number}: {text}" for text in body(race) + race.problems()]
    fault_row("8", count, bad, what=f"{kind} (seed {SEED})")


def test_the_checker_sees_a_missing_lock(memory: Path) -> None:
    """Without the lock the same races do end badly, and that is noticed."""
    from contextlib import nullcontext

    race, bad = Race(memory, SEED), []
    with mock.patch("smallq_deploy.base.lock.exclusive_lock", lambda *_, **__: nullcontext()):
        for _ in range(12):
            race.reset()
            bad += installs(race)
            try:
                bad += race.problems()
            except Exception as error:
                bad.append(str(error))
            if bad:
                break
    assert bad
