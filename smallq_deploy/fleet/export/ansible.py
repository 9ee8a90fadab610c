"""Ansible: an inventory, a role of ansible.builtin modules only, and a playbook for each thing one does to a fleet."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from typing import Any

from smallq_deploy.fleet.export.request import ExportRequest, HostWave, cut
from smallq_deploy.fleet.export.text import dump, for_ansible, static
from smallq_deploy.fleet.hosts import Host

_ROLE = "roles/smallq_deploy"
_FILES = ("ansible.cfg", *(f"{_ROLE}/{part}/main.yml" for part in ("defaults", "meta", "tasks")))
_FILES += (f"{_ROLE}/tasks/bundle.yml", f"{_ROLE}/tasks/run.yml")
# action -> (in waves, what its play is called)
_PLAYS = {
    "install": (True, "Install the operator, prove it, keep it or put the old state back"),
    "rollback": (False, "Make the generation live again that was live before"),
    "smoke": (False, "Prove the installed operator"),
    "verify": (False, "Compare every installed file with what was installed"),
}
NODES = "smallq_nodes"


def export_ansible(request: ExportRequest) -> dict[str, str]:
    """Relative file name -> text. Raises UsageError NO_HOSTS, BAD_VALUE."""
    waves = cut(request)
    files = {name: static(f"ansible/{name}") for name in _FILES}
    files["inventory.yml"] = dump(_inventory(request, waves))
    for action, (in_waves, title) in _PLAYS.items():
        play = {"name": title, "hosts": NODES, "order": "inventory", "gather_facts": False}
        play |= {"serial": [len(wave.hosts) for wave in waves] if in_waves else "100%"}
        play |= {"max_fail_percentage": max_fail_percentage(request, waves) if in_waves else 100}
        files[f"{action}.yml"] = dump([{**play, "vars": {"smallq_action": action}, "roles": ["smallq_deploy"]}])
    return files


def max_fail_percentage(request: ExportRequest, waves: Sequence[HostWave]) -> int:
    """Ansible knows a share of a batch only; a number of hosts becomes the share it is of the largest batch, which is
    stricter in the others."""
    limit = request.policy.max_fail_wave or request.policy.max_fail
    if limit.percent:
        return limit.of(100)
    return min(100, 100 * limit.of(0) // max(len(wave.hosts) for wave in waves))


def _inventory(request: ExportRequest, waves: Sequence[HostWave]) -> dict[str, Any]:
    # In the order of the waves, which is what `serial` counts.
    hosts = {host.name: _host(request, host, host in wave.verify) for wave in waves for host in wave.hosts}
    children: dict[str, Any] = {
        NODES: {
            "hosts": hosts,
            "vars": {
                "smallq_bundle": for_ansible(str(request.bundle)),
                "smallq_bundle_sha256": request.bundle_sha256,
                "smallq_bundle_name": request.node_name,
                "smallq_timeout": int(request.timeout),
            },
        }
    }
    for group, names in request.inventory.groups.items():
        own = children.setdefault(_group(group, hosts), {"hosts": {}})
        own["hosts"].update({name: {} for name in names if name in hosts})
    return {"all": {"children": children}}


def _group(name: str, hosts: Collection[str]) -> str:
    """The name of a group as Ansible allows one, and which nothing else has: `rack-1` is `rack_1`."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"group_{plain}" if plain[:1].isdigit() or plain in ("all", "ungrouped", NODES) or name in hosts else plain


def _host(request: ExportRequest, host: Host, verified: bool) -> dict[str, Any]:
    ssh = []
    if host.jump:
        ssh += ["-o", f"ProxyJump={host.jump}"]
    if host.known_hosts:
        # ssh itself takes several files there, between blanks.
        known = f'"{host.known_hosts}"' if " " in host.known_hosts else host.known_hosts
        ssh += ["-o", f"UserKnownHostsFile={known}"]
    values: dict[str, Any] = {
        "ansible_host": host.address,
        "ansible_port": host.port,
        "ansible_user": host.user,
        "ansible_ssh_private_key_file": host.key,
        "ansible_ssh_common_args": shlex.join(ssh),
        "ansible_python_interpreter": host.python,
        "ansible_become": host.sudo,
        "smallq_python": host.python,
        "smallq_cann": host.cann or request.cann,
        "smallq_opp": host.opp or request.opp,
        "smallq_vendor": host.vendor or request.vendor,
        "smallq_timeout": int(host.timeout),
        "smallq_shared_opp": host.shared_opp,
        "smallq_verify_only": verified,
    }
    return {name: for_ansible(value) if isinstance(value, str) else value for name, value in values.items() if value}
