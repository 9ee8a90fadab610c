"""Connections of the worker process: pyinfra's connectors, their errors as our states, commands with exact output.

pyinfra reads ~/.ssh/config, known hosts, keys and the agent, and connects. Commands run on the paramiko client below:
pyinfra's own call knows no exit status, and stops reading at the first byte that is no UTF-8.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from smallq_deploy.fleet.engines.knownhosts import teach_pyinfra
from smallq_deploy.fleet.engines.remote import Ended, Feed, Trouble, jump_host
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.transport import State, Task

CONNECT_SECONDS = 15
KEEP_OUTPUT = 32 * 1024 * 1024  # bytes of each stream; what is more is read and dropped
_KEEPALIVE = 15  # seconds; with TCP's own limit below, a host that lost its power is noticed within a minute
_UNANSWERED = 45
_CHUNK = 32768


class Connections:
    """Makes a connection for each task; keeps private keys (in pyinfra's state) and the connections to jump hosts."""

    def __init__(self) -> None:
        from pyinfra.api.config import Config
        from pyinfra.api.connectors import get_execution_connectors
        from pyinfra.api.inventory import Inventory
        from pyinfra.api.state import State as PyinfraState

        teach_pyinfra()
        # One inventory for all: each new one reads the metadata of every installed package, which takes longer
        # than connecting. Hosts join it as they come and leave it with their connection.
        self._kinds = get_execution_connectors()
        self._inventory = Inventory(([], {}))
        self._state = PyinfraState()
        self._state.init(self._inventory, Config(CONNECT_TIMEOUT=CONNECT_SECONDS, PARALLEL=1))
        self._number = 0
        self._jumps: dict[tuple[str, ...], Any] = {}
        self._locks: dict[tuple[str, ...], Any] = {}

    def fake(self, task: Task, script: Mapping[str, Any]) -> FakeConnection:
        """pyinfra's connector without a machine; see pyinfra_ssh.Fake."""
        return FakeConnection(self, script)

    def real(self, task: Task) -> Connection:
        """To the task's host; connects with open()."""
        return Connection(self, task.host)

    def join(self, kind: str, data: Mapping[str, Any]) -> Any:
        """A new pyinfra host with a connector of this kind."""
        from pyinfra.api.host import Host as PyinfraHost

        self._number += 1
        name = f"{kind}{self._number}"
        self._inventory.host_data[name] = dict(data)
        host = PyinfraHost(name, self._inventory, [], self._kinds[kind])
        self._inventory.hosts = {name: host}  # pyinfra aligns its own messages by the names it finds here
        host.init(self._state)
        return host

    def leave(self, host: Any) -> None:
        """The host is done with."""
        self._inventory.host_data.pop(host.name, None)

    def through(self, host: Host) -> Any:
        """A socket to ``host`` through its jump host, to which one connection serves all."""
        from gevent.lock import Semaphore
        from pyinfra.connectors.sshuserclient.client import SSHClient

        key = (host.jump, host.user, host.key, host.known_hosts)
        with self._locks.setdefault(key, Semaphore()):
            client = self._jumps.get(key)
            if client is None or not client.get_transport().is_active():
                jump = jump_host(host)
                connection = Connection(self, jump)
                try:
                    connection.open()
                except Trouble as trouble:
                    raise Trouble(trouble.state, f"jump host {jump.target}: {trouble}") from None
                client = self._jumps[key] = connection.client
        assert isinstance(client, SSHClient)
        return client.gateway("127.0.0.1", 0, host.target, host.port or 22, timeout=CONNECT_SECONDS)


class Connection:
    """One host over SSH."""

    def __init__(self, connections: Connections, host: Host) -> None:
        self._connections, self._host = connections, host
        self._pyinfra: Any = None

    @property
    def client(self) -> Any:
        """paramiko's client; None before open()."""
        return None if self._pyinfra is None else self._pyinfra.connector.client

    def open(self) -> None:
        """Connect and log in; raises Trouble UNREACHABLE or REFUSED."""
        from pyinfra.api.exceptions import PyinfraError

        host = self._host
        paramiko: dict[str, Any] = {"banner_timeout": CONNECT_SECONDS, "auth_timeout": 2 * CONNECT_SECONDS}
        data = {
            "ssh_hostname": host.target,
            "ssh_port": host.port,
            "ssh_user": host.user,
            "ssh_key": host.key,
            "ssh_known_hosts_file": host.known_hosts,
            "ssh_strict_host_key_checking": "yes",
            "ssh_paramiko_connect_kwargs": paramiko,
        }
        try:
            if host.jump:
                paramiko["sock"] = self._connections.through(host)
            self._pyinfra = self._connections.join("ssh", {k: v for k, v in data.items() if v})
            self._pyinfra.connect(show_errors=False, raise_exceptions=True)
        except (PyinfraError, OSError, EOFError) as error:
            raise _trouble(host, error) from None
        except Exception as error:
            if _named(error, "SSHException"):
                raise _trouble(host, error) from None
            raise
        self._watch()

    def _watch(self) -> None:
        """Notice a host that went away without a word."""
        transport = self.client.get_transport()
        transport.set_keepalive(_KEEPALIVE)
        with suppress(OSError, AttributeError):  # through a jump host it is no socket
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED * 1000)

    def execute(self, command: str, feed: Feed) -> Ended:
        """Run one command line; see remote.Execute."""
        import gevent
        from paramiko import SSHException

        begun = False
        try:
            channel = self.client.get_transport().open_session(timeout=2 * CONNECT_SECONDS)
            begun = True
            channel.exec_command(command)
            errors = gevent.spawn(_drain, channel.recv_stderr)
            try:
                with suppress(OSError):  # a command may end without reading; its status tells
                    for chunk in _chunks(feed):
                        channel.sendall(chunk)
                    channel.shutdown_write()
                stdout, stderr = _drain(channel.recv), errors.get()
                status = channel.recv_exit_status()
            finally:
                errors.kill(block=False)
                channel.close()
        except (SSHException, OSError, EOFError) as error:
            if not begun:
                raise Trouble(State.UNREACHABLE, f"the connection ended before the command began: {error}") from None
            return Ended(None)
        return Ended(status if status >= 0 else None, stdout, stderr)

    def close(self) -> None:
        """Close the connection, whatever its state; what runs on the host ends by its own time."""
        if self._pyinfra is None:
            return
        self._connections.leave(self._pyinfra)
        if self.client is not None:
            with suppress(Exception):
                self.client.close()
            with suppress(Exception):
                self._pyinfra.disconnect()


