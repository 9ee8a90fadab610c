"""Installs on file systems that refuse: a container image's layer, a read-only mount (full disks: test_full_disk.py).

Each test runs in a forked child with a mount namespace of its own; it needs root and the right to mount.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.operate.mover import rollback, uninstall
from smallq_deploy.store.generations import list_generations
from smallq_deploy.store.history import read_history
from tests.support import mounts, packages
from tests.support.faultrows import lacking
from tests.support.mounts import mount
from tests.support.opp import FAIL, PASS, World
from tests.support.world import live_digest, others_digest, settled_problems, world_problems


def with_own_mounts(test: Callable[[], None]) -> None:
    """Run ``test`` in a child whose mounts nobody else sees; skip where that is not allowed."""
    if reason := lacking("mounts"):
        pytest.skip(f"NO MOUNT TEST: {reason}")

    def body() -> list[str]:
        test()
        return []

    problems = mounts.with_own_mounts(body)
    assert not problems, problems[0]


def test_a_vendor_directory_from_an_image_layer(tmp_path: Path) -> None:
    """overlayfs answers EXDEV to every rename of a directory of a lower layer."""

    def body() -> None:
        lower = World(tmp_path / "lower").make()
        package, second = lower.package("1"), lower.package("2")
        for name in ("upper", "work", "merged"):
            (tmp_path / name).mkdir()
        layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work,redirect_dir=off"
        mount("-t", "overlay", "overlay", "-o", layers, tmp_path / "merged")
        world = World(tmp_path / "merged")
        found, others = live_digest(world.store), others_digest(world.store)
        try:
            world.install(package, smoke=FAIL)
        except SmallqError as error:
            assert error.code == "SMOKE_WRONG_NUMBERS", error
        assert live_digest(world.store) == found
        first = world.install(package).change
        assert first is not None
        # After the failed install was undone the live directory is a copy in the upper layer, which can be renamed.
        assert [line["method"] for line in read_history(world.store)] == ["copy", "exchange"]
        report = world.install(second).change
        assert report is not None
        assert report.method == "exchange"
        assert rollback(world.store, operator=packages.OPERATOR, to=first.adopted, smoke=lambda: PASS).failure is None
        assert live_digest(world.store) == found
        assert list(settled_problems(world.store, (found,), others)) == []

    with_own_mounts(body)


def test_uninstall_of_a_vendor_directory_from_an_image_layer(tmp_path: Path) -> None:
    def body() -> None:
        lower = World(tmp_path / "lower").make()
        lower.install(lower.package("1"))
        for name in ("upper", "work", "merged"):
            (tmp_path / name).mkdir()
        layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work,redirect_dir=off"
        mount("-t", "overlay", "overlay", "-o", layers, tmp_path / "merged")
        world = World(tmp_path / "merged")
        before = live_digest(world.store)
        report = uninstall(world.store)
        assert report.change is not None
        assert report.change.method == "copy"
        assert not world.live.exists()
        rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)
        assert live_digest(world.store) == before

    with_own_mounts(body)


def test_a_read_only_mount_is_refused_before_anything(tmp_path: Path) -> None:
    def body() -> None:
        world = World(tmp_path / "w").make()
        package = world.package("1")
        mount("--bind", world.store.vendors, world.store.vendors)
        mount("-o", "remount,bind,ro", world.store.vendors)
        plan = world.plan(package)
        assert [problem.code for problem in plan.problems] == ["READ_ONLY"]
        assert str(world.store.vendors) in plan.problems[0].message

    with_own_mounts(body)


def test_a_mount_point_as_live_directory_is_refused(tmp_path: Path) -> None:
    def body() -> None:
        world = World(tmp_path / "w").make()
        package = world.package("1")
        mount("--bind", world.live, world.live)
        assert [problem.code for problem in world.plan(package).problems] == ["LIVE_IS_MOUNT"]

    with_own_mounts(body)


def test_generations_in_an_image_layer(tmp_path: Path) -> None:
    """A container on an image that has our store: its generations cannot be renamed either."""

    def body() -> None:
        lower = World(tmp_path / "lower").make()
        found = live_digest(lower.store)
        first = lower.install(lower.package("1")).change
        assert first is not None
        one = live_digest(lower.store)
        lower.install(lower.package("2"))
        two, others = live_digest(lower.store), others_digest(lower.store)
        try:
            lower.install(lower.package("3"), smoke=FAIL)
        except SmallqError as error:
            assert error.code == "SMOKE_WRONG_NUMBERS", error
        assert any(item.failed for item in list_generations(lower.store))

        def container(name: str) -> World:
            place = tmp_path / name
            for part in ("upper", "work", "merged"):
                (place / part).mkdir(parents=True)
            layers = f"lowerdir={tmp_path}/lower,upperdir={place}/upper,workdir={place}/work,redirect_dir=off"
            mount("-t", "overlay", "overlay", "-o", layers, place / "merged")
            return World(place / "merged")

        world = container("a")
        # A rollback whose tree must be copied out of the layer, and back, and to what was there before us.
        for target, digest in ((None, one), (None, two), (first.adopted, found), (None, two)):
            report = rollback(world.store, operator=packages.OPERATOR, to=target, smoke=lambda: PASS)
            assert report.failure is None
            assert live_digest(world.store) == digest
            assert list(settled_problems(world.store, (digest,), others)) == []
        # The failed generation of the image would be dropped now; it can only stay, and must not stop the install.
        world.install(world.package("4"))
        assert list(settled_problems(world.store, (live_digest(world.store),), others)) == []

        world = container("b")
        report = uninstall(world.store, purge=True)
        assert not world.store.live.exists()
        assert not world.store.root.exists()
        assert others_digest(world.store) == others

        world = container("c")
        # An error before the switch leaves the layer's generation where it is.
        try:
            rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS, method="renames")
        except SmallqError as error:
            assert error.code == "IO_ERROR", error
        assert live_digest(world.store) == two
        assert list(settled_problems(world.store, (two,), others)) == []

    with_own_mounts(body)


def test_killed_while_a_generation_is_copied_out_of_an_image_layer(tmp_path: Path) -> None:
    """The process dies at every third call that changes something; the next command recovers, old or new."""
    calls = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.symlink", "open"}

    def body() -> None:
        mount("-t", "tmpfs", "tmpfs", tmp_path)  # thousands of fsyncs
        lower = World(tmp_path / "lower").make()
        lower.install(lower.package("1"))
        one = live_digest(lower.store)
        lower.install(lower.package("2"))
        two, others = live_digest(lower.store), others_digest(lower.store)
        seen, number = set(), 0
        while True:
            number += 3
            place = tmp_path / "container"
            for part in ("upper", "work", "merged"):
                (place / part).mkdir(parents=True)
            layers = f"lowerdir={tmp_path}/lower,upperdir={place}/upper,workdir={place}/work,redirect_dir=off"
            mount("-t", "overlay", "overlay", "-o", layers, place / "merged")
            world = World(place / "merged")
            pid = os.fork()
            if pid == 0:
                left = number

                def hook(event: str, arguments: tuple[object, ...]) -> None:
                    nonlocal left
                    writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE)
                    if event in calls and writes:
                        left -= 1
                        if left == 0:
                            os._exit(9)

                sys.addaudithook(hook)
                rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert status in (0, 9), status
            problems = world_problems(world.store, (one, two), others)
            assert problems == [], (number, problems)
            seen.add(live_digest(world.store))
            subprocess.run(["umount", str(place / "merged")], check=True)
            subprocess.run(["rm", "-r", str(place)], check=True)
            if status == 0:
                break
        assert seen == {one, two}
        assert number > 60, number

    with_own_mounts(body)
