"""Row 15: whatever is changed below the live directory is found, named and lettered; nothing else ever is."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from smallq_deploy.base.errors import ConflictError
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.cli.envelope import dump
from smallq_deploy.cli.render import Bullets, Facts, Table, error_lines, plain_lines
from smallq_deploy.operate.mover import rollback
from smallq_deploy.operate.repair import repair
from smallq_deploy.operate.verifier import verify
from smallq_deploy.package.vendortree import API_LIBRARY, TBE
from smallq_deploy.store.paths import Store
from tests.cli.support import checked, smallq
from tests.support import packages
from tests.support.faultrows import FULL, FaultRow
from tests.support.opp import World, release

HEADER = "op_api/include/aclnn_smallq_flash_attention.h"
OPS_INFO = f"{TBE}/config/{packages.UNIT}/aic-{packages.UNIT}-ops-info.json"
SET_ENV = "bin/set_env.bash"
LINK = f"{TBE}/op_tiling/liboptiling.so"
KERNELS = f"{TBE}/kernel/{packages.UNIT}/smallq_flash_attention"
VERSION = "version.info"


@dataclass(frozen=True)
class Change:
    """What is done to ``path``, and the letters of exactly that entry (``missing`` also for everything below)."""

    kind: str
    path: str
    do: Callable[[Path], object]
    letters: str


def flip(path: Path) -> None:
    """Same size, another last byte."""
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def flip_and_hide(path: Path) -> None:
    """As somebody would who sets the time back."""
    info = path.stat()
    flip(path)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def append(path: Path) -> None:
    with open(path, "ab") as stream:
        stream.write(b"\n# more\n")


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def link_to(target: str) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        remove(path)
        path.symlink_to(target)

    return do


def link_to_a_copy(path: Path) -> None:
    """The link leads to the very same content, outside the tree."""
    copy = Path(os.environ["HOME"]) / f"copy of {path.name}"
    if path.is_dir():
        shutil.copytree(path, copy, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(path, copy)
    link_to(str(copy))(path)


def make_directory(path: Path) -> None:
    remove(path)
    path.mkdir()


def make_file(path: Path) -> None:
    remove(path)
    path.write_text("")


def cut(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size)


def cut_and_fill(path: Path) -> None:
    """As a crash of a file system leaves it: the size is there, the content is not."""
    size = path.stat().st_size
    os.truncate(path, size // 2)
    os.truncate(path, size)


def mode(bits: int) -> Callable[[Path], None]:
    return lambda path: path.chmod(bits)


def changes(kernel: str, record: str) -> list[Change]:
    """``kernel`` and ``record``: paths of the kernel's .o and .json."""
    library = str(API_LIBRARY)
    edited = [(HEADER, flip), (library, flip), (kernel, flip), (record, flip), (SET_ENV, flip), (VERSION, flip)]
    return [
        *(Change("edit", path, do, "..5.T") for path, do in edited),
        Change("edit, time set back", library, flip_and_hide, "..5.."),
        Change("edit, time set back", kernel, flip_and_hide, "..5.."),
        *(Change("edit", path, append, "S.5.T") for path in (HEADER, kernel, OPS_INFO, SET_ENV)),
        *(Change("delete", path, remove, "missing") for path in (HEADER, library, kernel, record, SET_ENV, OPS_INFO)),
        *(Change("delete", path, remove, "missing") for path in (LINK, "op_api/include", KERNELS)),
        Change("add", "op_api/new.h", lambda path: path.write_text("x"), "added"),
        Change("add", f"{KERNELS}/Stray.o", lambda path: path.write_bytes(b"\x7fELF"), "added"),
        Change("add", ".hidden", lambda path: path.write_text(""), "added"),
        Change("add", "op_api/empty", lambda path: path.mkdir(), "added"),
        Change("add", "op_api/lib/libother.so", lambda path: path.symlink_to("libcust_opapi.so"), "added"),
        Change("add", "op_api/nowhere", lambda path: path.symlink_to("/does/not/exist"), "added"),
        Change("add", "op_api/hard", lambda path: os.link(path.parent / "lib" / Path(library).name, path), "added"),
        Change("add", "op_api/a\nb \x1b[2J", lambda path: path.write_text("x"), "added"),
        Change("add", os.fsdecode(b"op_api/\xff\xfe"), lambda path: path.write_text("x"), "added"),
        Change("add", "op_api/pipe", lambda path: os.mkfifo(path), "added"),
        Change("chmod", HEADER, mode(0o600), ".M..."),
        Change("chmod", library, mode(0o4755), ".M..."),
        Change("chmod", kernel, mode(0o755), ".M..."),
        Change("chmod", SET_ENV, mode(0o444), ".M..."),
        Change("chmod", OPS_INFO, mode(0o666), ".M..."),
        Change("chmod", "op_api", mode(0o700), ".M..."),
        Change("chmod", KERNELS, mode(0o1777), ".M..."),
        Change("replace by link", HEADER, link_to("/etc/hostname"), ".M.L."),
        Change("replace by link", library, link_to_a_copy, ".M.L."),
        Change("replace by link", kernel, link_to("/does/not/exist"), ".M.L."),
        Change("replace by link", SET_ENV, link_to("../version.info"), ".M.L."),
        Change("replace by link", "op_api", link_to_a_copy, ".M.L."),
        Change("replace by link", KERNELS, link_to(".."), ".M.L."),
        Change("replace by link", LINK, link_to("elsewhere.so"), "...L."),
        Change("replace by a directory", HEADER, make_directory, ".M..."),
        Change("replace by a file", "op_proto", make_file, ".M..."),
        Change("truncate", HEADER, cut(0), "S.5.T"),
        Change("truncate", library, cut(100), "S.5.T"),
        Change("truncate", kernel, cut(1), "S.5.T"),
        Change("truncate", record, cut(10), "S.5.T"),
        Change("truncate", SET_ENV, cut(20), "S.5.T"),
        Change("truncate", OPS_INFO, cut(0), "S.5.T"),
        Change("truncate", library, cut_and_fill, "..5.T"),
        Change("truncate", record, cut_and_fill, "..5.T"),
    ]


