"""Links, hard links, pipes and devices put where smallq-deploy reads and writes (row 9).

Every command runs against every attack. Nothing outside the vendors directory may change: not a byte, mode, owner or
time of the sentinel tree; nothing may hang; every refusal is an error with a code. When the attack is taken away, the
next command settles everything.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.base.fsops import rename_exchange
from smallq_deploy.operate.mover import recover_store, rollback, uninstall
from smallq_deploy.operate.repair import repair
from smallq_deploy.operate.status import status
from smallq_deploy.operate.verifier import verify
from tests.support import packages
from tests.support.attacks import ATTACKS, CODES, Scene
from tests.support.faultrows import FULL, FaultRow
from tests.support.forked import in_child
from tests.support.hostile import differences, fingerprint
from tests.support.opp import FAIL, PASS, environment, release
from tests.support.world import live_digest, settled_problems

_PATIENCE = 30  # seconds for all commands of one attack
_PARTS = 4


def commands(scene: Scene) -> dict[str, Callable[[], object]]:
    world, store = scene.world, scene.store
    toolkit = environment(world.opp).toolkit
    install = world.root / "op-3.run"
    return {
        "status": lambda: status(store),
        "verify": lambda: verify(store, release()),
        "install": lambda: world.install(install),
        "rollback": lambda: rollback(store, operator=packages.OPERATOR, smoke=lambda: PASS),
        "rollback to 2": lambda: rollback(store, operator=packages.OPERATOR, to=2, smoke=lambda: PASS),
        "rollback to what was found": lambda: rollback(store, operator=packages.OPERATOR, to=1, smoke=lambda: PASS),
        "repair": lambda: repair(store, release(), smoke=lambda: PASS, toolkit=toolkit),
        "a failing install": lambda: world.install(world.package("5"), smoke=FAIL),
        "uninstall": lambda: uninstall(store),
        "rollback of that": lambda: rollback(store, operator=packages.OPERATOR, smoke=lambda: PASS),
        "recover": lambda: recover_store(store),
    }


def attempt(work: Callable[[], object]) -> tuple[str, list[str]]:
    """(error code or '', violations) of one command."""
    try:
        work()
    except SmallqError as error:
        if error.exit_status == 1 or not error.message:
            return error.code, [f"no answer: {error.code} {error.message}"]
        return error.code, []
    except BaseException:
        return "CRASH", [traceback.format_exc(limit=-5)]
    return "", []


def settle(scene: Scene) -> list[str]:
    """Without the attack: recovery, an install, a purge; the invariants after each."""
    found: list[str] = []
    for name, work in (
        ("recover", lambda: recover_store(scene.store)),
        ("install", lambda: scene.world.install(scene.world.package("4"))),
    ):
        code, bad = attempt(work)
        found += [f"afterwards, {name}: {text}" for text in [*bad, *([code] if code else [])]]
    found += settled_problems(scene.store, (live_digest(scene.store),), scene.others)
    code, bad = attempt(lambda: uninstall(scene.store, purge=True))
    found += [f"afterwards, purge: {text}" for text in [*bad, *([code] if code else [])]]
    if scene.store.exists or scene.store.live.exists():
        found.append("afterwards: the purge left something")
    return found


def attack(root: Path, name: str) -> list[str]:
    scene = Scene(root)
    ATTACKS[name](scene)
    found = []
    for command, work in commands(scene).items():
        code, bad = attempt(work)
        bad += scene.harm()
        if command == "install" and CODES.get(name, code) != code:
            bad.append(f"it answers {code or 'nothing'} instead of {CODES[name] or 'nothing'}")
        if os.path.lexists(scene.root / "nowhere"):
            bad.append("a file was made through a dangling link")
        found += [f"{name}, {command}: {text}" for text in bad]
        if bad:
            return found
    scene.take_away()
    lost = name in ("a kept package is another one", "all trees of generations are links", "a kept package is a pipe")
    problems = settle(scene)
    found += [f"{name}, {text}" for text in problems if not (lost and text.startswith("I1: the tree of generation"))]
    return found + [f"{name}, purge: {text}" for text in scene.harm()]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on a memory file system."""
    home = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=home, ignore_cleanup_errors=True) as directory:
        yield Path(directory)
        subprocess.run(["rm", "-rf", "--", *map(str, Path(directory).iterdir())], check=True)


@pytest.mark.parametrize("part", range(_PARTS))
def test_what_stands_in_the_way(part: int, memory: Path, fault_row: FaultRow) -> None:
    if os.geteuid() != 0:
        fault_row.skip("9", "device nodes and foreign owners need root")
    names = sorted(ATTACKS)[part::_PARTS][:: 1 if FULL else 6]
    violations: list[str] = []
    for number, name in enumerate(names):
        place = memory / str(number)
        place.mkdir()
        violations += in_child(lambda place=place, name=name: attack(place, name), patience=_PATIENCE)  # type: ignore[misc]
    fault_row("9", len(names), violations, what=f"part {part + 1} of {_PARTS}, all commands each")


# --- attackers at work while commands run ---


def flip(first: Path, second: Path) -> int:
    """A process that exchanges two directory entries for ever; killed by the caller."""
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                rename_exchange(first, second)
                time.sleep(0.0005)
        finally:
            os._exit(0)
    return pid


