"""ClusterShell and plain ssh: a script that goes through the waves, an ssh_config, and what each node runs."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

from smallq_deploy.fleet.export.request import ExportRequest, HostWave, cut, names
from smallq_deploy.fleet.export.text import fill
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.inventory.ranges import compress
from smallq_deploy.fleet.node import PLACE, command_for

_WORDS = {
    "install": ("install", "--yes"),
    "rollback": ("rollback", "--yes"),
    "smoke": ("smoke",),
    "verify": ("verify",),
}


def export_clustershell(request: ExportRequest) -> dict[str, str]:
    """Relative file name -> text, for clush 1.9 and newer. Raises UsageError NO_HOSTS."""
    return _export(request, "clush.sh")


def export_ssh(request: ExportRequest) -> dict[str, str]:
    """Relative file name -> text; needs bash and ssh here, sh and Python there. Raises UsageError NO_HOSTS."""
    return _export(request, "ssh.sh")


def _export(request: ExportRequest, script: str) -> dict[str, str]:
    waves = cut(request)
    alike: dict[tuple[bool, str], list[Host]] = {}
    for wave in waves:
        for host in wave.hosts:
            alike.setdefault((host.sudo, _command(request, host, "verify")), []).append(host)
    groups = {host.name: number for number, hosts in enumerate(alike.values(), 1) for host in hosts}
    files = {
        f"node/{action}-{groups[hosts[0].name]}.sh": _command(request, hosts[0], action)
        for hosts in alike.values()
        for action in _WORDS
    }
    values = {
        "bundle": shlex.quote(str(request.bundle)),
        "sha256": request.bundle_sha256,
        "name": request.node_name,
        "place": PLACE,
        "timeout": str(int(request.timeout)),
        "waves": "\n  ".join(line for wave in waves for line in _lines(wave, groups, "turn_action")),
        "all_changed": "\n  ".join(_turns([host for wave in waves for host in wave.change], groups, "turn_action")),
        "everything": "\n  ".join(_turns([host for wave in waves for host in wave.hosts], groups, "turn_action")),
    }
    return {script: fill(f"ssh/{script}", values), "ssh_config": _ssh_config(waves), **files}


def _command(request: ExportRequest, host: Host, action: str) -> str:
    cann, opp, vendor = host.cann or request.cann, host.opp or request.opp, host.vendor or request.vendor
    full = dataclasses.replace(host, cann=cann, opp=opp, vendor=vendor)
    return command_for(full, request.node_name, _WORDS[action], carries_python=True)


def _lines(wave: HostWave, groups: dict[str, int], action: str) -> list[str]:
    return [
        f"begin {wave.number}",
        *_turns(wave.change, groups, action),
        *(_turns(wave.verify, groups, "verify") if wave.verify else ()),
        f"end {wave.may_fail}",
    ]


def _turns(hosts: Sequence[Host], groups: dict[str, int], action: str) -> list[str]:
    """`turn ACTION GROUP SUDO NODESET`, one line for each group of equal hosts."""
    action = '"$action"' if action == "turn_action" else action
    alike: dict[tuple[int, bool], list[Host]] = {}
    for host in hosts:
        alike.setdefault((groups[host.name], host.sudo), []).append(host)
    return [
        f"turn {action} {group} {'yes' if sudo else 'no'} {shlex.quote(compress(names(own)))} {shlex.join(names(own))}"
        for (group, sudo), own in alike.items()
    ]


def _ssh_config(waves: Sequence[HostWave]) -> str:
    """How each host is reached; host keys must be known."""
    blocks = []
    for host in (host for wave in waves for host in wave.hosts):
        settings = {
            "HostName": host.address,
            "Port": str(host.port or ""),
            "User": host.user,
            "IdentityFile": _quoted(host.key),
            "ProxyJump": host.jump,
            "UserKnownHostsFile": _quoted(host.known_hosts),
        }
        blocks.append(
            "\n".join([f"Host {host.name}", *(f"  {key} {value}" for key, value in settings.items() if value)])
        )
    common = "Host *\n  BatchMode yes\n  StrictHostKeyChecking yes\n  ConnectTimeout 15\n  ServerAliveInterval 15\n"
    return "\n\n".join([*blocks, common])


def _quoted(path: str) -> str:
    """A path as ssh_config reads one: % begins a token there."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"' if path else ""
