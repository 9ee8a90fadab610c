"""One command on the modelled disk: record it, cut the power, recover, judge."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.store.configini import read_config
from smallq_deploy.store.generations import list_generations, read_state
from smallq_deploy.store.history import read_history
from smallq_deploy.store.journal import STAGING, SWITCHING, UNDONE, read_journal
from smallq_deploy.store.paths import Store
from smallq_deploy.store.pins import read_pins
from smallq_deploy.store.recovery import open_transaction
from tests.support import modeldisk
from tests.support.cutscenarios import CUTS, attempt
from tests.support.opp import World, nobody_else
from tests.support.world import NOTHING, live_digest, others_digest, world_problems


@dataclass(frozen=True)
class Judged:
    """``calls``: moments of the run; ``states``: different disks that were judged."""

    violations: tuple[str, ...]
    calls: int
    states: int


@nobody_else()
def judge(name: str, place: Path, *, seed: int, cuts: int, each: int, first_only: bool = False) -> Judged:
    """Run a scenario of tests/support/cutscenarios.py and judge ``each`` disks at ``cuts`` of its calls (0: all) and at
    its end. ``place`` is on a tmpfs, which never gives an inode number twice."""
    scenario = CUTS[name]
    world = World(place / "run")
    world.root.mkdir()
    scenario.prepare(world)
    world.package("9")
    old, others = live_digest(world.store), others_digest(world.store)
    recorder = modeldisk.Recorder(world.opp)
    with recorder.watching():
        said = attempt(world, scenario.act)
    if (said == "") != scenario.ends:
        return Judged((f"{name}: it ended with {said!r}",), 0, 0)
    new, wanted = live_digest(world.store), summary(world.store)
    kept = world.store.exists
    if name == "recover":
        old = new  # where recovery is to come to, whenever it is cut
    edited = old if scenario.edited else ""
    violations: list[str] = []
    seen: set[Any] = set()
    crash = World(place / "crash")
    for what, point, state in modeldisk.sample(recorder.points, seed, cuts, each):
        image = modeldisk.image(point, state, recorder.top)
        ended = point is recorder.points[-1]
        if (image.tree, ended) in seen:
            continue
        seen.add((image.tree, ended))
        crash.opp.parent.mkdir(parents=True)
        image.build(crash.opp, crash.store.journal)
        problems = []
        if ended:
            problems += _unsettled(crash.store)
        elif name != "recover":
            problems += _journal_lies(crash.store, old)
        problems += world_problems(crash.store, (new,) if ended else (old, new), others, edited=edited)
        if not crash.store.exists and kept and live_digest(crash.store) != old:
            problems.append("I1: the new tree is live, and the store, with all that was before, is not there")
        if not problems:
            problems += _untrue(crash.store)
            if ended and summary(crash.store) != wanted:
                problems.append(f"I4: what the command had done is gone: {_first_difference(crash.store, wanted)}")
        violations += [f"{name}, {what}: {text}" for text in problems]
        shutil.rmtree(crash.root)
        if violations and first_only:
            break
    shutil.rmtree(world.root)
    return Judged(tuple(violations), len(recorder.points) - 1, len(seen))


def _unsettled(store: Store) -> list[str]:
    try:
        found = open_transaction(store)
    except Exception as error:
        return [f"I4: after the end the journal cannot be read: {error}"]
    return [] if found is None else [f"I4: the command had ended, and its transaction is open ({found.phase})"]


def _journal_lies(store: Store, old: str) -> list[str]:
    """What docs/explanation/switch.md says of the phases, and `status` shows."""
    try:
        found = read_journal(store)
    except Exception:
        return []  # recovery says it
    if found is None or found.phase in (SWITCHING, UNDONE):
        return []
    config = found.config
    live = old
    if found.phase != STAGING:
        live = NOTHING if found.new_tree is None else found.new_tree.digest
    wrong = []
    if live_digest(store) != live:
        wrong.append("which tree is live")
    if config is not None and read_config(store).text != config.after:
        wrong.append("config.ini")
    return [f"I5: the journal says '{found.phase}', which is not true of {what}" for what in wrong]


def summary(store: Store) -> dict[str, Any]:
    """All that a command leaves for the next one."""
    return {
        "live": live_digest(store),
        "config.ini": read_config(store).text,
        "state": read_state(store),
        "history": [(line["txid"], line["result"]) for line in read_history(store)],
        "generations": [(item.number, item.origin, item.failed, item.proven) for item in list_generations(store)],
        "pins": read_pins(store),
    }


def _first_difference(store: Store, wanted: dict[str, Any]) -> str:
    found = summary(store)
    return next(f"{key}: {found[key]}, not {wanted[key]}" for key in wanted if found[key] != wanted[key])


def _untrue(store: Store) -> list[str]:
    """I7 once more: what the history says of a smoke test, the generation says too."""
    if not store.exists:
        return []
    verdicts = {
        line["to"]: (line["result"], (line["smoke"] or {}).get("verdict"))
        for line in read_history(store)
        if line["action"] == "install"
    }
    found = []
    for item in list_generations(store):
        result, verdict = verdicts.get(item.number, ("", None))
        if result == "ok" and verdict == "pass" and not item.proven:
            found.append(f"I7: the history says that generation {item.number} was proven, its record does not")
        if result == "undone" and not item.failed:
            found.append(f"I7: generation {item.number} was undone and is not called failed")
    return found
