"""The exported playbooks, run by a real ansible-core against real sshd: five hosts with a simulated CANN each."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from smallq_deploy.base.fsops import sha256_file
from smallq_deploy.fleet.export.ansible import export_ansible
from smallq_deploy.fleet.export.request import ExportRequest
from smallq_deploy.fleet.export.write import write_export
from smallq_deploy.fleet.hosts import Host, Inventory
from smallq_deploy.fleet.rollout.policy import Policy
from smallq_deploy.sandbox.create import create
from tests.conftest import run_command
from tests.support import sshd

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
NAMES = ["n01", "n02", "n03", "n04", "n05"]
pytestmark = [
    pytest.mark.skipif(not PLAYBOOK.exists(), reason="ansible-core is not installed"),
    pytest.mark.timeout(900),  # Ansible starts a Python for every task on every host
]


@dataclass
class Fleet:
    """Hosts with a toolkit each, and the bundle for them."""

    farm: sshd.Farm
    hosts: list[Host]
    bundle: Path

    def export(self, directory: Path, hosts: list[Host] | None = None, **policy: str) -> Path:
        request = ExportRequest(
            Inventory("five", "here", tuple(hosts or self.hosts), {"rack-1": ("n01", "n02")}),
            self.bundle,
            sha256_file(self.bundle),
            policy=Policy.parse(**policy),  # type: ignore[arg-type]
        )
        write_export(export_ansible(request), directory)
        return directory


@dataclass
class Run:
    status: int
    text: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """host -> what Ansible counted."""
        rows = re.findall(r"^(\S+)\s+: (ok=.*)$", self.text.rpartition("PLAY RECAP")[2], re.MULTILINE)
        return {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", row)} for name, row in rows}

    def counted(self, what: str) -> dict[str, int]:
        return {name: row[what] for name, row in self.recap.items()}


def ansible(directory: Path, play: str, *options: str) -> Run:
    env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(directory / ".ansible"), "LC_ALL": "C.UTF-8"}
    env["ANSIBLE_SSH_ARGS"] = "-o ControlMaster=auto -o ControlPersist=15s"  # nothing of it stays for long
    done = subprocess.run(
        [str(PLAYBOOK), play, *options], cwd=directory, env=env, capture_output=True, text=True, timeout=240
    )
    return Run(done.returncode, done.stdout + done.stderr)


def generation(host: Host) -> int:
    """What is live on the host, as the tool says."""
    status = json.loads(run_command("status", "--cann", host.cann, "--json"))
    current = status["data"]["current"]
    return int(current["number"]) if current else 0


@pytest.fixture(scope="module")
def toolkits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Farm]:
    if not sshd.sshd_path():
        pytest.skip("no sshd: `.ci/setup dev` installs openssh-server")
    with sshd.loopback(tmp_path_factory.mktemp("ansible"), 5) as farm:
        yield farm


@pytest.fixture(scope="module")
def packed(operator_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the operator."""
    bundle = tmp_path_factory.mktemp("bundle") / "smallq.pyz"
    run_command("bundle", "create", "-o", str(bundle), str(operator_package))
    return bundle


@pytest.fixture
def fleet(toolkits: sshd.Farm, packed: Path, tmp_path: Path) -> Fleet:
    """New toolkits on the hosts for every test; paths have blanks and quotes in them."""
    known = tmp_path / "known 'hosts'"
    shutil.copy(toolkits.known_hosts, known)
    bundle = tmp_path / "smallq it's.pyz"
    shutil.copy(packed, bundle)
    hosts = []
    for server in toolkits.servers:
        create(tmp_path / server.name)
        root = tmp_path / f"{server.name} it's {{{{ 1 }}}}"
        root.symlink_to(server.name)
        hosts.append(replace(server.host, cann=str(root), known_hosts=str(known), python=sys.executable))
    hosts[0] = replace(hosts[0], python="")  # Ansible and the bundle find one
    return Fleet(toolkits, hosts, bundle)


def test_installs_for_real_and_the_second_run_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    place = fleet.export(tmp_path / "ansible", waves="1")
    checked = ansible(place, "install.yml", "--check")
    assert checked.status == 0, checked.text
    assert [generation(host) for host in fleet.hosts] == [0] * 5

    first = ansible(place, "install.yml")
    assert first.status == 0, first.text
    assert first.text.count("PLAY [Install the operator") == 2  # one host, then four
    assert all(count >= 1 for count in first.counted("changed").values())
    assert [generation(host) for host in fleet.hosts] == [1] * 5

    second = ansible(place, "install.yml")
    assert second.status == 0, second.text
    assert second.counted("changed") == dict.fromkeys(NAMES, 0)

    for play in ("smoke.yml", "verify.yml"):
        done = ansible(place, play, "--limit", "rack_1")
        assert done.status == 0, done.text
        assert done.counted("changed") == {"n01": 0, "n02": 0}

    back = ansible(place, "rollback.yml")
    assert back.status == 0, back.text
    assert [generation(host) for host in fleet.hosts] == [0] * 5


def test_a_host_whose_package_does_not_fit_stops_the_waves_behind_it(fleet: Fleet, tmp_path: Path) -> None:
    old = tmp_path / "old"
    create(old, cann_version="8.1.RC1")
    hosts = [fleet.hosts[0], replace(fleet.hosts[1], cann=str(old)), *fleet.hosts[2:]]

    stopped = ansible(fleet.export(tmp_path / "strict", hosts, waves="1,2"), "install.yml")
    assert stopped.status != 0
    assert re.search(r"\[n02\].*?\bNOT_COMPATIBLE|\bNOT_IN_BUNDLE", stopped.text, re.DOTALL), stopped.text
    assert "(exit status 4)" in stopped.text
    assert "To do: " in stopped.text
    assert stopped.counted("failed")["n02"] == 1
    assert set(stopped.recap) == {"n01", "n02"}
    assert [generation(host) for host in fleet.hosts] == [1, 0, 0, 0, 0]

    # Half of a wave may fail: one of two is not more than that.
    lenient = ansible(fleet.export(tmp_path / "lenient", hosts, waves="2,100%", max_fail="50%"), "install.yml")
    assert lenient.counted("failed") == {"n01": 0, "n02": 1, "n03": 0, "n04": 0, "n05": 0}
    assert [generation(host) for host in fleet.hosts] == [1, 0, 1, 1, 1]


def test_hosts_on_one_opp_install_once_and_all_verify(fleet: Fleet, tmp_path: Path) -> None:
    shared = [replace(host, cann=fleet.hosts[0].cann, shared_opp="nfs") for host in fleet.hosts]
    done = ansible(fleet.export(tmp_path / "shared", shared, waves="100%"), "install.yml")
    assert done.status == 0, done.text
    run = re.findall(r"TASK \[smallq_deploy : Run (\w+)\] \*+\n((?:\w+: \[n\d+\]\n)+)", done.text)
    assert (run[0][0], re.findall(r"n\d+", run[0][1])) == ("install", ["n01"])
    assert sorted(name for words, hosts in run[1:] for name in re.findall(r"n\d+", hosts)) == NAMES[1:]
    assert {words for words, _ in run[1:]} == {"verify"}


def test_another_bundle_than_the_exported_one_is_not_run(fleet: Fleet, tmp_path: Path) -> None:
    place = fleet.export(tmp_path / "ansible")
    with open(fleet.bundle, "ab") as stream:
        stream.write(b"more")
    done = ansible(place, "install.yml", "--limit", "n01")
    assert done.status != 0
    assert "BAD_BUNDLE" in done.text
    assert generation(fleet.hosts[0]) == 0
