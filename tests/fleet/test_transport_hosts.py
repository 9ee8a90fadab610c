"""The hosts the fleet tests stand on are real: OpenSSH's own client gets a home and a root of its own on each."""

from __future__ import annotations

import subprocess

from smallq_deploy.fleet.hosts import Host
from tests.support import sshd


def _ssh(host: Host, command: str) -> str:
    options = ["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=2"]
    options += ["-o", f"UserKnownHostsFile={host.known_hosts}", "-i", host.key, "-p", str(host.port or 22)]
    done = subprocess.run(["ssh", *options, f"{host.user}@{host.target}", command], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else f"{done.returncode}: {done.stderr.strip()}"


def test_every_loopback_host_has_its_own_home_and_root(farm: sshd.Farm) -> None:
    assert len(farm.hosts) == 20
    for server in (farm[0], farm[19]):
        assert _ssh(server.host, 'echo "$HOME $FAKE_HOST_ROOT"') == f"{server.home} {server.root}"


def test_a_namespace_host_goes_away_with_its_link_and_comes_back(namespace_farm: sshd.Farm) -> None:
    server = namespace_farm[4]
    assert _ssh(server.host, "echo here") == "here"
    sshd.link(server, "down")
    try:
        assert _ssh(server.host, "echo here").startswith("255: ")
    finally:
        sshd.link(server, "up")
    assert _ssh(server.host, "echo here") == "here"
