"""Row 18: stores written by earlier releases are read, used and recovered; those of a later one are left alone."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.operate.mover import recover_store, rollback
from smallq_deploy.operate.status import history, status
from smallq_deploy.store.generations import list_generations
from smallq_deploy.store.live import observe_live
from tests.cli.support import smallq
from tests.support import packages
from tests.support.faultrows import FaultRow
from tests.support.opp import PASS, World
from tests.support.toolkits import make_new
from tests.support.world import live_digest, others_digest, settled_problems

SAVED = Path(__file__).resolve().parents[1] / "data" / "state"
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
def test_generations_of_an_earlier_release(version: str, tmp_path: Path, fault_row: FaultRow) -> None:
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
    fault_row("18", 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_uninstalled_state_of_an_earlier_release(version: str, tmp_path: Path, fault_row: FaultRow) -> None:
    world = saved(version, "nothing-live", tmp_path / "w")
    assert observe_live(world.store).kind == "absent"
    assert rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS).target == 2
    fault_row("18", 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_interrupted_transaction_of_an_earlier_release(version: str, tmp_path: Path, fault_row: FaultRow) -> None:
    """As after copying the disk to another machine: no inode is what it was, contents decide."""
    world = saved(version, "interrupted", tmp_path / "w")
    others = others_digest(world.store)
    report = recover_store(world.store)
    assert report is not None
    assert (report.outcome, report.live) == ("undone", 2)
    assert list(settled_problems(world.store, (live_digest(world.store),), others)) == []
    fault_row("18", 1)


NEWER = ("state", "journal", "generations/0002/generation")
COMMANDS = (
    ("install", "PACKAGE"),
    ("plan", "PACKAGE"),
    ("rollback",),
    ("rollback", "--to", "1", "--no-smoke"),
    ("uninstall",),
    ("uninstall", "--purge", "--yes"),
    ("uninstall", "--restore-adopted"),
    ("gc", "--yes", "--keep", "0", "--adopted"),
    ("pin", "2"),
    ("unpin", "2"),
    ("repair", "--no-smoke"),
    ("verify",),
    ("verify", "--repair", "--no-smoke"),
    ("smoke",),
    ("status",),
    ("recover",),
)


@pytest.mark.parametrize("newer", NEWER)
def test_a_state_of_a_later_release_is_refused_by_every_command(
    newer: str, tmp_path: Path, fault_row: FaultRow
) -> None:
    """Exit status 2, STORE_NEWER with a hint, and not a byte changed: what a later release means is not known here."""
    old = saved(VERSIONS[-1], "interrupted" if newer == "journal" else "several-generations", tmp_path / "w")
    home = make_new(tmp_path / "Ascend")
    shutil.rmtree(home / "opp" / "vendors", ignore_errors=True)
    old.store.vendors.rename(home / "opp" / "vendors")
    record = home / "opp" / "vendors" / ".smallq-deploy" / newer
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "schema": 999}))
    package = packages.make_run(tmp_path / "op.run")
    before = tree_digest(home)
    bad = []
    for command in COMMANDS:
        arguments = [str(package) if part == "PACKAGE" else part for part in command]
        ran = smallq(*arguments, "--cann", str(tmp_path / "Ascend"), "--json")
        text = f"{newer}: {' '.join(command)}: {ran.status} {ran.codes}"
        reads = command[0] != "smoke" and (command[0] != "recover" or newer == "journal")
        if reads and (ran.codes != ["STORE_NEWER"] or ran.status != 2):
            bad.append(text)
        elif reads and not ran.document["errors"][0]["hint"]:
            bad.append(f"{text} without a hint")
        if tree_digest(home) != before:
            bad.append(f"{text}: something was changed")
            break
    fault_row("18", 1, bad, what=f"a later {newer}, {len(COMMANDS)} commands")
