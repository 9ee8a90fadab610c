"""Row 3: the real command and all that it started get a signal at a random moment.

SIGKILL, SIGTERM or SIGINT, to the whole process group (as a closing terminal or a batch system sends it) or to the
command alone; compilers, the package's own installer and the smoke test's process run meanwhile. Nothing may be left
running, and the opp is as before or as after.
"""

from __future__ import annotations

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

from smallq_deploy.store.paths import Store
from tests.support.faultrows import FULL, FaultRow
from tests.support.processes import left_running
from tests.support.world import live_digest, others_digest, world_problems

SEED = 20260803
HANG = 120.0
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DECENT = (0, 130, 143)  # finished before, Ctrl-C, SIGTERM


class Machine:
    """A toolkit with another vendor; ``begin`` makes what is there before each kill."""

    def __init__(self, root: Path, package: Path, work: Path) -> None:
        self.root, self.package, self.work = root, package, work
        (opp,) = (path.resolve() for path in root.glob("cann-*/opp"))
        self.store = Store(opp)
        (self.store.vendors / "other" / "op_api").mkdir(parents=True)
        (self.store.vendors / "other" / "op_api" / "file").write_text("theirs")
        self.store.config_ini.write_text("load_priority=other\n")
        self.others = others_digest(self.store)
        self.base = work / "base"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        return subprocess.Popen(
            [python, "-B", "-m", "smallq_deploy", *arguments, "--cann", str(self.root), "--json"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(self.work)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def must(self, *arguments: str) -> float:
        """Run it undisturbed; seconds."""
        begun = time.monotonic()
        child = self.start(*arguments)
        out, err = child.communicate(timeout=HANG)
        assert child.returncode == 0, f"{arguments}: {out} {err}"
        return time.monotonic() - begun

    def keep(self) -> None:
        shutil.copytree(self.store.vendors, self.base, symlinks=True)

    def reset(self) -> None:
        shutil.rmtree(self.store.vendors)
        shutil.copytree(self.base, self.store.vendors, symlinks=True)


def _break(machine: Machine) -> None:
    (machine.store.live / "version.info").write_text("edited")


# name: (is something installed, what is done by hand, command, how many of the full size)
KINDS: dict[str, tuple[bool, Callable[[Machine], None] | None, tuple[str, ...], int]] = {
    "install": (False, None, ("install", "PACKAGE"), 90),
    "installer": (False, None, ("install", "PACKAGE", "--use-installer"), 50),
    "rollback": (True, None, ("rollback", "--to", "0"), 40),
    "uninstall": (True, None, ("uninstall",), 40),
    "restore": (True, _break, ("verify", "--repair"), 70),
    "build": (False, None, ("build", "--rebuild", "-o", "OUTPUT"), 20),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if FULL or kind != "build"])
def test_signals_at_random_moments(
    kind: str, fresh_toolkit: Callable[..., Path], operator_package: Path, tmp_path: Path, fault_row: FaultRow
) -> None:
    installed, by_hand, words, full = KINDS[kind]
    work = tmp_path / "work"
    work.mkdir()
    machine = Machine(fresh_toolkit(), operator_package, work)
    replaced = {"PACKAGE": str(operator_package), "OUTPUT": str(work / "out")}
    command = [replaced.get(word, word) for word in words]
    if kind == "build":
        command += ["--recipes", str(machine.root / "cann-recipes-infer")]
    if installed:
        machine.must("install", str(operator_package))
    if by_hand is not None:
        by_hand(machine)
    machine.keep()
    old = live_digest(machine.store)
    whole = machine.must(*command)
    new = live_digest(machine.store)
    edited = old if by_hand is not None else ""
    chance, bad = random.Random(SEED), []
    ended: dict[int, int] = {}
    count = full if FULL else 3
    for number in range(count):
        machine.reset()
        sent = SIGNALS[number % 3]
        alone = number % 4 == 3
        child = machine.start(*command)
        try:
            child.wait(whole * chance.uniform(0.05, 1.1))
        except subprocess.TimeoutExpired:
            if alone:
                child.send_signal(sent)
            else:
                os.killpg(child.pid, sent)
        out, err = child.communicate(timeout=HANG)
        what = f"{kind} {number}: {sent.name} {'alone' if alone else 'to the group'}: ended {child.returncode}"
        ended[child.returncode] = ended.get(child.returncode, 0) + 1
        # Python itself was still starting: none of our lines had run, and nothing was changed.
        early = child.returncode in (-sent, 1) and not out and live_digest(machine.store) == old
        if child.returncode not in DECENT and not early and sent != signal.SIGKILL:
            bad.append(f"{what}: {err[-400:]}")
        if "Traceback" in err and "smallq_deploy/" in err:
            bad.append(f"{what} with a traceback: {err[-400:]}")
        if child.returncode == 0 and live_digest(machine.store) != new:
            bad.append(f"{what}, but it is not done")
        bad += [f"{what}: left running: {line}" for line in left_running(str(tmp_path))]
        bad += [f"{what}: {text}" for text in world_problems(machine.store, (old, new), machine.others, edited=edited)]
    fault_row("3", count, bad, what=f"{kind}, simulated toolkit, by exit status {ended} (seed {SEED})")
