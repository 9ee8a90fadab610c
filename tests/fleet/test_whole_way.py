"""The fleet's whole way on real hosts: check, install in waves, a canary that fails, a controller that dies, rollback.

Every host is a real sshd with a home and a simulated toolkit of its own; nothing is replaced.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from smallq_deploy.sandbox.create import create
from tests.cli.support import Ran, checked, smallq
from tests.support import sshd

LIVE = "cann-8.5.0/opp/vendors/customize"


def write_inventory(path: Path, servers: Sequence[sshd.Server], **more: dict[str, Any]) -> Path:
    """An inventory as a user writes it; ``more``: settings of one host."""
    hosts = {}
    for server in servers:
        host = server.host
        known = {"address": host.address, "port": host.port, "user": host.user, "cann": str(server.root)}
        hosts[host.name] = {**known, **more.get(host.name, {})}
    first = servers[0].host
    defaults = {"key": first.key, "known_hosts": first.known_hosts, "timeout": 250}
    path.write_text(yaml.safe_dump({"schema": 1, "defaults": defaults, "hosts": hosts}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def twenty(simulated_toolkit: Path, farm: sshd.Farm) -> sshd.Farm:
    """20 hosts, each with a simulated toolkit of its own."""
    for server in farm.servers:
        if not (server.root / "cann").exists():
            create(server.root)
    return farm


def live(server: sshd.Server) -> bool:
    return (server.root / LIVE).is_dir()


def spoil(server: sshd.Server) -> None:
    """From now on this host's devices compute one wrong number (simulated)."""
    script = server.root / "cann-8.5.0" / "set_env.sh"
    script.write_text(script.read_text() + "\nexport SMALLQ_SIM_FAULT=wrong_numbers\n")


def mend(server: sshd.Server) -> None:
    script = server.root / "cann-8.5.0" / "set_env.sh"
    script.write_text(script.read_text().replace("\nexport SMALLQ_SIM_FAULT=wrong_numbers\n", ""))


def statuses(data: dict[str, Any]) -> dict[str, str]:
    return {host["name"]: host["status"] for host in data["rollout"]["hosts"]}


@pytest.mark.timeout(290)
@pytest.mark.xdist_group("farm")
def test_twenty_hosts(twenty: sshd.Farm, operator_package: Path, own_home: Path, tmp_path: Path) -> None:
    inventory = write_inventory(tmp_path / "hosts.yaml", twenty.servers)
    on = ("-i", inventory, "--parallel", "8")  # hosts and controller share two processors
    before = tmp_path / "before.json"

    ran = smallq("fleet", "check", *on, "--save", before, "--json")
    assert ran.status == 0, ran.stdout[-2000:]
    found = checked(ran, "fleet check")
    assert found["summary"] == {"hosts": 20, "asked": 20, "failed": 0, "alike": 20, "differ": 0, "faulty": 0}
    assert found["norm"]["values"]["cann"] == "8.5.0"

    # A canary whose smoke test fails: nothing after it is touched, and it is as it was.
    spoil(twenty[0])
    ran = smallq("fleet", "install", operator_package, *on, "--waves", "1,25%,100%", "--json")
    data = checked(ran, "fleet install")
    assert (ran.status, data["rollout"]["result"]) == (11, "rolled-back")
    stood = statuses(data)
    assert stood.pop("n01") == "failed"
    assert set(stood.values()) == {"not-run"}
    (canary,) = (host for host in data["rollout"]["hosts"] if host["name"] == "n01")
    assert canary["code"] == "SMOKE_WRONG_NUMBERS"
    assert not any(live(server) for server in twenty.servers)
    mend(twenty[0])

    # The controller is killed in the middle; its successor goes on and every host is done.
    run = killed_install(own_home, operator_package, inventory, after=3)
    done_before = sum(live(server) for server in twenty.servers)
    assert 2 < done_before < 20
    ran = smallq("fleet", "resume", run, "--json")
    data = checked(ran, "fleet resume")
    assert (ran.status, data["rollout"]["result"]) == (0, "done"), ran.stdout[-3000:]
    assert all(live(server) for server in twenty.servers)
    assert max(host["tries"] for host in data["rollout"]["hosts"]) <= 2
    assert [wave["hosts"] for wave in data["rollout"]["waves"]] == [1, 4, 15]

    after = tmp_path / "after.json"
    expected = ("--expect", operator_package, "--save", after)
    found = checked(smallq("fleet", "check", *on, *expected, "--json"), "fleet check")
    assert found["summary"]["alike"] == 20 and found["faults"] == []
    ran = smallq("fleet", "report", before, after, "--json")
    changed = checked(ran, "fleet report")["changed"]
    assert [len(item["hosts"]) for item in changed] == [20], changed
    (change,) = changed
    assert ran.status == 10
    assert {"column": "state", "old": "absent", "new": "current"} in change["changes"]

    with open(twenty[16].root / LIVE / "version.info", "a") as stream:
        stream.write("edited\n")
    ran = smallq("fleet", "check", *on, *expected[:2], "--json")
    (fault,) = checked(ran, "fleet check")["faults"]
    assert (ran.status, fault["code"], fault["hosts"]) == (10, "DRIFT", ["n17"])

    ran = smallq("fleet", "rollback", *on, "--run", run, "--no-smoke", "--waves", "50%,100%", "--yes", "--json")
    data = checked(ran, "fleet rollback")
    assert (ran.status, set(statuses(data).values())) == (0, {"changed"}), ran.stdout[-3000:]
    assert len(statuses(data)) == 20
    assert not any(live(server) for server in twenty.servers)
    listed = checked(smallq("fleet", "runs", "--json"), "fleet runs")["runs"]
    assert [item["result"] for item in listed] == ["done", "done", "rolled-back"]


