"""An error at every system call: a typed answer with a hint, the old state or an honest word about the new one.

Each scenario is run undisturbed under strace to list its calls, then again with one call answering an error.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from smallq_deploy.base.errors import ExitStatus
from tests.faults.test_kill_points import SCENARIOS, SEED, Stage, next_install
from tests.support.faultrows import FULL, FaultRow
from tests.support.killer import Point, Victim
from tests.support.world import NOTHING, assert_world_ok, live_digest

SAMPLE = 6  # injections of each scenario in a subset
WHOLE = 110  # and in a full run: an install makes more than a thousand calls, most of them reads of one kind
EVERYWHERE = ("EIO", "EACCES", "ENOMEM", "EINTR")
# What only calls that make or grow something answer (their pages in man 2), and what only opening does.
GROWING = ("ENOSPC", "EDQUOT", "EROFS")
OPENING = ("EMFILE",)
_READING = ("read", "pread64", "getdents64", "readlink", "flock", "statfs", "fstatfs")
# Ends by which a command may answer an error of the system; 1 would be a bug of ours.
TYPED = {int(status) for status in ExitStatus} - {ExitStatus.OK, ExitStatus.INTERNAL, ExitStatus.INTERRUPTED}
OPEN = int(ExitStatus.OPEN_TRANSACTION)
NAMES = (
    *("first-install-adopts", "upgrade-after-a-failure", "upgrade-by-renames", "upgrade-by-copy", "rollback"),
    *("uninstall", "gc", "pin", "repair-flattens"),
)


def errors_of(point: Point) -> tuple[str, ...]:
    found = EVERYWHERE
    if point.name not in _READING:
        found += GROWING
    if point.name in ("open", "openat", "creat"):
        found += OPENING
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_error_at_every_call(name: str, memory: Path, fault_row: FaultRow) -> None:
    fault_row.need("5")
    scenario = SCENARIOS[name]
    stage = Stage(scenario, memory)
    store, said = stage.world.store, memory / "said"
    chance = random.Random(f"{SEED} {name}")
    bad: list[str] = []
    ends = {"typed": 0, "harmless": 0, "left to recovery": 0}
    with Victim() as victim:
        stage.reset()
        ended, points = victim.points(stage.command, stage.world.root, memory / "log", reading=True)
        assert ended == scenario.ends
        new = live_digest(store)
        # Every call with one of its errors; a seeded sample of them is tried.
        tries = [(point, chance.choice(errors_of(point))) for point in points]
        tries = chance.sample(tries, min(WHOLE if FULL else SAMPLE, len(tries)))
        done = 0
        for number, (point, error) in enumerate(tries):
            stage.reset()
            said.unlink(missing_ok=True)
            ended, reached = victim.fail_at(stage.command, point, error, memory / "log")
            where = f"{error} at {point}"
            if not reached:
                bad.append(f"{where}: no error was injected")
                continue
            done += 1
            answer = json.loads(said.read_text()) if said.exists() else {}
            text = f"{answer.get('code')}: {answer.get('message')} ({answer.get('hint')})"
            if ended not in (scenario.ends, *TYPED):
                bad.append(f"{where}: ended {ended}, {text}")
            elif ended not in (0, scenario.ends) and not (answer["code"] and answer["hint"]):
                bad.append(f"{where}: no code or no hint: {text}")
            kind = "harmless" if ended == scenario.ends else "left to recovery" if ended == OPEN else "typed"
            ends[kind] += 1
            allowed = {stage.old, new} | ({NOTHING} if kind == "left to recovery" else set())
            try:
                if kind == "left to recovery":
                    # The cause is gone by now: the next command closes it.
                    assert_world_ok(store, allowed=(stage.old, new), others=stage.others, edited=stage.edited)
                else:
                    assert_world_ok(
                        *(store,),
                        allowed=allowed,
                        others=stage.others,
                        edited=stage.edited,
                        old=stage.old,
                        new=new,
                        exit_status=ended,
                        said=text,
                    )
            except AssertionError as violation:
                bad.append(f"{where}: ended {ended}, {text}: {violation}")
            if number % 6 == 0:
                bad += [f"{where}: afterwards: {problem}" for problem in next_install(stage)]
    fault_row("5", done, bad, what=f"{name} ({', '.join(f'{n} {kind}' for kind, n in ends.items())})")
