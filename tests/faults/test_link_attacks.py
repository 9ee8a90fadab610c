"""Links, hard links, pipes and devices put where smallq-deploy reads and writes (row 9).

Every command runs against every attack. Nothing outside the vendors directory may change: not a byte, mode, owner or
time of the sentinel tree; nothing may hang; every refusal is an error with a code. When the attack is taken away, the
next command settles everything.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import stat
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
from tests.support.faultrows import FULL, FaultRow
from tests.support.hostile import differences, fingerprint
from tests.support.opp import FAIL, PASS, World, environment, release
from tests.support.world import live_digest, others_digest, settled_problems

_PATIENCE = 30  # seconds for all commands of one attack
_PARTS = 4


class Scene:
    """A machine with two generations installed, and a tree of somebody else's beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.world = World(self.root / "machine")
        self.world.root.mkdir()
        self.world.make()
        self.store = self.world.store
        for content in "12":
            self.world.install(self.world.package(content))
        for content in "345":
            self.world.package(content)
        self.others = others_digest(self.store)
        self.foreign = self.root / "etc"
        packages.make_vendor_tree(self.foreign / "customize", content="0")  # what a nested tree would look like
        packages.make_vendor_tree(self.foreign / "tree")
        for name in ("file", "config.ini", "uninstall.sh", "set_env.bash", "journal", "lock", "owner"):
            (self.foreign / name).write_text(f"the {name} of somebody else\n")
            (self.foreign / name).chmod(0o640)
        for name in ("state", "history"):
            shutil.copy2(self.store.root / name, self.foreign / name)
        shutil.copy2(self.store.config_ini, self.foreign / "vendors.ini")
        (self.foreign / "shut").mkdir(mode=0o700)
        (self.foreign / "shut" / "secret").write_text("secret")
        self.planted: list[tuple[Path, int, Path | None]] = []
        self.before = fingerprint(self.foreign)

    @property
    def live(self) -> Path:
        return self.store.live

    def put(self, path: Path, make: Callable[[Path], object]) -> None:
        """Put what ``make`` makes at ``path``; what was there is kept aside."""
        aside = None
        if os.path.lexists(path):
            aside = self.root / f"aside-{len(self.planted)}"
            os.rename(path, aside)
        missing = [parent for parent in path.parents if not os.path.lexists(parent)]
        path.parent.mkdir(parents=True, exist_ok=True)
        if missing:
            self.planted.append((missing[-1], missing[-1].lstat().st_ino, None))
        make(path)
        self.planted.append((path, path.lstat().st_ino, aside))

    def link(self, path: Path, target: str | Path) -> None:
        self.put(path, lambda place: os.symlink(target, place))

    def hard(self, path: Path, name: str) -> None:
        self.put(path, lambda place: os.link(self.foreign / name, place))

    def pipe(self, path: Path) -> None:
        self.put(path, os.mkfifo)

    def device(self, path: Path) -> None:
        """/dev/zero, which can be read for ever."""
        self.put(path, lambda place: os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5)))

    def take_away(self) -> None:
        """Remove what was planted where it still is."""
        for path, inode, aside in reversed(self.planted):
            if os.path.lexists(path) and path.lstat().st_ino == inode:
                subprocess.run(["rm", "-rf", "--", str(path)], check=True)  # also what is 1,500 deep
                if aside is not None:
                    os.rename(aside, path)

    def harm(self) -> list[str]:
        return [f"{path} was changed" for path in differences(self.before, fingerprint(self.foreign))]


