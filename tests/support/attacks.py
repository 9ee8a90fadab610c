"""What can be put in the way: links, hard links, pipes and devices where smallq-deploy reads and writes."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support import packages
from tests.support.hostile import differences, fingerprint
from tests.support.opp import World
from tests.support.world import others_digest


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