def below(root: Path, path: str) -> set[str]:
    """Everything that goes with ``path`` when it is no directory any more."""
    place = root / path
    if place.is_symlink() or not place.is_dir():
        return set()
    return {str(item.relative_to(root)) for item in place.rglob("*")}


def kernel_files(live: Path) -> tuple[str, str]:
    (kernel,) = (live / KERNELS).glob("*.o")
    return str(kernel.relative_to(live)), str(kernel.with_suffix(".json").relative_to(live))


class Tree:
    """An installed world, and a copy to go back to after each change."""

    def __init__(self, live: Path, saved: Path, look: Callable[[], dict[str, str]]) -> None:
        self.live, self.saved, self.look = live, saved, look
        subprocess.run(["cp", "-a", str(live), str(saved)], check=True)

    def put_back(self) -> None:
        subprocess.run(["chmod", "-R", "u+rwX", str(self.live)], check=False, stderr=subprocess.DEVNULL)
        remove(self.live)
        subprocess.run(["cp", "-a", str(self.saved), str(self.live)], check=True)

    def try_out(self, change: Change) -> list[str]:
        """What ``verify`` says too much, too little or wrongly."""
        name = f"{change.kind} {change.path!r}"
        gone = below(self.live, change.path) if change.letters != "added" else set()
        change.do(self.live / change.path)
        wanted = {change.path: change.letters}
        if change.kind in ("delete", "replace by link", "replace by a file"):
            wanted |= dict.fromkeys(gone, "missing")
        found = self.look()
        self.put_back()
        wrong = [f"{name}: {path!r} is {found.get(path)}, not {wanted[path]}" for path in wanted]
        wrong = [text for text, path in zip(wrong, wanted, strict=True) if found.get(path) != wanted[path]]
        wrong += [f"{name}: also {path!r} is called {found[path]}" for path in found if path not in wanted]
        if left := self.look():
            wrong.append(f"after {name} was put back: false alarm {left}")
        return wrong


def through_the_library(world: World) -> dict[str, str]:
    report = verify(world.store, release(), unit=packages.UNIT, arch=packages.ARCH)
    if report.clean != (report.failure is None):
        return {"": "the report contradicts itself"}
    return {item.path: item.letters for item in report.differences}


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path).make(found="")
    made.install(made.package())
    return made


def test_every_change_is_found(world: World, tmp_path: Path, fault_row: FaultRow) -> None:
    tree = Tree(world.live, tmp_path / "saved", lambda: through_the_library(world))
    wrong, every = [], changes(*kernel_files(world.live))
    assert len({(change.kind, change.path, change.letters) for change in every}) == len(every)
    for change in every:
        wrong += tree.try_out(change)
    fault_row("15", len(every), wrong, what="a small package")


def test_several_changes_at_once_are_all_found(world: World) -> None:
    kernel, record = kernel_files(world.live)
    flip(world.live / kernel)
    (world.live / record).unlink()
    (world.live / HEADER).chmod(0o600)
    cut(3)(world.live / HEADER)
    link_to("x")(world.live / LINK)
    assert through_the_library(world) == {kernel: "..5.T", record: "missing", HEADER: "SM5.T", LINK: "...L."}


