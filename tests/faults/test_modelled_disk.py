"""Row 4 on the modelled disk (tests/support/modeldisk.py), which loses whatever was not synced; and the disk itself."""

from __future__ import annotations

import os
import random
from pathlib import Path
from unittest import mock

import pytest

from smallq_deploy.base import fsops
from tests.faults.mutants import CHECKOUT, Mutant, mutants, try_one
from tests.support.cutscenarios import CUTS
from tests.support.faultrows import FULL, FaultRow
from tests.support.modeldisk import HALF, NOW, OLD, Recorder, image, states
from tests.support.modelrun import judge

SEED = 20260805
SUBSET = ("rollback", "failing smoke", "purge")


@pytest.fixture(autouse=True)
def tmpfs(memory: Path) -> None:
    if not memory.is_relative_to("/dev/shm"):
        pytest.skip("NO MODELLED DISK: /dev/shm cannot be written to, and other file systems use inode numbers twice")


@pytest.mark.parametrize("name", list(CUTS) if FULL else SUBSET)
def test_what_was_not_synced_is_lost(name: str, memory: Path, fault_row: FaultRow) -> None:
    done = judge(name, memory, seed=SEED, cuts=0 if FULL else 12, each=10 if FULL else 8)
    # All disks that `pin` can leave are fewer than 20.
    assert done.states >= (18 if name == "pin" else 21)
    what = f"{name}, {done.calls} calls (seed {SEED})"
    fault_row("4 model", done.states, done.violations, what=what)


def test_a_disk_that_forgets_is_seen(memory: Path) -> None:
    """The checks find a command that makes nothing durable."""
    with mock.patch.object(fsops, "fsync_dir", lambda path: None):
        done = judge("pin", memory, seed=SEED, cuts=4, each=8)
    assert any("I4: what the command had done is gone: pins" in text for text in done.violations), done


def disks(recorder: Recorder, place: Path) -> list[dict[str, str]]:
    """What each disk of the last point holds: name -> content."""
    found = []
    point = recorder.points[-1]
    for number, state in enumerate(states(point, random.Random(SEED), 100)):
        root = place / str(number)
        image(point, state, recorder.top).build(root, root / "journal")
        files = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
        if files not in found:
            found.append(files)
    return found


def test_file_data_is_lost_until_the_file_is_synced(memory: Path) -> None:
    (memory / "work").mkdir()
    target = memory / "work" / "file"
    target.write_text("old!")
    recorder = Recorder(memory / "work")
    with recorder.watching():
        fsops.append_line(target, "more")
        target.write_text("old!\nmore\nlost\n")
    present = disks(recorder, memory)
    assert {"file": "old!\nmore\n"} in present
    assert {"file": "old!\nmore\nlost\n"} in present
    assert {"file": "old!"} not in present
    assert any(one["file"].endswith("lo") for one in present)


def test_a_rename_counts_when_both_directories_are_synced(memory: Path) -> None:
    for name in ("work/a/tree", "work/b"):
        (memory / name).mkdir(parents=True)
    (memory / "work/a/tree/file").write_text("x")
    before, after = {"a/tree/file": "x"}, {"b/tree/file": "x"}
    work = memory / "work"
    for synced, expected in (((), [before, after]), (("b",), [before, after]), (("a", "b"), [after])):
        recorder = Recorder(work)
        with recorder.watching():
            os.rename(work / "a/tree", work / "b/tree")
            for name in synced:
                fsops.fsync_dir(work / name)
        (memory / "-".join(("out", *synced))).mkdir()
        found = disks(recorder, memory / "-".join(("out", *synced)))
        assert sorted(found, key=str) == sorted(expected, key=str), synced
        os.rename(work / "b/tree", work / "a/tree")


def test_a_replaced_file_is_the_old_or_the_new_one(memory: Path) -> None:
    work = memory / "work"
    work.mkdir()
    (work / "file").write_text("old")
    recorder = Recorder(work)
    with recorder.watching():
        fsops.write_atomic(work / "file", "new")
    assert disks(recorder, memory) == [{"file": "new"}]
    points = {}
    for point in recorder.points:
        for state in states(point, random.Random(SEED), 100):
            assert state[1] in (OLD, HALF, NOW)
            points[image(point, state, recorder.top).tree] = point.call
    kept = [dict(tree[3]) for tree in points]
    contents = {held["file"][3] for held in kept}
    assert contents == {b"old", b"new"}, "never a mix under the final name"
    assert {held[".file.new"][3] for held in kept if ".file.new" in held} >= {b"", b"n", b"new"}


def test_mutants_are_found_in_the_source_and_caught() -> None:
    """Of all that `make mutants` tries: one fsync removed, one order turned round, and one change that does nothing."""
    found = {mutant.name: mutant for mutant in mutants()}
    assert sum(": without " in name for name in found) > 20
    assert sum("` before `" in name for name in found) > 15
    assert sum("after the journal is gone" in name for name in found) > 8
    (forgets,) = [mutant for name, mutant in found.items() if "drop_journal: without fsync_dir" in name]
    assert "its transaction is open" in try_one(forgets, ("rollback",), ((1, 4),), unit=False)
    (early,) = [mutant for name, mutant in found.items() if "config.ini changed before the switch" in name]
    assert "config.ini" in try_one(early, ("uninstall",), ((20, 8),), unit=False)
    same = Mutant("nothing", "store/journal.py", (CHECKOUT / "smallq_deploy/store/journal.py").read_text() + "# same\n")
    assert try_one(same, ("rollback",), ((1, 4),), unit=False) == ""
