"""What every engine makes a host do, in plain sh: keep the uploads, run the command within its time.

An engine only says how one command line with an input is run on a host; :func:`perform` makes a task's outcome of it.
Nothing but sh, cat, sha256sum, mkdir and mv is used there, so any login shell and a host without SFTP will do.
"""

from __future__ import annotations

import math
import shlex
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.node import PLACE
from smallq_deploy.fleet.transport import Outcome, State, Task, Upload

# The script comes as input: no login shell has to understand it, and no argument can be too long.
RUNNER = "exec /bin/sh -c 'eval \"$(cat)\"'"
KEEP_DAYS = 30
LEAVE = 2  # seconds after our own time when the host ends the command itself
_MISSING, _MISSING_STATUS, _FAILED_STATUS, _NO_SUDO_STATUS = "@@smallq missing", 98, 96, 97

_LOOK = """(
umask 077
d="$HOME/{place}"
mkdir -p "$d" && chmod 700 "$d" || exit {failed}
m=
{checks}
[ -z "$m" ] || {{ printf '%s%s\\n' '{missing}' "$m"; exit {status}; }}
cd "$d" && touch -c -- {names} 2>/dev/null
find "$d" -type f -mtime +{days} -exec rm -f {{}} + 2>/dev/null
exit 0
) || exit $?
"""
_CHECK = '[ "$(sha256sum 2>/dev/null <"$d"/{name} | cut -c 1-64)" = {sha256} ] || m="$m {number}"'
# A dropped connection leaves a command alone (an install ends by itself, one way or the other); its time still ends it.
_RUN = """SMALLQ_FLEET_HOME=$HOME
export SMALLQ_FLEET_HOME
t=
command -v timeout >/dev/null 2>&1 && t='timeout -k 10 {seconds}'
"""
_PLAIN = "exec $t /bin/sh -c {command}\n"
_SUDO = """if [ "$(id -u)" = 0 ]; then
  exec $t /bin/sh -c {command}
fi
if sudo -n /bin/sh -c : 2>/dev/null; then
  exec sudo -n env SMALLQ_FLEET_HOME="$HOME" $t /bin/sh -c {command}
fi
echo '@@smallq no sudo' >&2
exit {status}
"""
_RECEIVE = (
    'umask 077; d="$HOME/{place}"; t="$d"/{temporary}; '
    'cat >"$t" || {{ rm -f "$t"; exit {failed}; }}; '
    'if [ "$(sha256sum <"$t" | cut -c 1-64)" = {sha256} ]; then chmod 700 "$t" && mv -f "$t" "$d"/{name} && exit 0; '
    'else echo "what arrived is not what was sent" >&2; fi; rm -f "$t"; exit {failed}'
)


@dataclass(frozen=True)
class Ended:
    """A command line that ended on a host. ``status`` is None where the connection ended first."""

    status: int | None
    stdout: str = ""
    stderr: str = ""


class Trouble(Exception):
    """Why a host could not be asked, or what became of it: a state and one sentence without secrets."""

    def __init__(self, state: State, text: str) -> None:
        super().__init__(text)
        self.state = state


Feed = bytes | Path  # what a command line reads: these bytes, or that file
Execute = Callable[[str, Feed], Ended]


class Course:
    """How far a task has come: says what running out of time means."""

    def __init__(self) -> None:
        self.phase = "connect"

    def out_of_time(self, seconds: float) -> Trouble:
        """The trouble that a task has whose own time is over now."""
        if self.phase == "connect":
            return Trouble(State.UNREACHABLE, f"no connection within {seconds:g} s")
        if self.phase == "upload":
            return Trouble(State.UPLOAD_FAILED, f"the upload did not end within {seconds:g} s")
        return Trouble(State.TIMED_OUT, f"no answer within {seconds:g} s")