ATTACKS: dict[str, Callable[[Scene], None]] = {
    # the vendors directory
    "vendors is a link": lambda s: s.link(s.store.vendors, s.foreign),
    "vendors is a dangling link": lambda s: s.link(s.store.vendors, s.root / "nowhere"),
    "vendors is a pipe": lambda s: s.pipe(s.store.vendors),
    # the live directory
    "live is a link": lambda s: s.link(s.store.live, s.foreign),
    "live is a link to a vendor tree": lambda s: s.link(s.store.live, s.foreign / "customize"),
    "live is a dangling link": lambda s: s.link(s.store.live, s.root / "nowhere"),
    "live is a link to itself": lambda s: s.link(s.store.live, s.store.live),
    "live is a pipe": lambda s: s.pipe(s.store.live),
    "live is a hard link to a file": lambda s: s.hard(s.store.live, "file"),
    "live is a socket": lambda s: s.put(s.store.live, _socket),
    # the store
    "the store is a link": lambda s: s.link(s.store.root, s.foreign),
    "the store is a dangling link": lambda s: s.link(s.store.root, s.root / "nowhere"),
    "the store is a hard link": lambda s: s.hard(s.store.root, "file"),
    "generations is a link": lambda s: s.link(s.store.generations, s.foreign),
    "staging is a link": lambda s: s.link(s.store.root / "staging", s.foreign),
    "staging is a dangling link": lambda s: s.link(s.store.root / "staging", s.root / "nowhere"),
    "a link lies in staging": lambda s: s.link(s.store.root / "staging" / "dead", s.foreign),
    "links and hard links lie deep in staging": lambda s: _litter(s),
    "a generation is a link": lambda s: s.link(s.store.generation_dir(1), s.foreign),
    "a generation too many is a link": lambda s: s.link(s.store.generation_dir(77), s.foreign),
    "the tree of a generation is a link": lambda s: s.link(s.store.tree_dir(2), s.foreign / "tree"),
    "all trees of generations are links": lambda s: _links_for_trees(s),
    "a generation's record is a link": lambda s: s.link(s.store.generation_dir(2) / "generation", s.foreign / "file"),
    "a generation's manifest is a pipe": lambda s: s.pipe(s.store.generation_dir(3) / "manifest"),
    "a kept package is a pipe": lambda s: _pipe_for_package(s),
    "a kept package is another one": lambda s: _swapped_package(s),
    # files of ours
    **{
        f"{name} is a link": lambda s, name=name: s.link(s.store.root / name, s.foreign / name)  # type: ignore[misc]
        for name in ("lock", "owner", "journal", "state", "history")
    },
    **{
        f"{name} is a dangling link": lambda s, name=name: s.link(s.store.root / name, s.root / "nowhere")  # type: ignore[misc]
        for name in ("lock", "owner", "journal")
    },
    **{
        f"{name} is a hard link": lambda s, name=name: s.hard(s.store.root / name, name)  # type: ignore[misc]
        for name in ("lock", "owner", "journal", "state", "history")
    },
    **{
        f"{name} is a pipe": lambda s, name=name: s.pipe(s.store.root / name)  # type: ignore[misc]
        for name in ("lock", "owner", "journal", "state", "history")
    },
    "state is a device": lambda s: s.device(s.store.state),
    "history is a directory": lambda s: s.put(s.store.history, os.mkdir),
    # temporaries
    **{
        f"{name} is a link": lambda s, name=name: s.link(s.store.root / name, s.foreign / "file")  # type: ignore[misc]
        for name in (".journal.new", ".state.new")
    },
    **{
        f"{name} is a hard link": lambda s, name=name: s.hard(s.store.root / name, "file")  # type: ignore[misc]
        for name in (".journal.new", ".state.new")
    },
    ".journal.new is a pipe": lambda s: s.pipe(s.store.root / ".journal.new"),
    ".config.ini.new is a link": lambda s: s.link(s.store.vendors / ".config.ini.new", s.foreign / "file"),
    ".config.ini.new is a hard link": lambda s: s.hard(s.store.vendors / ".config.ini.new", "file"),
    ".config.ini.new is a directory": lambda s: s.put(s.store.vendors / ".config.ini.new", os.mkdir),
    # config.ini
    "config.ini is a link": lambda s: s.link(s.store.config_ini, s.foreign / "vendors.ini"),
    "config.ini is a dangling link": lambda s: s.link(s.store.config_ini, s.root / "nowhere"),
    "config.ini is a hard link": lambda s: s.hard(s.store.config_ini, "vendors.ini"),
    "config.ini is a pipe": lambda s: s.pipe(s.store.config_ini),
    "config.ini is a device": lambda s: s.device(s.store.config_ini),
    # inside the live tree
    "a link in the live tree": lambda s: s.link(s.live / "op_api" / "include" / "out", s.foreign),
    "op_api is a link": lambda s: s.link(s.live / "op_api", s.foreign / "tree" / "op_api"),
    "vendors in the live tree is a link": lambda s: s.link(s.live / "vendors", s.foreign),
    "vendors/customize in the live tree is a link": lambda s: s.link(
        s.live / "vendors" / "customize", s.foreign / "customize"
    ),
    "scripts in the live tree is a link": lambda s: s.link(s.live / "scripts", s.foreign),
    "bin in the live tree is a link": lambda s: s.link(s.live / "bin", s.foreign),
    "set_env.bash is a link": lambda s: s.link(s.live / "bin" / "set_env.bash", s.foreign / "set_env.bash"),
    "set_env.bash is a hard link": lambda s: s.hard(s.live / "bin" / "set_env.bash", "set_env.bash"),
    "set_env.bash is a pipe": lambda s: s.pipe(s.live / "bin" / "set_env.bash"),
    "an inner config.ini is a link": lambda s: s.link(s.live / "config.ini", s.foreign / "config.ini"),
    "a file of the live tree is a hard link": lambda s: s.hard(s.live / "version.info", "file"),
    "a link to what only its owner reads": lambda s: s.link(s.live / "op_api" / "s", s.foreign / "shut" / "secret"),
    "the library is a pipe": lambda s: s.pipe(s.live / "op_api" / "lib" / "libcust_opapi.so"),
    "the library is a device": lambda s: s.device(s.live / "op_api" / "lib" / "libcust_opapi.so"),
    "the operator list is a pipe": lambda s: s.pipe(
        s.live / f"op_impl/ai_core/tbe/config/{packages.UNIT}/aic-{packages.UNIT}-ops-info.json"
    ),
    "the kernel index is a device": lambda s: s.device(
        s.live / f"op_impl/ai_core/tbe/kernel/config/{packages.UNIT}/binary_info_config.json"
    ),
    "the live tree is 1,500 deep": lambda s: _deep(s),
    # another vendor, the package
    "another vendor is a link": lambda s: s.link(s.store.vendors / "third", s.foreign / "customize"),
    "another vendor's operator list is a pipe": lambda s: s.pipe(
        s.store.vendors / f"third/op_impl/ai_core/tbe/config/{packages.UNIT}/aic-{packages.UNIT}-ops-info.json"
    ),
    "the package is a pipe": lambda s: s.pipe(s.world.root / "op-3.run"),
    "the package is a link to a device": lambda s: s.link(s.world.root / "op-3.run", "/dev/zero"),
    "the package is a link to a foreign file": lambda s: s.link(s.world.root / "op-3.run", s.foreign / "file"),
}
# What these must answer to the install, whatever else they do.
CODES = {
    "vendors is a link": "VENDORS_IS_LINK",
    "live is a link": "LIVE_NOT_A_DIRECTORY",
    "live is a dangling link": "LIVE_NOT_A_DIRECTORY",
    "live is a pipe": "LIVE_NOT_A_DIRECTORY",
    "the store is a link": "NOT_PLAIN",
    "generations is a link": "NOT_PLAIN",
    "staging is a link": "NOT_PLAIN",
    "lock is a pipe": "NOT_PLAIN",
    "journal is a link": "NOT_PLAIN",
    "state is a device": "NOT_PLAIN",
    "config.ini is a link": "CONFIG_NOT_A_FILE",
    "config.ini is a pipe": "CONFIG_NOT_A_FILE",
    "config.ini is a hard link": "",
    "history is a hard link": "",
    "owner is a hard link": "",
    ".journal.new is a link": "",
    ".state.new is a hard link": "",
    "scripts in the live tree is a link": "",
    "the library is a pipe": "",
    "the package is a pipe": "PACKAGE_NOT_FOUND",
    "the package is a link to a device": "PACKAGE_NOT_FOUND",
    "the package is a link to a foreign file": "NOT_A_RUN",
}


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _litter(scene: Scene) -> None:
    """What a dead run could have left, with an attacker's additions and without permission."""
    place = scene.store.root / "staging" / "dead" / "tree"
    place.mkdir(parents=True)
    os.link(scene.foreign / "file", place / "hard")
    os.symlink(scene.foreign, place / "soft")
    os.symlink(scene.foreign / "file", place / "file")
    place.chmod(0)