class FakeConnection:
    """A host without a machine, scripted; the same loop, no network."""

    def __init__(self, connections: Connections, script: Mapping[str, Any]) -> None:
        self._connections, self._script = connections, script
        self._pyinfra: Any = None

    def open(self) -> None:
        """Never fails."""
        status = int(self._script.get("exit_status", 0))
        answer = {
            "success": status == 0,
            "stdout": self._script.get("stdout", ""),
            "stderr": self._script.get("stderr", ""),
        }
        data = {
            "fake_responses": {"": answer},
            "fake_delay": float(self._script.get("delay", 0)),
            "fake_delay_jitter": 0.0,
        }
        self._pyinfra = self._connections.join("fake", data)
        self._pyinfra.connect(show_errors=False, raise_exceptions=True)

    def execute(self, command: str, feed: Feed) -> Ended:
        """The scripted answer, whatever the command."""
        good, output = self._pyinfra.run_shell_command(command)
        status = 0 if good else int(self._script.get("exit_status", 1))
        return Ended(status, output.stdout, output.stderr)

    def close(self) -> None:
        """Nothing is open."""
        if self._pyinfra is not None:
            self._connections.leave(self._pyinfra)


def _chunks(feed: Feed) -> Iterator[bytes]:
    if isinstance(feed, bytes):
        yield feed
        return
    with open(feed, "rb") as stream:
        while data := stream.read(_CHUNK):
            yield data


def _drain(receive: Any) -> str:
    """All of a stream; the first KEEP_OUTPUT bytes of it are kept."""
    kept = bytearray()
    while data := receive(_CHUNK):
        if len(kept) < KEEP_OUTPUT:
            kept += data
    return bytes(kept).decode("utf-8", "replace")


def _named(error: BaseException | None, *names: str) -> bool:
    """Is it one of these classes of paramiko, or below one?"""
    return error is not None and any(kind.__name__ in names for kind in type(error).__mro__)


def _trouble(host: Host, error: BaseException) -> Trouble:
    """A failed connection in our words. pyinfra keeps the cause as the context of its own error."""
    cause = error.__context__ if _named(error, "PyinfraError") and error.__context__ is not None else error
    where = host.target if host.port in (0, 22) else f"{host.target} port {host.port}"
    known = host.known_hosts or "~/.ssh/known_hosts"
    text = str(cause)
    if _named(cause, "BadHostKeyException"):
        return Trouble(State.REFUSED, f"the host key of {where} is not the one in {known}: changed, or another host")
    if "No host key for" in text:
        return Trouble(State.REFUSED, f"the host key of {where} is not in {known}")
    if _named(cause, "AuthenticationException") or "No authentication methods" in text:
        who = host.user or "this user"
        return Trouble(State.REFUSED, f"{where} does not let {who} log in with {host.key or 'the keys there are'}")
    if _named(error, "PyinfraError") and not _named(error, "ConnectError"):
        return Trouble(State.REFUSED, f"the key {host.key} cannot be used: {text}")
    if isinstance(cause, socket.gaierror):
        return Trouble(State.UNREACHABLE, f"{host.target} is no name that can be resolved")
    if isinstance(cause, TimeoutError):
        return Trouble(State.UNREACHABLE, f"{where} did not answer within {CONNECT_SECONDS} s")
    if _named(cause, "NoValidConnectionsError"):
        inner = next(iter(getattr(cause, "errors", {}).values()), cause)
        return Trouble(State.UNREACHABLE, f"{where}: {getattr(inner, 'strerror', None) or inner}")
    if isinstance(cause, OSError):
        return Trouble(State.UNREACHABLE, f"{where}: {cause.strerror or os.strerror(cause.errno or 0)}")
    return Trouble(State.UNREACHABLE, f"{where}: no SSH connection: {text or type(cause).__name__}")