def perform(task: Task, execute: Execute, course: Course) -> Outcome:
    """Uploads what the host has not, runs the command; its outcome, whose ``seconds`` the engine fills in.

    ``execute`` raises Trouble where the host cannot be asked.
    """
    end = time.monotonic() + task.timeout
    course.phase = "run"
    try:
        ended = execute(RUNNER, script_for(task, end - time.monotonic()).encode())
        uploads = _missing(task, ended)
        for upload in uploads:
            course.phase = "upload"
            sent = execute(_receive(upload), upload.path)
            if sent.status != 0:
                raise Trouble(State.UPLOAD_FAILED, f"{upload.name}: {_last_line(sent) or 'the connection ended'}")
        if uploads:
            course.phase = "run"
            ended = execute(RUNNER, script_for(task, end - time.monotonic()).encode())
            if _missing(task, ended):
                raise Trouble(State.UPLOAD_FAILED, "what was uploaded is gone again")
        if ended.status is None:
            raise Trouble(State.LOST, "the connection ended while the command ran")
        if task.uploads and ended.status == _FAILED_STATUS:
            raise Trouble(State.UPLOAD_FAILED, _last_line(ended) or f"~/{PLACE} cannot be made")
    except Trouble as trouble:
        return failed(task, trouble)
    return Outcome(task.host.name, State.DONE, ended.status, ended.stdout, ended.stderr, uploaded=len(uploads))


def failed(task: Task, trouble: Trouble) -> Outcome:
    """The outcome of a task that met trouble."""
    return Outcome(task.host.name, trouble.state, error=str(trouble))


def skipped(task: Task) -> Outcome:
    """The outcome of a task that was not begun because the run was asked to stop."""
    return Outcome(task.host.name, State.SKIPPED, error="the run was stopped before this host's turn")


def timed(outcome: Outcome, start: float) -> Outcome:
    """``outcome`` with the seconds since ``start`` (monotonic)."""
    return replace(outcome, seconds=round(time.monotonic() - start, 3))


def jump_host(host: Host) -> Host:
    """How ``host.jump`` (``[user@]host[:port]``) is reached: as the host itself, unless it says otherwise."""
    user, _, place = host.jump.rpartition("@")
    address, port = _split_port(place)
    return Host(host.jump, address, port, user or host.user, host.key, known_hosts=host.known_hosts)


def _split_port(place: str) -> tuple[str, int]:
    """``host``, ``host:port``, ``[v6]:port`` -> address and port (0: not said)."""
    if place.startswith("["):
        address, _, port = place[1:].partition("]")
        return address, int(port.lstrip(":") or 0)
    address, colon, port = place.rpartition(":")
    if colon and ":" not in address and port.isdigit():
        return address, int(port)
    return place, 0


def script_for(task: Task, seconds: float) -> str:
    """Text for /bin/sh: are the uploads there, then the command, ended there LEAVE seconds after ``seconds``.

    Where an upload is missing nothing runs, and the numbers of those missing are printed.
    """
    script = ""
    if task.uploads:
        names = [_plain(item.name) for item in task.uploads]
        checks = "\n".join(
            _CHECK.format(name=name, sha256=item.sha256, number=number)
            for number, (name, item) in enumerate(zip(names, task.uploads, strict=True))
        )
        script = _LOOK.format(
            place=PLACE,
            failed=_FAILED_STATUS,
            checks=checks,
            missing=_MISSING,
            status=_MISSING_STATUS,
            names=" ".join(names),
            days=KEEP_DAYS,
        )
    script += _RUN.format(seconds=max(1, math.ceil(seconds)) + LEAVE)
    how = _SUDO if task.host.sudo else _PLAIN
    return script + how.format(command=shlex.quote(task.command), status=_NO_SUDO_STATUS)


def _receive(upload: Upload) -> str:
    """One command line: its input becomes the file, once it is whole."""
    temporary = shlex.quote(f".{upload.name}.{uuid.uuid4().hex[:12]}")
    text = _RECEIVE.format(
        place=PLACE, temporary=temporary, name=_plain(upload.name), sha256=upload.sha256, failed=_FAILED_STATUS
    )
    return f"exec /bin/sh -c {shlex.quote(text)}"


def _plain(name: str) -> str:
    if "/" in name or name in ("", ".", "..") or name.startswith("-") or not name.isprintable():
        raise ValueError(f"an upload's name is a plain file name, not {name!r}")
    return shlex.quote(name)


def _missing(task: Task, ended: Ended) -> tuple[Upload, ...]:
    """The uploads a host said it has not; () where it ran the command."""
    if ended.status != _MISSING_STATUS or not task.uploads:
        return ()
    for line in ended.stdout.splitlines():
        if line.startswith(_MISSING):
            numbers = line[len(_MISSING) :].split()
            return tuple(task.uploads[int(number)] for number in numbers)
    return ()


def _last_line(ended: Ended) -> str:
    lines = ended.stderr.strip().splitlines()
    return lines[-1][:300] if lines else ""