def _links_for_trees(scene: Scene) -> None:
    for number in (1, 2):
        scene.link(scene.store.tree_dir(number), scene.foreign / "tree")


def _pipe_for_package(scene: Scene) -> None:
    """Of generation 2, whose tree is gone."""
    scene.pipe(scene.store.package_file(2))
    shutil.rmtree(scene.store.tree_dir(2))


def _swapped_package(scene: Scene) -> None:
    """The tree of generation 2 is gone, and its kept package is a whole one, but another."""
    scene.put(scene.store.package_file(2), lambda path: shutil.copyfile(scene.world.root / "op-3.run", path))
    shutil.rmtree(scene.store.tree_dir(2))


def _deep(scene: Scene) -> None:
    here = os.open(scene.live, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    scene.planted.append((scene.live / "d", (scene.live / "d").lstat().st_ino, None))


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


def in_child(work: Callable[[], list[str]]) -> list[str]:
    """The violations that ``work`` finds in a forked child; a hang is one too."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        answer = ["the child died"]
        try:
            answer = work()
        except BaseException:
            answer = [traceback.format_exc(limit=-5)]
        finally:
            with os.fdopen(writer, "w") as stream:
                json.dump(answer, stream)
            os._exit(0)
    os.close(writer)
    data = b""
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while select.select([stream], [], [], _PATIENCE)[0]:
            part = stream.read(1 << 16)
            if not part:
                break
            data += part
        else:
            os.kill(pid, signal.SIGKILL)
            data = b'["it hangs"]'
    os.waitpid(pid, 0)
    found: list[str] = json.loads(data)
    return found


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
        violations += in_child(lambda place=place, name=name: attack(place, name))  # type: ignore[misc]
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
    violations = in_child(lambda: raced(memory, which, 8 if FULL else 1))
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
