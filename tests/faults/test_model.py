"""Row 16: long random lives, with deaths at any call, compared with a model after every operation."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.operate import gc
from smallq_deploy.operate.gc import collect, pin
from smallq_deploy.operate.mover import recover_store, rollback, uninstall
from smallq_deploy.store.paths import Store
from tests.support import packages
from tests.support.faultrows import FULL, FaultRow
from tests.support.model import OTHER, OURS, PACKAGES, Gen, Model, Op, observe, random_op
from tests.support.opp import FAIL, INCONCLUSIVE, PASS, World
from tests.support.processes import BUG, DIED, end_of, start
from tests.support.toolkits import make_new
from tests.support.world import live_digest, others_digest, settled_problems

SEED = 20260805
STEPS = 20
PARTS = 8
ANSWERS = {"pass": PASS, "fail": FAIL, "inconclusive": INCONCLUSIVE}
BY_HAND = ("edit", "remove", "config")

pytestmark = pytest.mark.usefixtures("alone")


class Library:
    """Operations through the use cases, on a small opp."""

    command = False

    def __init__(self, memory: Path) -> None:
        self.base, self.world = memory / "base", World(memory / "world")
        self.world.root.mkdir()
        self.world.make()
        self.packages = {content: self.world.package(content) for content in PACKAGES}
        self.store = self.world.store
        self._learn()

    def _learn(self) -> None:
        """What each package's tree looks like, and the world as it is in the beginning."""
        shutil.copytree(self.store.opp, self.base, symlinks=True)
        self.digests = {}
        for content in PACKAGES:
            self.run(Op("install", package=content, smoke="none"))
            self.digests[content] = live_digest(self.store)
        self.reset()
        self.others = others_digest(self.store)

    def reset(self) -> Model:
        shutil.rmtree(self.store.opp)
        shutil.copytree(self.base, self.store.opp, symlinks=True)
        return Model(getattr(self, "digests", {}), live_digest(self.store), [OTHER])

    def run(self, op: Op) -> str:
        """'' or the error's code; raises what is no SmallqError."""
        try:
            self.act(op)
        except SmallqError as error:
            return error.code
        return ""

    def act(self, op: Op) -> None:
        store, smoke = self.store, ANSWERS.get(op.smoke)
        if op.name == "install":
            self.world.install(
                self.packages[op.package], smoke=smoke or PASS, reinstall=op.flag, no_smoke=smoke is None
            )
        elif op.name == "rollback":
            answer = smoke
            call = None if answer is None else (lambda: answer)
            rollback(store, operator=packages.OPERATOR, to=op.number, smoke=call)
        elif op.name == "uninstall":
            uninstall(store, purge=op.flag)
        elif op.name == "gc":
            collect(store, keep=op.number or 0, adopted=op.flag)
        elif op.name == "pin":
            pin(store, op.number or 0, remove=op.flag)
        else:
            recover_store(store)