def killed_install(home: Path, package: Path, inventory: Path, *, after: int) -> str:
    """An install whose controller gets SIGKILL once ``after`` hosts are done; returns the run's name."""
    argv = [
        sys.executable,
        "-m",
        "smallq_deploy",
        "fleet",
        "install",
        str(package),
        "-i",
        str(inventory),
        "--parallel",
        "8",
    ]
    with open(home / "install.log", "wb") as log:
        child = subprocess.Popen(
            [*argv, "--waves", "1,25%,100%", "--yes", "--json"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    runs = home / ".local" / "state" / "smallq-deploy" / "fleet"
    until = time.monotonic() + 200
    try:
        while True:
            ledgers = sorted(runs.glob("*/*/ledger"), key=lambda path: path.parent.name)
            text = ledgers[-1].read_text() if len(ledgers) > 1 else ""
            if text.count('"event":"ended","kind":"change"') >= after:
                break
            assert child.poll() is None and time.monotonic() < until, (home / "install.log").read_text()[-2000:]
            time.sleep(0.1)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    return ledgers[-1].parent.name


@pytest.mark.timeout(200)
@pytest.mark.xdist_group("namespaces")
def test_hosts_that_fail_in_their_own_ways(
    simulated_toolkit: Path, namespace_farm: sshd.Farm, operator_package: Path, own_home: Path, tmp_path: Path
) -> None:
    farm = namespace_farm
    down, _, foreign, full, well = farm.servers
    for server in farm.servers:
        create(server.root, arch="aarch64" if server is foreign else None)
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\ncase $1 in -c) exit 0;; esac\nexec sleep 100\n")
    sleeper.chmod(0o755)
    inventory = write_inventory(tmp_path / "hosts.yaml", farm.servers, x2={"python": str(sleeper), "timeout": 12})
    vendors = full.root / "cann-8.5.0" / "opp" / "vendors"
    sshd.link(down, "down")
    # Its sshd sees mounts of its own.
    inside = ["nsenter", "-t", str(full.pid), "-m"]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "none", str(vendors)], check=True)
    try:
        ran = smallq("fleet", "check", "-i", inventory, "--json")
        found = checked(ran, "fleet check")
        assert ran.status == 11
        codes = {fault["names"]: fault["code"] for fault in found["failures"]}
        assert codes == {"x1": "HOST_UNREACHABLE", "x2": "HOST_TIMEOUT"}
        assert [(group["names"], group["differs"][0]["column"]) for group in found["outliers"]] == [("x3", "arch")]

        ran = smallq("fleet", "install", operator_package, "-i", inventory, "--json")
        data = checked(ran, "fleet install")
        assert (ran.status, data["rollout"]["result"]) == (11, "refused")
        assert codes_of(data) == {
            "x1": "HOST_UNREACHABLE",
            "x2": "HOST_TIMEOUT",
            "x3": "NOT_IN_BUNDLE",
            "x4": "NO_SPACE",
            "x5": "",
        }
        assert not live(well), "one host's plan was impossible, and another one was changed"

        ran = smallq("fleet", "install", operator_package, "-i", inventory, "--skip-unplannable", "--json")
        data = checked(ran, "fleet install")
        assert (ran.status, statuses(data)["x5"]) == (11, "changed")
        assert live(well) and not any(live(server) for server in (foreign, full))

        ran = smallq("fleet", "smoke", "-i", inventory, "-l", "x5", "--json")
        (host,) = checked(ran, "fleet smoke")["hosts"]
        assert (ran.status, host["smoke"]["verdict"]) == (0, "pass")
        assert_no_leftovers(smallq("fleet", "uninstall", "-i", inventory, "-l", "x5", "--yes", "--json"), well)
    finally:
        subprocess.run([*inside, "umount", str(vendors)], check=True)
        sshd.link(down, "up")


def codes_of(data: dict[str, Any]) -> dict[str, str]:
    return {host["name"]: host["code"] for host in data["rollout"]["hosts"]}


def assert_no_leftovers(ran: Ran, server: sshd.Server) -> None:
    assert (ran.status, statuses(checked(ran, "fleet uninstall"))) == (0, {server.name: "changed"})
    assert not live(server)
    kept = sorted(path.suffix for path in (server.home / ".cache" / "smallq-deploy" / "fleet").iterdir())
    assert set(kept) == {".pyz"}
