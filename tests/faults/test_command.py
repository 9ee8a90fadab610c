"""The real command on a simulated toolkit, killed and interrupted at chosen and at random moments."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.store.generations import list_generations
from smallq_deploy.store.history import read_history
from smallq_deploy.store.paths import Store
from tests.support import killer
from tests.support.processes import running
from tests.support.world import NOTHING, live_digest, others_digest, settled_problems, world_problems

SEED = 20260802
KILLS = 10
INTERRUPTIONS = 6


class Installed:
    """A toolkit with a foreign vendor, and the command line that installs the package into it."""

    def __init__(self, root: Path, package: Path) -> None:
        (opp,) = (path.resolve() for path in root.glob("cann-*/opp"))
        self.store = Store(opp)
        (self.store.vendors / "other" / "op_api").mkdir(parents=True)
        (self.store.vendors / "other" / "op_api" / "file").write_text("theirs")
        self.store.config_ini.write_text("load_priority=other\n")
        self.others = others_digest(self.store)
        python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0"}
        self.command = [python, "-B", "-m", "smallq_deploy", "install", str(package), "--cann", str(root), "--json"]

    def run(self, *before: str) -> int:
        done = subprocess.run(
            [*before, *self.command], env=self.environment, capture_output=True, text=True, timeout=120
        )
        return done.returncode

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def start_again(self) -> None:
        """Nothing of ours is there, as in the beginning."""
        shutil.rmtree(self.store.root, ignore_errors=True)
        shutil.rmtree(self.store.live, ignore_errors=True)
        self.store.config_ini.write_text("load_priority=other\n")


@pytest.fixture
def installed(fresh_toolkit: Callable[..., Path], operator_package: Path) -> Installed:
    return Installed(fresh_toolkit(), operator_package)


@pytest.mark.skipif(bool(killer.why_not()), reason=f"NO KILL TEST: {killer.why_not()}")
def test_the_command_killed_at_system_calls(
    installed: Installed, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A sample; every single call is tested on a small world in test_kill_points.py. Only the command itself is traced,
    not the smoke test's process."""
    store, log = installed.store, tmp_path / "log"
    names = ("rename", "renameat2", "mkdir", "fchmod", "unlink")
    assert installed.run("strace", "-o", str(log), "-e", "trace=" + ",".join(names)) == 0
    new = live_digest(store)
    counts: dict[str, int] = {}
    points = []
    for line in log.read_text().splitlines():
        name = line.partition("(")[0]
        if name in names:
            counts[name] = counts.get(name, 0) + 1
            if str(store.vendors) in line or name == "fchmod":
                points.append((name, counts[name]))
    chance = random.Random(SEED)
    bad = []
    # The last calls are those around and after the decision.
    for name, count in [*chance.sample(points, KILLS // 2), *points[-(KILLS - KILLS // 2) * 2 :: 2]]:
        installed.start_again()
        inject = f"inject={name}:signal=SIGKILL:when={count}"
        ended = installed.run("strace", "-o", "/dev/null", "-e", f"trace={name}", "-e", inject)
        assert ended in (137, -9), f"{name} {count}: ended {ended}"
        bad += [f"{name} {count}: {text}" for text in world_problems(store, (NOTHING, new), installed.others)]
    assert installed.run() == 0
    assert list(settled_problems(store, (new,), installed.others)) == []
    text = f"real install: {KILLS} of {len(points)} kill points, {len(bad)} violations (seed {SEED})"
    record_property("measured", text)
    assert not bad, "\n".join(bad)


def test_the_command_interrupted_at_random_moments(
    installed: Installed, record_property: Callable[[str, object], None]
) -> None:
    """Ctrl-C ends with 130 and the old state, or was too late and the install is there; nothing is left running."""
    store = installed.store
    begun = time.monotonic()
    assert installed.run() == 0
    whole = time.monotonic() - begun
    new = live_digest(store)
    chance = random.Random(SEED)
    ended: dict[int, int] = {}
    bad = []
    for number in range(INTERRUPTIONS):
        installed.start_again()
        kind = signal.SIGINT if number % 3 else signal.SIGKILL
        child = installed.start()
        try:
            child.wait(whole * chance.uniform(0.1, 1.0))
        except subprocess.TimeoutExpired:
            child.send_signal(kind)
        out, err = child.communicate(timeout=60)
        ended[child.returncode] = ended.get(child.returncode, 0) + 1
        if child.returncode == 0 and live_digest(store) != new:
            bad.append("exit status 0, but not installed")
        if child.returncode == 130:
            if live_digest(store) != NOTHING or store.journal.exists():
                bad.append("interrupted, but not as before")
            if "Traceback" in err or (out and json.loads(out)["exit_status"] != 130):
                bad.append(f"a poor answer to Ctrl-C: {out[-300:]} {err[-300:]}")
        elif child.returncode not in (0, -9):
            bad.append(f"ended {child.returncode}: {err[-300:]}")
        bad += world_problems(store, (NOTHING, new), installed.others)
        if kind == signal.SIGINT and any(
            "smallq_deploy.smoke.child" in line for line in running(str(store.opp.parent))
        ):
            bad.append("the smoke test's process was left running")
    text = f"real install, {INTERRUPTIONS} interruptions: {ended} by exit status, {len(bad)} violations (seed {SEED})"
    record_property("measured", text)
    assert not bad, "\n".join(bad)


def test_two_installs_at_once(installed: Installed) -> None:
    """One wins, the other says busy (7) or finds it done (0)."""
    children = [installed.start() for _ in range(3)]
    codes = []
    for child in children:
        out, _ = child.communicate(timeout=120)
        codes.append((child.returncode, [error["code"] for error in json.loads(out)["errors"]]))
    assert (0, []) in codes
    assert all(code in ((0, []), (7, ["LOCK_BUSY"])) for code in codes), codes
    store = installed.store
    assert [item.number for item in list_generations(store)] == [1]
    assert len(read_history(store)) == 1
    assert list(settled_problems(store, (live_digest(store),), installed.others)) == []
