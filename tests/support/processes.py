"""Which processes are there, and forked children that report how a use case ended."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from smallq_deploy.base.errors import SmallqError

DIED = 113  # exit status of a child that ended itself in the middle
BUG = 114  # and of one that raised what no user may see
_CHANGING = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.symlink", "open"})


def running(place: str) -> list[str]:
    """Command lines of other living processes that name ``place`` or stand in it."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            line = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = os.readlink(f"/proc/{name}/cwd")
        except OSError:
            continue
        if line and (place in line or where == place or where.startswith(place + "/")):
            found.append(line.strip())
    return found


def left_running(place: str, seconds: float = 10.0) -> list[str]:
    """:func:`running`, once it had time to end."""
    until = time.monotonic() + seconds
    while (left := running(place)) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def start(work: Callable[[], object], *, die_at: int = 0, go: tuple[int, int] | None = None) -> int:
    """Fork a child that runs ``work``; its pid.

    It ends with 0, the exit status of a SmallqError, or BUG. With ``die_at`` it ends at once, as if killed, before its
    ``die_at``-th call that changes something on disk (as Python's audit events see them). It starts when the
    writing end of the pipe ``go`` is closed everywhere.
    """
    pid = os.fork()
    if pid:
        return pid
    status = BUG
    try:
        if go is not None:
            os.close(go[1])
            os.read(go[0], 1)
        if die_at:
            _die_at(die_at)
        work()
        status = 0
    except SmallqError as error:
        status = int(error.exit_status)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def end_of(pid: int) -> int:
    """The exit status of a child of :func:`start`."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _die_at(count: int) -> None:
    left = count

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in _CHANGING and (event != "open" or (isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE)):
            left -= 1
            if left == 0:
                os._exit(DIED)

    sys.addaudithook(hook)
