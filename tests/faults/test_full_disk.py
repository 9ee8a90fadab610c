"""File systems without room (row 6): refused before anything is written, and undone when the look beforehand was wrong.

Each test runs in a forked child with a mount namespace of its own, on real tmpfs and ext4 mounts of an exact size.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.operate.mover import recover_store, rollback, uninstall
from smallq_deploy.store.generations import list_generations
from tests.support import packages
from tests.support.faultrows import FULL, FaultRow
from tests.support.hostile import differences, fingerprint
from tests.support.killer import Victim, why_not
from tests.support.mounts import mount, with_own_mounts
from tests.support.opp import PASS, World
from tests.support.world import live_digest, others_digest, settled_problems, world_problems

_PAGE = 4096
# What is missing, in percent of what is needed; and 1, 2, 4 and 8 pages.
_PERCENT = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 95, 100)
_PAGES = (1, 2, 4, 8)


class Disk:
    """A machine on a file system whose free space is chosen to the page."""

    def __init__(self, place: Path, beside: Path) -> None:
        self.place = place
        self.world = World(place / "w").make()
        first = self.world.package("1")
        self.world.install(first)
        self.package = self.world.package("2")
        self.store = self.world.store
        self.others = others_digest(self.store)
        self.old = live_digest(self.store)
        self.filler = place / "filler"
        # What an install really takes, tried on a machine just like this one.
        subprocess.run(["cp", "-a", str(place), str(beside)], check=True)
        trial = World(beside / place.name / "w" if (beside / place.name).is_dir() else beside / "w")
        before = _used(trial.root)
        trial.install(trial.root / "op-2.run")
        self.taken = _used(trial.root) - before
        self.wanted = self.world.plan(self.package).space_needed

    def leave(self, size: int) -> None:
        """Fill the disk so that ``size`` bytes are free for us."""
        self.filler.unlink(missing_ok=True)
        with open(self.filler, "wb") as stream:
            while True:
                volume = os.statvfs(self.place)
                too_much = (volume.f_bavail * volume.f_frsize - max(size, 0)) // volume.f_frsize
                if too_much <= 0:
                    return
                try:
                    os.posix_fallocate(stream.fileno(), os.fstat(stream.fileno()).st_size, too_much * volume.f_frsize)
                except OSError:
                    return  # as full as it gets


def _used(root: Path) -> int:
    text = subprocess.run(["du", "-s", "--block-size=1", str(root)], capture_output=True, text=True, check=True).stdout
    return int(text.split()[0])


@contextmanager
def believing_there_is_room() -> Iterator[None]:
    """The look beforehand is told that there is plenty; the file system itself says no."""

    class Roomy:
        f_bavail, f_frsize, f_favail, f_files, f_flag = 10**9, 4096, 10**9, 10**9, 0

    real = os.statvfs
    os.statvfs = lambda path: Roomy  # type: ignore[assignment,return-value]
    try:
        yield
    finally:
        os.statvfs = real


def sizes(need: int) -> list[int]:
    """The free space of each try."""
    found = [need - pages * _PAGE for pages in _PAGES] + [need - need * percent // 100 for percent in _PERCENT]
    return sorted(set(found if FULL else found[:: len(found) // 5]), reverse=True)


def refused_and_undone(disk: Disk) -> list[str]:
    """Every size, refused by the plan; then every size again with the plan fooled."""
    bad: list[str] = []
    store = disk.store
    for free in sizes(disk.wanted):
        disk.leave(free)
        before = fingerprint(store.vendors)
        try:
            disk.world.install(disk.package)
            bad.append(f"{free} bytes free: installed, though the plan wants {disk.wanted}")
        except SmallqError as error:
            numbers = [int(text.replace(",", "")) for text in re.findall(r"([\d,]+) KiB", error.message)]
            if (error.code, int(error.exit_status)) != ("NO_SPACE", 8) or str(store.vendors) not in error.message:
                bad.append(f"{free} bytes free: {error.code} {error.message}")
            elif len(numbers) != 2 or not numbers[1] < numbers[0]:
                bad.append(f"{free} bytes free: the message has no such numbers: {error.message}")
        if changed := differences(before, fingerprint(store.vendors)):
            bad.append(f"{free} bytes free: refused, but {changed[0]} was changed")
    for free in sizes(disk.taken):
        disk.leave(free)
        code = ""
        with believing_there_is_room():
            try:
                disk.world.install(disk.package)
            except SmallqError as error:
                code = error.code
                if code == "NO_SPACE" and int(error.exit_status) != 8:
                    bad.append(f"fooled, {free} bytes free: exit status {int(error.exit_status)}")
                if code not in ("NO_SPACE", "UNDO_FAILED", "UNFINISHED"):
                    bad.append(f"fooled, {free} bytes free: {code} {error.message}")
                if code == "NO_SPACE" and (store.journal.exists() or live_digest(store) != disk.old):
                    bad.append(f"fooled, {free} bytes free: not as before")
        disk.filler.unlink()
        # Where the full disk stopped even the end of it, recovery comes to old or new once there is room.
        now = live_digest(store)
        allowed = (disk.old,) if code == "NO_SPACE" else (disk.old, now)
        bad += [f"fooled, {free} bytes free, {code}: {text}" for text in world_problems(store, allowed, disk.others)]
        if live_digest(store) != disk.old:
            rollback(store, operator=packages.OPERATOR, to=2, smoke=lambda: PASS)
    disk.filler.unlink(missing_ok=True)
    disk.world.install(disk.package)
    if not list_generations(store)[-1].proven:
        bad.append("with room again: not installed")
    return bad


def test_every_size_of_a_memory_file_system(tmp_path: Path, fault_row: FaultRow) -> None:
    fault_row.need("6")

    def body() -> list[str]:
        for name in ("disk", "beside"):
            (tmp_path / name).mkdir()
            mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", tmp_path / name)
        return refused_and_undone(Disk(tmp_path / "disk", tmp_path / "beside"))

    fault_row("6", len(sizes(10**6)), with_own_mounts(body), what="tmpfs, refused and, fooled, undone")


def test_every_size_of_ext4(tmp_path: Path, fault_row: FaultRow) -> None:
    fault_row.need("4 ext4")

    def body() -> list[str]:
        for name in ("disk", "beside"):
            image = tmp_path / f"{name}.img"
            with open(image, "wb") as stream:
                stream.truncate(24 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
            (tmp_path / name).mkdir()
            mount("-o", "loop", image, tmp_path / name)
        return refused_and_undone(Disk(tmp_path / "disk", tmp_path / "beside"))

    fault_row("6", len(sizes(10**6)), with_own_mounts(body), what="ext4, refused and, fooled, undone")


@pytest.mark.parametrize("left", [0, 1, 5, 20, 40] if FULL else [0, 20])
def test_no_inodes_left(tmp_path: Path, fault_row: FaultRow, left: int) -> None:
    fault_row.need("6")

    def body() -> list[str]:
        (tmp_path / "disk").mkdir()
        mount("-t", "tmpfs", "-o", "size=24m,nr_inodes=600", "tmpfs", tmp_path / "disk")
        world = World(tmp_path / "disk" / "w").make()
        world.install(world.package("1"))
        package = world.package("2")
        old, others = live_digest(world.store), others_digest(world.store)
        litter = tmp_path / "disk" / "litter"
        litter.mkdir()
        for number in range(max(0, os.statvfs(litter).f_favail - left)):
            (litter / str(number)).touch()
        bad: list[str] = []
        before = fingerprint(world.store.vendors)
        for fooled in (False, True):
            code, message = "", ""
            try:
                if fooled:
                    with believing_there_is_room():
                        world.install(package)
                else:
                    world.install(package)
            except SmallqError as error:
                code, message = error.code, error.message
            if code != "NO_SPACE" or (not fooled and f"{os.statvfs(litter).f_favail} inodes free" not in message):
                bad.append(f"fooled {fooled}: {code} {message}")
            if not fooled and differences(before, fingerprint(world.store.vendors)):
                bad.append("refused, but something was changed")
        subprocess.run(["rm", "-r", str(litter)], check=True)
        return bad + world_problems(world.store, (old,), others)

    fault_row("6", 1, with_own_mounts(body), what=f"{left} inodes left")


def test_rollback_uninstall_and_recovery_need_next_to_no_room(tmp_path: Path, fault_row: FaultRow) -> None:
    """The ways back must not be closed by what one wants to go back from: a full disk."""
    fault_row.need("6")

    def body() -> list[str]:
        (tmp_path / "disk").mkdir()
        (tmp_path / "beside").mkdir()
        mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", tmp_path / "disk")
        disk = Disk(tmp_path / "disk", tmp_path / "beside")
        disk.world.install(disk.package)
        new = live_digest(disk.store)
        bad = []
        disk.leave(8 * _PAGE)
        rollback(disk.store, operator=packages.OPERATOR, smoke=lambda: PASS)
        if live_digest(disk.store) != disk.old:
            bad.append("not rolled back")
        disk.leave(8 * _PAGE)
        uninstall(disk.store)
        if disk.store.live.exists():
            bad.append("not uninstalled")
        disk.leave(8 * _PAGE)
        rollback(disk.store, operator=packages.OPERATOR, to=3, smoke=lambda: PASS)
        recover_store(disk.store)
        return bad + list(settled_problems(disk.store, (new,), disk.others))

    fault_row("6", 1, with_own_mounts(body), what="ways back with 8 pages free")


def test_a_quota(fault_row: FaultRow) -> None:
    """A quota is what statfs does not tell: the plan sees room, a write is refused (EDQUOT, injected)."""
    if reason := why_not():
        fault_row.skip("6", f"no strace: {reason}")
    import tempfile

    home = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    bad: list[str] = []
    points = (1, 2, 4, 6, 9, 12, 15, 18, 21, 24) if FULL else (2, 18)
    with tempfile.TemporaryDirectory(dir=home) as directory, Victim() as victim:
        world = World(Path(directory)).make()
        world.install(world.package("1"))
        package = world.package("2")
        old, others = live_digest(world.store), others_digest(world.store)
        for number in points:
            inject = f"inject=write:error=EDQUOT:when={number}"
            ended = victim.run((directory, "install", str(package)), "-e", "trace=write", "-e", inject)
            if ended not in (8, 12):
                bad.append(f"write {number}: exit status {ended}")
            if ended == 8 and live_digest(world.store) != old:
                bad.append(f"write {number}: not as before")
            # 12: the decision had been taken, and recovery completes it.
            allowed = (old,) if ended == 8 else (old, live_digest(world.store))
            bad += [f"write {number}: {text}" for text in world_problems(world.store, allowed, others)]
            if live_digest(world.store) != old:
                rollback(world.store, operator=packages.OPERATOR, to=2, smoke=lambda: PASS)
    fault_row("6", len(points), bad, what="a quota hit at the n-th write")
