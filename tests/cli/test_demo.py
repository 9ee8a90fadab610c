"""The demo ends well and leaves nothing; without a compiler it says what is missing."""

from __future__ import annotations

from pathlib import Path

from smallq_deploy.cli.demo_steps import STEPS
from tests.cli.support import checked, smallq


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