def raced(root: Path, which: str, rounds: int) -> list[str]:
    """Commands while an attacker exchanges something with a link (``which``), over and over."""
    scene = Scene(root)
    store = scene.store
    places = {
        "live": (store.live, scene.foreign),
        "live and a vendor tree": (store.live, scene.foreign / "customize"),
        "config.ini": (store.config_ini, scene.foreign / "file"),
        "the package": (scene.world.root / "op-3.run", scene.world.root / "op-5.run"),
        "a file of the live tree": (store.live / "version.info", scene.foreign / "file"),
        "a directory of the live tree": (store.live / "op_api", scene.foreign / "tree" / "op_api"),
        "a generation's tree": (store.tree_dir(2), scene.foreign / "tree"),
        "the kept package": (store.package_file(2), scene.foreign / "file"),
    }
    place, target = places[which]
    trick = scene.root / "trick"
    os.symlink(target, trick)
    found: list[str] = []
    for _ in range(rounds):
        pid = flip(place, trick)
        try:
            for command, work in commands(scene).items():
                _, bad = attempt(work)
                found += [f"{which}, {command}: {text}" for text in [*bad, *scene.harm()]]
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if found:
            return found
    return found


@pytest.mark.parametrize(
    "which",
    [
        *("live", "live and a vendor tree", "config.ini", "the package", "a file of the live tree"),
        *("a directory of the live tree", "a generation's tree", "the kept package"),
    ],
)
def test_an_attacker_who_exchanges_while_we_work(which: str, memory: Path, fault_row: FaultRow) -> None:
    if not FULL and which not in ("live", "config.ini", "a generation's tree"):
        pytest.skip("in make faults")
    violations = in_child(lambda: raced(memory, which, 8 if FULL else 1), patience=_PATIENCE)
    fault_row("9", 1, violations, what=f"{which} exchanged with a link all the time")


def test_links_and_pipes_met_by_the_command(
    fresh_toolkit: Callable[..., Path], operator_package: Path, memory: Path
) -> None:
    """The real command: a documented exit status and one JSON document, soon; what the links lead to stays."""
    root = fresh_toolkit()
    (vendors,) = (path.resolve() / "vendors" for path in root.glob("cann-*/opp"))
    foreign = memory / "etc"
    foreign.mkdir()
    (foreign / "file").write_text("theirs")
    before = fingerprint(foreign)
    home = vendors / ".smallq-deploy"
    for path, make, code in (
        (home, lambda path: os.symlink(foreign, path), "NOT_PLAIN"),
        (vendors / "customize", lambda path: os.symlink(foreign, path), "LIVE_NOT_A_DIRECTORY"),
        (vendors / "config.ini", os.mkfifo, "CONFIG_NOT_A_FILE"),
        (home / "journal", os.mkfifo, "NOT_PLAIN"),
    ):
        path.parent.mkdir(exist_ok=True)
        make(path)
        for command in (["install", str(operator_package)], ["recover"]):
            done = subprocess.run(
                [sys.executable, "-m", "smallq_deploy", *command, "--cann", str(root), "--json"],
                capture_output=True,
                text=True,
                timeout=60,
            )
            answer = json.loads(done.stdout)
            codes = [error["code"] for error in answer["errors"]]
            assert done.returncode == answer["exit_status"] and "Traceback" not in done.stderr, (path, command)
            assert "INTERNAL" not in codes, (path, command, answer)
            if command[0] == "install":
                assert (codes, done.returncode) == ([code], 7), (path, answer)
            assert differences(before, fingerprint(foreign)) == []
        path.unlink()


def test_a_package_replaced_after_the_plan(memory: Path) -> None:
    """What was looked at is what is installed, or nothing is."""
    scene = Scene(memory)
    plan = scene.world.plan(scene.world.root / "op-3.run")
    os.replace(scene.world.root / "op-5.run", scene.world.root / "op-3.run")
    before = fingerprint(scene.store.live)
    from smallq_deploy.operate.installer import install

    with pytest.raises(SmallqError) as caught:
        install(plan, smoke=lambda: PASS)
    assert caught.value.code == "PACKAGE_CHANGED"
    assert differences(before, fingerprint(scene.store.live)) == []


def test_a_vendors_directory_that_everybody_may_write_is_mentioned(memory: Path) -> None:
    scene = Scene(memory)
    scene.store.vendors.chmod(0o777)
    warnings = scene.world.plan(scene.world.root / "op-3.run").warnings
    assert any("every user of this machine can replace" in text and "0777" in text for text in warnings)


def test_harm_is_seen(memory: Path) -> None:
    """The comparison that every attack ends with sees a byte, a mode, a time, an owner and a new name."""
    scene = Scene(memory)
    for harm in (
        lambda: (scene.foreign / "file").write_text("x"),
        lambda: (scene.foreign / "lock").chmod(0o644),
        lambda: os.utime(scene.foreign / "owner", ns=(1, 1)),
        lambda: os.chown(scene.foreign / "state", 1, 1),
        lambda: (scene.foreign / "shut" / "new").touch(),
    ):
        before = len(scene.harm())
        harm()
        assert len(scene.harm()) > before
