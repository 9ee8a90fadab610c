"""Stores written by earlier releases are read, used and recovered by this one."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from smallq_deploy.operate.mover import recover_store, rollback
from smallq_deploy.operate.status import history, status
from smallq_deploy.store.generations import list_generations
from smallq_deploy.store.live import observe_live
from tests.support import packages
from tests.support.opp import PASS, World
from tests.support.world import live_digest, others_digest, settled_problems

SAVED = Path(__file__).resolve().parents[2] / "data" / "state"
VERSIONS = sorted(path.name for path in SAVED.iterdir() if path.is_dir())


def saved(version: str, name: str, place: Path) -> World:
    """The saved state, unpacked; modes and times as they were."""
    world = World(place)
    world.opp.parent.mkdir(parents=True)
    with tarfile.open(SAVED / version / f"{name}.tar.gz") as archive:
        archive.extraction_filter = lambda member, path: member  # modes exactly as saved, on every Python
        archive.extractall(world.opp.parent, numeric_owner=True)
    return world


@pytest.mark.parametrize("version", VERSIONS)
def test_generations_of_an_earlier_release(version: str, tmp_path: Path) -> None:
    world = saved(version, "several-generations", tmp_path / "w")
    seen = status(world.store)
    assert seen.current is not None
    assert (seen.current.number, seen.previous, seen.current.proven) == (2, 3, True)
    assert [(item.number, item.origin, bool(item.failed)) for item in seen.generations] == [
        (1, "adopted", False),
        (2, "installed", False),
        (3, "installed", False),
        (4, "installed", True),
    ]
    assert seen.generations[2].flags == {"no_smoke": True}
    assert seen.live is not None
    assert seen.live.kind == "current"
    assert [(line["action"], line["result"]) for line in history(world.store)] == [
        ("install", "ok"),
        ("install", "ok"),
        ("install", "undone"),
        ("rollback", "ok"),
    ]
    for number in (1, 3, 2):
        report = rollback(world.store, operator=packages.OPERATOR, to=number, smoke=lambda: PASS, deep_check=True)
        assert report.target == number
    world.install(world.package("9"))
    assert [item.number for item in list_generations(world.store)] == [1, 2, 3, 5]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_uninstalled_state_of_an_earlier_release(version: str, tmp_path: Path) -> None:
    world = saved(version, "nothing-live", tmp_path / "w")
    assert observe_live(world.store).kind == "absent"
    assert rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS).target == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_an_interrupted_transaction_of_an_earlier_release(version: str, tmp_path: Path) -> None:
    """As after copying the disk to another machine: no inode is what it was, contents decide."""
    world = saved(version, "interrupted", tmp_path / "w")
    others = others_digest(world.store)
    report = recover_store(world.store)
    assert report is not None
    assert (report.outcome, report.live) == ("undone", 2)
    assert list(settled_problems(world.store, (live_digest(world.store),), others)) == []
