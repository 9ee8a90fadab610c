"""The exported scripts for plain ssh and for ClusterShell, against real sshd; a small program stands for the bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smallq_deploy.base.fsops import sha256_file
from smallq_deploy.fleet.export import exporter
from smallq_deploy.fleet.export.request import ExportRequest
from smallq_deploy.fleet.export.write import write_export
from smallq_deploy.fleet.hosts import Host, Inventory
from smallq_deploy.fleet.rollout.policy import Policy
from tests.support import sshd

CLUSH = Path(sys.executable).with_name("clush")
SCRIPTS = {"ssh": "ssh.sh", "clustershell": "clush.sh"}
# Says what it was asked in the tool's form, and keeps it in the host's home; fails where the home says so.
_BUNDLE = """\
import json, os, sys
home = os.path.expanduser("~")
with open(os.path.join(home, "asked"), "a") as stream:
    stream.write(json.dumps(sys.argv[1:]) + "\\n")
status = 4 if os.path.exists(os.path.join(home, "bad")) and sys.argv[1] == "install" else 0
print(json.dumps({"schema_version": 1, "exit_status": status, "data": {}, "errors": []}, indent=2))
sys.exit(status)
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[sshd.Farm]:
    if not sshd.sshd_path():
        pytest.skip("no sshd: `.ci/setup dev` installs openssh-server")
    with sshd.loopback(tmp_path / "farm", 4) as made:
        yield made


def asked(server: sshd.Server) -> list[list[str]]:
    path = server.home / "asked"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def export(kind: str, directory: Path, hosts: list[Host], **policy: str) -> Path:
    bundle = directory / "it's the bundle.pyz"
    bundle.write_text(_BUNDLE)
    request = ExportRequest(
        Inventory("test", "test.yml", tuple(hosts)),
        bundle,
        sha256_file(bundle),
        policy=Policy.parse(**policy),  # type: ignore[arg-type]
    )
    write_export(exporter(kind)(request), directory / kind)
    return directory / kind


def run(kind: str, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    if kind == "clustershell" and not CLUSH.exists():
        pytest.skip("ClusterShell is not installed")
    env = {**os.environ, "PATH": f"{CLUSH.parent}:{os.environ['PATH']}"}
    argv = [f"./{SCRIPTS[kind]}", *words]
    return subprocess.run(argv, cwd=place, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("kind", SCRIPTS)
def test_installs_in_waves_with_every_hosts_own_options(hosts: sshd.Farm, tmp_path: Path, kind: str) -> None:
    known = tmp_path / "known 100% hosts"
    known.write_bytes(hosts.known_hosts.read_bytes())
    own = [replace(host, cann="/opt/it's $HOME", known_hosts=str(known)) for host in hosts.hosts[:2]]
    place = export(kind, tmp_path, [*own, *hosts.hosts[2:]], waves="1,3")
    done = run(kind, place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("wave")] == ["wave 1", "wave 2", "wave 3"]
    words = [asked(server) for server in hosts.servers]
    assert words[:2] == [[["install", "--yes", "--cann", "/opt/it's $HOME", "--json"]]] * 2
    assert words[2:] == [[["install", "--yes", "--json"]]] * 2
    for action in ("smoke", "verify", "rollback"):
        assert run(kind, place, action).returncode == 0
    assert [line[0] for line in asked(hosts[3])] == ["install", "smoke", "verify", "rollback"]


@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_failed_host_stops_the_waves_behind_it(hosts: sshd.Farm, tmp_path: Path, kind: str) -> None:
    (hosts[1].home / "bad").touch()
    place = export(kind, tmp_path, hosts.hosts, waves="1,2")
    done = run(kind, place)
    assert done.returncode == 11
    assert "1 hosts failed, 0 may: stopped" in done.stderr
    assert [len(asked(server)) for server in hosts.servers] == [1, 1, 0, 0]
    lenient = export(kind, tmp_path, hosts.hosts, waves="1,2", max_fail="1")
    assert run(kind, lenient).returncode == 0
    assert [len(asked(server)) for server in hosts.servers] == [2, 2, 1, 1]


@pytest.mark.parametrize("kind", SCRIPTS)
def test_an_unreachable_host_counts_as_failed(hosts: sshd.Farm, tmp_path: Path, kind: str) -> None:
    sshd.stop_server(hosts[0])
    done = run(kind, export(kind, tmp_path, hosts.hosts, waves="1"))
    assert done.returncode == 11, done.stdout + done.stderr
    assert [len(asked(server)) for server in hosts.servers] == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", SCRIPTS)
def test_an_unknown_host_key_is_refused(hosts: sshd.Farm, tmp_path: Path, kind: str) -> None:
    other = tmp_path / "no hosts"
    other.touch()
    done = run(kind, export(kind, tmp_path, [replace(host, known_hosts=str(other)) for host in hosts.hosts]))
    assert done.returncode == 11
    assert other.read_text() == ""
    assert not any(asked(server) for server in hosts.servers)


@pytest.mark.parametrize("kind", SCRIPTS)
def test_another_bundle_than_the_exported_one_is_not_run(hosts: sshd.Farm, tmp_path: Path, kind: str) -> None:
    place = export(kind, tmp_path, hosts.hosts)
    (tmp_path / "it's the bundle.pyz").write_text(_BUNDLE + "# more\n")
    assert run(kind, place).returncode == 11
    assert not any(asked(server) for server in hosts.servers)


@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_shared_opp_is_installed_once_and_verified_everywhere(hosts: sshd.Farm, tmp_path: Path, kind: str) -> None:
    place = export(kind, tmp_path, [replace(host, shared_opp="nfs") for host in hosts.hosts], waves="100%")
    assert run(kind, place).returncode == 0
    assert [[line[0] for line in asked(server)] for server in hosts.servers] == [["install"], *[["verify"]] * 3]