class Command(Library):
    """The same through the real command line, in forks of this process; a toolkit without devices."""

    command = True

    def __init__(self, memory: Path) -> None:
        self.memory, self.base = memory, memory / "base"
        self.root = memory / "Ascend"
        home = make_new(self.root)
        self.store = Store((home / "opp").resolve())
        self.store.vendors.mkdir(exist_ok=True)
        packages.make_vendor_tree(self.store.live, content="0", set_env=str(self.store.live))
        packages.make_vendor_tree(self.store.vendors / OTHER, vendor=OTHER, ops=("VecAddSample",))
        self.store.config_ini.write_text(f"load_priority={OTHER}\n")
        self.packages = {
            content: packages.make_run(memory / f"op-{content}.run", content=content) for content in PACKAGES
        }
        self._learn()

    def act(self, op: Op) -> None:
        raise AssertionError("the command is run in a process of its own")

    def run(self, op: Op) -> str:
        out = self.memory / "out"
        status = end_of(start(lambda: self._main(op, out)))
        document = json.loads(out.read_text() or "{}")
        codes = [error["code"] for error in document["errors"]]
        assert status == document["exit_status"], (op, status, document)
        assert "INTERNAL" not in codes, document
        return codes[0] if codes else ""

    def words(self, op: Op) -> list[str]:
        quiet = ["--no-smoke"]
        if op.name == "install":
            return ["install", str(self.packages[op.package]), *quiet, *(["--reinstall"] if op.flag else [])]
        if op.name == "rollback":
            return ["rollback", *quiet, *(["--to", str(op.number)] if op.number is not None else [])]
        if op.name == "uninstall":
            return ["uninstall", *(["--purge", "--yes"] if op.flag else [])]
        if op.name == "gc":
            return ["gc", "--yes", "--keep", str(op.number or 0), *(["--adopted"] if op.flag else [])]
        if op.name == "pin":
            return ["unpin" if op.flag else "pin", str(op.number or 0)]
        return ["recover"]

    def _main(self, op: Op, out: Path) -> None:
        from smallq_deploy.cli.main import run

        with open(out, "w") as stream:
            os.dup2(stream.fileno(), 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        try:
            status = run([*self.words(op), "--cann", str(self.root), "--json"])
        except SystemExit as ended:
            status = int(ended.code or 0)
        sys.stdout.flush()
        os._exit(status)

    def dying(self, op: Op) -> Callable[[], object]:
        return lambda: self._main(op, self.memory / "out")


def by_hand(op: Op, driver: Library, model: Model) -> None:
    live = driver.store.live
    if op.name == "remove":
        shutil.rmtree(live, ignore_errors=True)
    elif op.name == "config":
        names = f"{OTHER},{OURS}" if op.flag else OTHER
        driver.store.config_ini.write_text(f"load_priority={names}\n")
    elif live.is_dir():
        (live / "version.info").write_text(f"edited {op.number}\n")
        model.live = live_digest(driver.store)


def live_a_life(driver: Library, chance: random.Random) -> list[str]:
    """One sequence; what went wrong, with the operations that led there."""
    model = driver.reset()
    done: list[Op] = []

    def wrong(text: str) -> list[str]:
        return [text + "\n    after " + "; ".join(map(str, done))]

    for _ in range(STEPS):
        op = random_op(chance, command=driver.command)
        done.append(op)
        if op.name in BY_HAND:
            by_hand(op, driver, model)
        before = model.copy()
        code = model.apply(op)
        if op.name in BY_HAND:
            continue
        if op.die:
            if text := _death(driver, op, before, model):
                return wrong(text)
            if not _same(driver, model):
                model = before
            _resync(driver, model)
        else:
            said = driver.run(op)
            if said != code and not (driver.command and said and code):
                return wrong(f"it said {said or 'success'}, the model {code or 'success'}")
        seen, wanted = observe(driver.store), model.seen()
        if seen != wanted:
            differ = {key: (seen[key], wanted[key]) for key in seen if seen[key] != wanted[key]}
            return wrong(f"(seen, model) differ: {differ}")
        if model.kind in ("current", "absent") and (OURS in model.names) == _listed(model):
            lost = [number for number, gen in model.gens.items() if not gen.tree]  # somebody removed or edited it
            known = {f"I1: the tree of generation {number} is lost" for number in lost}
            problems = set(settled_problems(driver.store, (model.live,), driver.others)) - known
            if problems:
                return wrong("; ".join(sorted(problems)))
    return []


def _listed(model: Model) -> bool:
    return bool(model.current) and model.gens[model.current or 0].listed


def _death(driver: Library, op: Op, before: Model, after: Model) -> str:
    """Run ``op`` in a process that ends in the middle, recover; '' when the old or the new state is there."""
    work = driver.dying(op) if isinstance(driver, Command) else (lambda: driver.act(op))
    ended = end_of(start(work, die_at=op.die))
    if ended == BUG:
        return "it raised what no user may see"
    recover_store(driver.store)
    seen = observe(driver.store)
    keys = ("live", "current", "previous", "names")
    states = [{key: model.seen()[key] for key in keys} for model in (before, after)]
    if {key: seen[key] for key in keys} not in states:
        return f"after a death ({ended == DIED}) neither old nor new: {seen} of {states}"
    return ""


def _same(driver: Library, model: Model) -> bool:
    seen, wanted = observe(driver.store), model.seen()
    return all(seen[key] == wanted[key] for key in ("live", "current", "previous", "names"))


def _resync(driver: Library, model: Model) -> None:
    """After a death numbers may be used up, a failed generation be there or not, the history be a line longer."""
    seen = observe(driver.store)
    model.store = driver.store.exists
    model.last, model.lines = seen["last"], seen["lines"]
    for number in [number for number in model.gens if number not in seen["generations"]]:
        if model.gens[number].failed:
            del model.gens[number]
    for number, (digest, failed) in seen["generations"].items():
        if number not in model.gens and failed:
            package = next(name for name, tree in model.digests.items() if tree == digest)
            model.gens[number] = Gen(digest, package, failed=True)


@pytest.mark.parametrize("part", range(PARTS if FULL else 2))
def test_random_lives(part: int, memory: Path, fault_row: FaultRow) -> None:
    driver, bad = Library(memory), []
    count = 2000 // PARTS if FULL else 12
    for number in range(count):
        seed = f"{SEED}-{part}-{number}"
        bad += [f"life {seed}: {text}" for text in live_a_life(driver, random.Random(seed))]
    fault_row("16", count, bad, what=f"part {part}, {STEPS} operations each (seed {SEED})")


@pytest.mark.parametrize("part", range(2 if FULL else 1))
def test_random_lives_of_the_real_command(part: int, memory: Path, fault_row: FaultRow) -> None:
    driver, bad = Command(memory), []
    count = 50 if FULL else 1
    for number in range(count):
        seed = f"{SEED}-command-{part}-{number}"
        bad += [f"life {seed}: {text}" for text in live_a_life(driver, random.Random(seed))]
    fault_row("16 command", count, bad, what=f"part {part}, {STEPS} commands each (seed {SEED})")


def test_the_model_sees_a_lost_generation(memory: Path) -> None:
    """A collector that protects nothing is found out within some lives."""
    driver = Library(memory)
    with mock.patch.object(gc, "_protected", lambda store, generations, adopted: {}):
        bad = [text for number in range(12) for text in live_a_life(driver, random.Random(f"lost-{number}"))]
    assert bad
