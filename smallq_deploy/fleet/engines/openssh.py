"""The engine of OpenSSH's own client: where pyinfra is not installed, and on relays. Two to three processes a host."""

from __future__ import annotations

import re
import shlex
import threading
import time
from collections.abc import Callable, Sequence

from smallq_deploy.fleet.engines.local import OutOfTime, run_child, run_threads
from smallq_deploy.fleet.engines.remote import RUNNER, Course, Ended, Feed, Trouble, jump_host, perform
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.transport import Outcome, State, Task

PARALLEL = 40
CONNECT_SECONDS = 15
_BEGUN = "@@smallq begun"
_OURS = 255  # ssh's own exit status
_REFUSED = re.compile(r"Permission denied|Host key verification failed|HOST IDENTIFICATION HAS CHANGED|No .* host key")
_CUT = re.compile(r"^(client_loop|Connection (to|closed|reset)|Read from|Timeout, server|packet_write|.*Broken pipe)")


class OpenSshTransport:
    """The `ssh` program, ``parallel`` at once. It asks nothing, and its own configuration files count."""

    def __init__(self, parallel: int = PARALLEL) -> None:
        self._parallel = parallel

    def run(
        self, tasks: Sequence[Task], on_outcome: Callable[[Outcome], None], stop: threading.Event | None = None
    ) -> None:
        """See Transport."""
        run_threads(tasks, _one, self._parallel, on_outcome, stop)

    def close(self) -> None:
        """Nothing stays open."""


def ssh_words(host: Host) -> list[str]:
    """The command line up to the command there."""
    return [*_client(host), "-o", "ClearAllForwardings=yes", *_jump(host), "--", host.target]


def _client(host: Host) -> list[str]:
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": str(CONNECT_SECONDS),
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "3",
        "LogLevel": "ERROR",
    }
    if host.known_hosts:
        options |= {"UserKnownHostsFile": host.known_hosts, "GlobalKnownHostsFile": "none"}
    words = ["ssh", "-T", *(word for item in options.items() for word in ("-o", "=".join(item)))]
    if host.key:
        words += ["-i", host.key, "-o", "IdentitiesOnly=yes"]
    if host.port:
        words += ["-p", str(host.port)]
    return [*words, *(("-l", host.user) if host.user else ())]


def _jump(host: Host) -> list[str]:
    """As ``-J``, but with the host's own key and known hosts, which ``-J`` does not hand on."""
    if not host.jump:
        return []
    jump = jump_host(host)
    words = shlex.join([*_client(jump), "-W", "@@", "--", jump.target]).replace("%", "%%").replace("@@", "[%h]:%p")
    return ["-o", f"ProxyCommand={words}"]


def _one(task: Task) -> Outcome:
    end, course = time.monotonic() + task.timeout, Course()

    def execute(command: str, feed: Feed) -> Ended:
        if isinstance(feed, bytes) and command == RUNNER:
            feed = f"echo '{_BEGUN}' >&2\n".encode() + feed
        try:
            ended = run_child([*ssh_words(task.host), command], feed, end - time.monotonic())
        except OutOfTime as out:
            if course.phase == "run" and _BEGUN not in out.stderr:
                course.phase = "connect"
            raise course.out_of_time(task.timeout) from None
        stderr = ended.stderr.replace(_BEGUN + "\n", "", 1)
        if ended.status == 127 and "ssh: not found" in stderr:
            raise Trouble(State.UNREACHABLE, "there is no ssh program here")
        if ended.status != _OURS:
            return Ended(ended.status, ended.stdout, stderr)
        last = (stderr.strip().splitlines() or [""])[-1]
        if _BEGUN in ended.stderr:
            return Ended(None if _CUT.match(last) else _OURS, ended.stdout, stderr)
        if course.phase == "upload":
            return Ended(None, stderr=last)
        state = State.REFUSED if _REFUSED.search(stderr) else State.UNREACHABLE
        through = f"through {task.host.jump}: " if task.host.jump else ""
        raise Trouble(state, through + (_in_short(stderr) or "ssh ended without a word"))

    return perform(task, execute, course)


def _in_short(stderr: str) -> str:
    """The line of ssh's that says most, in one sentence."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if any("HOST IDENTIFICATION HAS CHANGED" in line for line in lines):
        return "the host key is not the one in the known hosts: changed, or another host"
    telling = [line for line in lines if line.startswith(("ssh: ", "No ")) or "Permission denied" in line]
    return (telling or lines[-1:] or [""])[0][:300]