def test_the_command_tells_changes_of_the_real_operator(
    fresh_toolkit: Callable[..., Path], operator_package: Path, tmp_path: Path, fault_row: FaultRow
) -> None:
    """With the exit status, in JSON and in text; a name that is no text cannot break either."""
    if not FULL:
        pytest.skip("part of make faults")
    root = fresh_toolkit()
    ran = smallq("install", operator_package, "--cann", root, "--no-smoke", "--json")
    assert ran.status == 0, ran.stdout
    (opp,) = (path.resolve() for path in root.glob("cann-*/opp"))
    live = Store(opp).live

    def look() -> dict[str, str]:
        ran = smallq("verify", "--cann", root, "--json")
        found = {item["path"]: item["letters"] for item in checked(ran, "verify")["differences"]}
        assert ran.status == (10 if found else 0), ran.stdout
        if found:
            text = smallq("verify", "--cann", root)
            assert text.status == 10
            assert "\x1b[2J" not in text.stdout + text.stderr
            assert any(letters in text.stdout for letters in found.values())
        return found

    kernels = sorted((live / TBE / "kernel").rglob("*.o"))
    kernel, record = kernels[0], kernels[0].with_suffix(".json")
    tiling = next(path for path in (live / TBE / "op_tiling").rglob("*.so") if not path.is_symlink())
    tree = Tree(live, tmp_path / "saved", look)
    chosen = [
        Change("edit", str(API_LIBRARY), flip, "..5.T"),
        Change("edit", str(kernel.relative_to(live)), flip_and_hide, "..5.."),
        Change("delete", str(record.relative_to(live)), remove, "missing"),
        Change("truncate", str(tiling.relative_to(live)), cut(4096), "S.5.T"),
        Change("chmod", SET_ENV, mode(0o600), ".M..."),
        Change("replace by link", "op_api", link_to_a_copy, ".M.L."),
        Change("add", "op_api/a\nb \x1b[2J", lambda path: path.write_text("x"), "added"),
        Change("add", os.fsdecode(b"op_api/\xff\xfe"), lambda path: path.write_text("x"), "added"),
    ]
    wrong = [text for change in chosen for text in tree.try_out(change)]
    fault_row("15", len(chosen), wrong, what="the real operator, through the command")


@pytest.mark.parametrize(
    "name", ["a\nb", "\x1b[2Jx", "\r", "\x9b1A", "\u202egpj.exe", "\u200b", "\x00", os.fsdecode(b"\xff")]
)
def test_a_name_cannot_steer_the_terminal_nor_break_json(name: str) -> None:
    shown = plain_lines([Table(("differs", "path"), [("added", name)]), Facts([("path", name)]), Bullets("", [name])])
    shown += error_lines(ConflictError("X", f"{name} is there", hint=name))
    for line in shown:
        line.encode()
        assert all(char.isprintable() for char in line.replace("\n", "")), ascii(line)
    text = dump({"path": name})
    text.encode()
    assert json.loads(text) == {"path": name}


def test_no_false_alarm(world: World, tmp_path: Path) -> None:
    """After everything that makes a tree live, and after all that may happen to a tree without changing it."""
    alarms: list[str] = []

    def clean(what: str) -> None:
        before = tree_digest(world.opp)
        for again in ("", ", again"):
            report = verify(world.store, release(), unit=packages.UNIT, arch=packages.ARCH)
            if not report.clean or report.checked != sum(1 for _ in world.live.rglob("*")):
                alarms.append(f"{what}{again}: {report.to_dict()}")
        if tree_digest(world.opp) != before:
            alarms.append(f"{what}: verify changed something")

    clean("install")
    world.install(world.package("2"))
    clean("upgrade")
    rollback(world.store, operator=packages.OPERATOR)
    clean("rollback")
    rollback(world.store, operator=packages.OPERATOR)
    clean("rollback of the rollback")
    world.install(world.package("2"), reinstall=True)
    clean("reinstall")
    for method in ("renames", "copy"):
        world.install(world.package("1" if method == "copy" else "3"), method=method)
        clean(f"install by {method}")
    repair(world.store, release())
    clean("repair with nothing to repair")
    (world.live / SET_ENV).chmod(0o600)
    repair(world.store, release())
    assert stat.S_IMODE((world.live / SET_ENV).stat().st_mode) & 0o044 == 0o044
    clean("repair")
    for path in world.live.rglob("*"):
        info = path.lstat()
        os.utime(path, ns=(1, info.st_mtime_ns), follow_symlinks=False)
    clean("times of access")
    for path in world.live.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    clean("times of change alone")
    shutil.copytree(world.live, tmp_path / "copy", symlinks=True)
    remove(world.live)
    (tmp_path / "copy").rename(world.live)
    clean("a copy with other inodes")
    shutil.rmtree(world.live / "op_api" / "include")
    world.install(world.package("1"), reinstall=True)
    clean("installed again over drift")
    assert not alarms, "\n".join(alarms)
