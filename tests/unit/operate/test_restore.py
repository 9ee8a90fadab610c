"""``verify --repair``: what drifted comes back from the kept package, and nothing that was found is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.errors import InstallError, UsageError
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.operate.mover import restore, rollback, uninstall
from smallq_deploy.store.generations import load_generation
from smallq_deploy.store.history import read_history
from tests.support import packages
from tests.support.opp import FAIL, PASS, World
from tests.support.world import assert_world_ok, live_digest, others_digest

LIBRARY = "op_api/lib/libcust_opapi.so"


def same_size_and_time(world: World) -> None:
    """Only the content tells."""
    path = world.live / LIBRARY
    info = path.stat()
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def replace_by_link(world: World) -> None:
    (world.live / LIBRARY).unlink()
    (world.live / LIBRARY).symlink_to("/dev/null")


DRIFT: dict[str, Callable[[World], object]] = {
    "edited": lambda world: (world.live / "version.info").write_text("edited"),
    "content alone": same_size_and_time,
    "deleted": lambda world: (world.live / LIBRARY).unlink(),
    "added": lambda world: (world.live / "op_api" / "new").write_text("x"),
    "chmod": lambda world: (world.live / LIBRARY).chmod(0o600),
    "a link": replace_by_link,
    "truncated": lambda world: os.truncate(world.live / LIBRARY, 10),
    "all gone": lambda world: shutil.rmtree(world.live),
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path).make()
    world.install(world.package("1"))
    return world


def mend(world: World, **options: object) -> object:
    return restore(world.store, operator=packages.OPERATOR, smoke=lambda: PASS, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DRIFT)
def test_drift_comes_back_and_what_was_found_is_kept(world: World, name: str) -> None:
    digest, others = live_digest(world.store), others_digest(world.store)
    DRIFT[name](world)
    found = live_digest(world.store)
    before = tree_digest(world.store.vendors)
    planned = restore(world.store, operator=packages.OPERATOR, dry_run=True)
    assert planned.decision == "planned"
    assert tree_digest(world.store.vendors) == before
    report = restore(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)
    assert report.decision == "done"
    assert live_digest(world.store) == digest
    assert_world_ok(world.store, allowed=(digest,), others=others)
    line = read_history(world.store)[-1]
    assert (line["action"], line["result"], line["live"]) == ("restore", "ok", 2)
    assert report.change is not None
    if name == "all gone":
        assert report.change.adopted is None
    else:
        assert report.change.adopted is not None
        assert load_generation(world.store, report.change.adopted).manifest_digest == found
    assert restore(world.store, operator=packages.OPERATOR).decision == "nothing"


def test_a_clean_tree_is_left(world: World) -> None:
    lines = len(read_history(world.store))
    inode = world.live.stat().st_ino
    assert restore(world.store, operator=packages.OPERATOR, smoke=lambda: FAIL).decision == "nothing"
    assert (world.live.stat().st_ino, len(read_history(world.store))) == (inode, lines)


def test_a_failed_smoke_test_is_told_and_the_tree_stays(world: World) -> None:
    digest = live_digest(world.store)
    DRIFT["edited"](world)
    report = restore(world.store, operator=packages.OPERATOR, smoke=lambda: FAIL)
    assert report.failure is not None
    assert "is live again and was left in place" in report.failure.message
    assert live_digest(world.store) == digest


def test_without_a_package_nothing_is_changed(world: World) -> None:
    rollback(world.store, operator=packages.OPERATOR, to=1)
    (world.live / "version.info").write_text("edited")
    before = tree_digest(world.store.vendors)
    with pytest.raises(InstallError) as caught:
        mend(world)
    assert caught.value.code == "PACKAGE_NOT_KEPT"
    assert "roll back" in caught.value.hint
    uninstall(world.store)
    with pytest.raises(UsageError) as refused:
        mend(world)
    assert refused.value.code == "NOTHING_TO_RESTORE"
    assert before


def test_a_package_that_was_changed_in_the_store_is_not_used(world: World) -> None:
    DRIFT["edited"](world)
    found = live_digest(world.store)
    packages.make_run(world.store.package_file(2), content="9")
    with pytest.raises(InstallError) as caught:
        mend(world)
    assert caught.value.code == "GENERATION_DAMAGED"
    assert live_digest(world.store) == found
