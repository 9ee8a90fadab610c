"""facts: what a fleet is compared by, of a machine that is well and of machines that are not."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from smallq_deploy.machine.environment import detect_environment
from smallq_deploy.operate.facts import installed_in, read_facts
from tests.cli.support import checked, smallq
from tests.cli.test_main import HEAVY, imported
from tests.support.opp import World


def test_a_machine_without_anything_answers_too() -> None:
    before = time.time()
    data = checked(smallq("facts", "--json", env={"PATH": "/usr/bin:/bin"}), "facts")
    assert (data["cann"], data["opp"], data["live"], data["smoke"], data["problem"]) == (None,) * 5
    assert data["arch"] == os.uname().machine
    assert data["host"] == os.uname().nodename
    assert before - 1 < data["time"] < time.time() + 1
    assert data["os"]["id"]


def test_a_toolkit_that_cannot_be_used_is_the_problem_and_no_failure(tmp_path: Path) -> None:
    data = checked(smallq("facts", "--cann", tmp_path / "nowhere", "--json"), "facts")
    assert data["problem"]["code"] == "NOT_A_TOOLKIT"
    assert "[NOT_A_TOOLKIT]" in smallq("facts", "--cann", tmp_path / "nowhere").stdout


def test_the_whole_life_of_an_install(fresh_toolkit: Callable[..., Path], operator_package: Path) -> None:
    root = fresh_toolkit()
    cann = ("--cann", root)
    vendors = root / "cann-8.5.0" / "opp" / "vendors"
    empty = checked(smallq("facts", *cann, "--json"), "facts")
    assert (empty["live"]["state"], empty["live"]["generation"], empty["smoke"]) == ("absent", None, None)
    assert empty["cann"]["version"] == "8.5.0"
    assert empty["cann"]["remark"] == "simulated toolkit"
    assert empty["soc"] == "Ascend910B3"
    assert [npu["health"] for npu in empty["npus"]] == ["OK"] * 8
    assert not vendors.exists() or not list(vendors.iterdir())  # looking makes nothing
    assert not imported("facts", "--cann", str(root)) & HEAVY

    assert smallq("install", operator_package, *cann, "--json").status == 0
    status = checked(smallq("status", *cann, "--json"), "status")
    well = checked(smallq("facts", *cann, "--json"), "facts")
    live = well["live"]
    assert (live["state"], live["generation"], live["proven"]) == ("current", 1, True)
    for theirs, ours in (("package_sha256",) * 2, ("manifest_digest", "digest"), ("release",) * 2):
        assert live[ours] == status["current"][theirs] != ""
    assert well["smoke"]["verdict"] == "pass"
    assert 0 <= well["smoke"]["age"] < 300
    assert well["drift"] == {"count": 0, "kinds": {}, "paths": [], "contents": False}
    assert (well["listed"], well["load_priority"], well["vendors"]) == (True, ["customize"], [])
    assert well["opp"]["inode"] == vendors.stat().st_ino
    assert well["opp"]["free_bytes"] > 0

    # The same size and time: only contents tell.
    header = next((vendors / "customize" / "op_api" / "include").glob("*.h"))
    raw, times = bytearray(header.read_bytes()), (header.stat().st_atime_ns, header.stat().st_mtime_ns)
    raw[-2] ^= 1
    header.write_bytes(raw)
    os.utime(header, ns=times)
    assert checked(smallq("facts", *cann, "--json"), "facts")["drift"]["count"] == 0
    deep = checked(smallq("facts", *cann, "--verify", "--json"), "facts")
    assert deep["live"]["state"] == "changed"
    assert deep["drift"] == {
        "count": 1,
        "kinds": {"5": 1},
        "paths": [f"op_api/include/{header.name}"],
        "contents": True,
    }
    (vendors / "customize" / "extra").write_text("more")
    header.unlink()
    kinds = checked(smallq("facts", *cann, "--json"), "facts")["drift"]["kinds"]
    assert kinds == {"added": 1, "missing": 1}
    assert "2 differ: added 1, missing 1" in smallq("facts", *cann).stdout

    # The same operator in a vendor that comes first.
    other = vendors / "theirs"
    os.makedirs(other)
    for name in ("op_impl", "op_proto", "op_api"):
        source = vendors / "customize" / name
        if source.is_dir():
            shutil.copytree(source, other / name, symlinks=True)
    (vendors / "config.ini").write_text("load_priority=theirs,customize\n")
    (vendor,) = checked(smallq("facts", *cann, "--json"), "facts")["vendors"]
    assert (vendor["name"], vendor["listed"], vendor["first"]) == ("theirs", True, True)
    assert vendor["clashes"] == ["SmallqFlashAttention"]

    # A store that cannot be read is told, not raised; the toolkit and the devices are told all the same.
    (vendors / ".smallq-deploy" / "state").write_text("{")
    broken = checked(smallq("facts", *cann, "--json"), "facts")
    assert broken["problem"]["code"] == "STORE_DAMAGED"
    assert broken["live"] is None
    assert len(broken["npus"]) == 8


def test_an_interrupted_install_is_told(tmp_path: Path) -> None:
    world = World(tmp_path).make(found="")
    world.install(world.package())
    environment = detect_environment(cann=tmp_path / "no toolkit", environ={}, root=tmp_path)
    pid = os.fork()
    if pid == 0:
        world.install(world.package("2"), smoke=lambda: os._exit(0))  # type: ignore[arg-type,return-value]
    os.waitpid(pid, 0)
    installed = installed_in(world.store)
    assert installed.kind == "interrupted"
    data = replace(read_facts(environment, "customize"), installed=installed).to_dict()
    assert data["transaction"]["action"] == "install"
    assert data["transaction"]["running"] is False
    assert data["drift"]["count"] == 0
    assert data["live"]["state"] == "interrupted"
