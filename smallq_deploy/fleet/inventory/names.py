"""Do the names of an inventory resolve? Asked of the system's resolver, many at once and in bounded time."""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from smallq_deploy.base.errors import PackageError, SmallqError
from smallq_deploy.fleet.hosts import Host

_WORKERS = 64


def check_names(hosts: Iterable[Host], *, seconds: float = 10.0) -> list[SmallqError]:
    """A PackageError UNKNOWN_ADDRESS for each host whose address does not resolve here, in their order.

    Hosts behind a jump host or a relay are resolved there, so for these the jump host is asked for. Names that were not
    answered within ``seconds`` are not found either.
    """
    wanted: dict[str, list[Host]] = {}
    for host in hosts:
        name = _resolved_here(host)
        if name:
            wanted.setdefault(name, []).append(host)
    end = time.monotonic() + seconds
    answers = _resolve(list(wanted), end)
    aliases = _aliases([name for name in wanted if answers.get(name, "no answer")])
    behind = _resolve([other for other in aliases.values() if other], end)
    answers.update((name, behind.get(other, "no answer") if other else "") for name, other in aliases.items())
    errors: list[SmallqError] = []
    for name, asking in wanted.items():
        why = answers.get(name, f"no answer within {seconds:g} s")
        if why:
            errors += [_error(host, name, why) for host in asking]
    return errors


def _resolved_here(host: Host) -> str:
    """The name that this machine has to resolve for ``host``; '' for none."""
    name = host.target
    if host.jump:
        name = host.jump.rpartition("@")[2]
        name = re.sub(r"^\[(.*)\](:\d+)?$", r"\1", name) if name.startswith("[") else name.partition(":")[0]
    elif host.relay or name.startswith("local:"):
        return ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name
    return ""


def _aliases(names: list[str]) -> dict[str, str]:
    """What ~/.ssh/config, which the engines read, calls these names; '' for one that is behind another host."""
    path = Path.home() / ".ssh" / "config"
    if not names or not path.is_file():
        return {}
    try:
        from paramiko import SSHConfig, SSHException

        try:
            config = SSHConfig.from_path(str(path))
            found = {name: config.lookup(name) for name in names}
        except (SSHException, OSError, ValueError):  # the engine will say what is wrong with it
            return {}
    except ImportError:
        return {}
    aliases = {}
    for name, entry in found.items():
        through = entry.get("proxyjump", "none") != "none" or entry.get("proxycommand", "none") != "none"
        other = "" if through else str(entry.get("hostname", name))
        if other != name:
            aliases[name] = other
    return aliases


def _error(host: Host, name: str, why: str) -> SmallqError:
    whose = (
        f"the jump host {name} of {host.name}" if host.jump else name if name == host.name else f"{name} ({host.name})"
    )
    return PackageError(
        "UNKNOWN_ADDRESS",
        f"{host.source}: {whose} does not resolve: {why}" if host.source else f"{whose} does not resolve: {why}",
        hint="correct the name, or give its IP address as `address:`",
        details={"host": host.name, "address": name, "source": host.source},
    )


def _resolve(names: list[str], end: float) -> dict[str, str]:
    """name -> '' or why not. A call to the resolver cannot be ended: threads that hang are left behind."""
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    for name in names:
        todo.put(name)

    def work() -> None:
        while time.monotonic() < end:
            try:
                name = todo.get_nowait()
            except queue.Empty:
                return
            try:
                socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
                done.put((name, ""))
            except (OSError, UnicodeError) as error:
                done.put((name, getattr(error, "strerror", None) or str(error)))

    for _ in range(min(_WORKERS, len(names))):
        threading.Thread(target=work, daemon=True, name="resolve").start()
    answers: dict[str, str] = {}
    while len(answers) < len(names):
        try:
            name, why = done.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        answers[name] = why
    return answers
