"""Who starts a process and is killed leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.guard import Guard
from smallq_deploy.base.proc import run

PARENT = """
import sys
from smallq_deploy.base.proc import run
run(["sh", "-c", sys.argv[1]], contain=sys.argv[2] == "contain")
"""
# A child, a grandchild in its group and one in a session of its own; each names itself when it runs.
FAMILY = (
    'sh -c \'echo $$ >"$0/grandchild"; exec sleep 300\' "{place}" & '
    'setsid sh -c \'echo $$ >"$0/far"; exec sleep 300\' "{place}" & '
    'echo $$ >"{place}/child"; wait'
)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("contain", [True, False])
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_nothing_running(tmp_path: Path, contain: bool, kill: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, FAMILY.format(place=tmp_path), "contain" if contain else ""],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    names = ("child", "grandchild", "far")
    pids: dict[str, int] = {}
    try:
        assert wait_until(lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in names))
        pids = {name: int((tmp_path / name).read_text()) for name in names}
        assert all(alive(pid) for pid in pids.values())
        parent.send_signal(kill)
        parent.wait(20)
        gone = names if contain else names[:2]
        assert wait_until(lambda: not any(alive(pids[name]) for name in gone)), f"still there: {pids}"
        assert contain or alive(pids["far"]), "the checker sees no process that is left"
    finally:
        parent.kill()
        for pid in pids.values():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_child_that_ended_well_is_not_looked_for() -> None:
    """The shell that waits is gone with the run, and what the child left in a session of its own may stay."""
    assert run(["true"]).ok
    assert waiting() == []
    assert run(["/nonexistent"]).returncode == 127
    assert waiting() == []
    guard = Guard()
    guard.watch(os.getpid())  # would end this very test, were it to act
    assert len(waiting()) == 1
    guard.close()
    assert waiting() == []


def waiting() -> list[int]:
    """The waiting shells that this process started."""
    found = []
    for name in os.listdir("/proc"):
        try:
            parent = int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"smallq-deploy-guard" in Path("/proc", name, "cmdline").read_bytes():
                found.append(int(name))
        except OSError:
            continue
    return found
