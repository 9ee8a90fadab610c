"""A controller over 1,000 hosts is killed at random moments and another one goes on: each host at most once more."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from smallq_deploy.fleet.rollout.ledger import read_ledger
from smallq_deploy.fleet.rollout.waves import Closed, Ended, Kind
from tests.conftest import CHECKOUT

HOSTS = 1000
KILLS = 20


def _start(folder: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.support.fleetsim", str(folder), str(HOSTS)]
    child = subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "go\n"
    return child


def _finish(folder: Path) -> dict[str, object]:
    child = _start(folder)
    text, _ = child.communicate(timeout=120)
    return dict(json.loads(text))


def _ledger(folder: Path) -> Path:
    return folder / "20261201T000000Z-000000" / "ledger"


def _kill(folder: Path, size: float) -> None:
    """A controller that lives until its ledger has about ``size`` bytes."""
    child = _start(folder)
    while child.poll() is None and _ledger(folder).stat().st_size < size:
        time.sleep(0.0005)
    child.kill()
    child.communicate()


def _runs(folder: Path) -> Counter[str]:
    log = folder / "runs"
    return Counter(line.split()[0] for line in log.read_text().splitlines()) if log.exists() else Counter()


def test_killed_at_random_moments_each_host_runs_at_most_once_more(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = _finish(whole)
    assert expected["result"] == "done"
    size = _ledger(whole).stat().st_size
    amid = 0
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        _kill(folder, chance.uniform(0, size))
        before = _runs(folder)
        amid += 0 < len(before) < HOSTS
        if number % 4 == 0:  # and the one that goes on is killed too
            _kill(folder, chance.uniform(_ledger(folder).stat().st_size, size))
            assert _finish(folder)["result"] in ("done", "stopped")
        else:
            assert _finish(folder) == expected
            assert all(count <= before[host] + 1 for host, count in _runs(folder).items())
            assert len(_runs(folder)) == HOSTS
        assert max(_runs(folder).values()) <= 2
        header, events, length = read_ledger(_ledger(folder))
        assert length == (_ledger(folder)).stat().st_size
        assert isinstance(events[-1], Closed)
        ends = Counter(event.host for event in events if isinstance(event, Ended) and event.kind is not Kind.PLAN)
        assert max(ends.values()) == 1
        if events[-1].result == "done":
            assert len(ends) == len(header.hosts) == HOSTS
    print(f"{amid} of {KILLS} controllers were killed while hosts were being changed")
    assert amid > KILLS / 4  # changes are the second half of a ledger
