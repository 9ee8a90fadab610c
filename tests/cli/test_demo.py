"""The demo ends well and leaves nothing; without a compiler it says what is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smallq_deploy.cli.demo_steps import KERNEL, RIGHT, STEPS
from tests.cli.support import checked, smallq
from tests.conftest import CHECKOUT


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    ran = smallq("demo", "--json", env={"TMPDIR": str(place)})
    data = checked(ran, "demo")
    assert ran.status == 0, data["steps"][-1]
    assert [step["step"] for step in data["steps"]] == list(STEPS)
    assert {step["result"] for step in data["steps"]} == {"ok"}
    assert list(place.iterdir()) == []


def test_demo_without_a_compiler(tmp_path: Path) -> None:
    place, programs = tmp_path / "tmp", tmp_path / "bin"
    place.mkdir()
    programs.mkdir()
    for name in ("bash", "sh", "env"):
        (programs / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    env = {"TMPDIR": str(place), "PATH": str(programs), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    ran = smallq("demo", env=env)
    assert ran.status == 6
    assert "g++" in ran.stdout
    assert "[DEMO_FAILED]" in ran.stderr
    assert "not reached" in ran.stdout
    assert list(place.iterdir()) == []


def processes_in(place: Path) -> list[str]:
    """Command lines of processes that work below ``place``."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if str(place) in os.readlink(path / "cwd"):
                    found.append((path / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


@pytest.mark.slow
def test_demo_interrupted_in_a_build_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-m", "smallq_deploy", "demo"],
        env={**os.environ, "TMPDIR": str(place)},
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not any("cmake" in line or "cc1plus" in line for line in processes_in(place)):
        time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130, stderr
    assert list(place.iterdir()) == []
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and processes_in(place):
        time.sleep(0.1)
    assert processes_in(place) == []


def test_the_line_that_the_demo_changes_is_there_once() -> None:
    assert (CHECKOUT / "src_op" / "smallq_flash_attention" / KERNEL).read_text().count(RIGHT) == 1
