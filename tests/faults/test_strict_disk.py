"""Power cuts on the modelled disk, which keeps only what POSIX promises (tests/support/strictdisk.py)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from smallq_deploy.operate import gc, inuse, mover, preflight
from tests.support.cutscenarios import CUTS, SEED
from tests.support.faultrows import FULL
from tests.support.strictrun import strict_cuts


@pytest.fixture
def memory() -> Iterator[Path]:
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="smallq-strict-", dir=place) as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def only_us(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (preflight, mover):
        monkeypatch.setattr(module, "processes_using", lambda directory: ())
    monkeypatch.setattr(gc, "users_of", lambda store: inuse.Users())


# The model gives out new inode numbers: recovery of the copy method, and an interrupted start, need the old ones.
NAMES = [name for name in CUTS if name not in ("recover", "upgrade by copy")]


@pytest.mark.parametrize("name", NAMES if FULL else ["upgrade", "uninstall"])
def test_strict_disk(name: str, memory: Path, record_property: Callable[[str, object], None]) -> None:
    scenario = CUTS[name]
    tried, bad = strict_cuts(
        scenario.prepare, scenario.act, memory, seed=SEED, every=1 if FULL else 9, edited=scenario.edited
    )
    record_property("measured", f"modelled disk, {name}: {tried} states, {len(bad)} violations (seed {SEED})")
    assert tried > 8
    assert not bad, "\n".join(bad[:20])


def test_the_modelled_disk_forgets_what_was_not_synced(memory: Path) -> None:
    scenario = CUTS["upgrade"]
    with mock.patch("smallq_deploy.store.transaction.fsync_tree", lambda root: None):
        _, bad = strict_cuts(scenario.prepare, scenario.act, memory, seed=SEED, every=5, first_only=True)
    assert bad


def test_mutants_are_found_in_the_source_and_caught() -> None:
    """Of all that `make mutants` tries: one fsync removed, two steps turned round, and one change that does nothing."""
    from tests.faults.mutants import FILES, Mutant, mutants, try_one

    found = {mutant.name: mutant for mutant in mutants()}
    assert sum("without" in name for name in found) > 20
    assert sum("before" in name for name in found) > 10
    (forgets,) = [mutant for name, mutant in found.items() if "write_atomic: without os.fsync" in name]
    assert "upgrade: " in try_one(forgets, ("upgrade",), ())
    assert try_one(Mutant("nothing", FILES[1], 1, 0, "# nothing"), ("pin",), ()) == ""
