"""One exclusive lock for each opp root, with a record of who holds it. Readers never need it."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from smallq_deploy import __version__
from smallq_deploy.base.errors import ConflictError, access_error
from smallq_deploy.base.fsops import create_new, open_plain, read_plain


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def owner_record() -> dict[str, Any]:
    """Who we are, as written beside the lock and into the history. ``user`` is the real user of this process, asked of
    the system, not of the environment; ``sudo_user`` who called sudo ('' without)."""
    return {
        "pid": os.getpid(),
        "host": os.uname().nodename,
        "user": _user_name(os.getuid()),
        "sudo_user": os.environ.get("SUDO_USER", ""),
        "version": __version__,
        "command": " ".join(sys.argv[:6]),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def read_owner(directory: Path) -> dict[str, Any] | None:
    """The record of the last holder, or None; never raises."""
    try:
        record = json.loads(read_plain(directory / "owner"))
    except (OSError, ValueError, ConflictError):
        return None
    return record if isinstance(record, dict) else None


@contextmanager
def exclusive_lock(directory: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold ``directory/lock`` (flock); the record of the holder is ``directory/owner``.

    The kernel releases a flock when its holder dies, so a stale lock cannot exist; a stale ``owner`` file is only text.
    Raises ConflictError LOCK_BUSY when another process holds it longer than ``wait_seconds``.
    """
    path = directory / "lock"
    try:
        fd = open_plain(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise access_error(error, f"open the lock {path}") from error
    try:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise _busy(directory) from None
                time.sleep(0.05)
            except OSError as error:
                raise access_error(error, f"lock {path}") from error
        owner = directory / "owner"
        try:
            with os.fdopen(create_new(owner), "w") as stream:
                stream.write(json.dumps(owner_record()) + "\n")
        except OSError as error:
            raise access_error(error, f"write {owner}") from error
        try:
            yield
        finally:
            with suppress(OSError):  # it is only text, and the work is done
                owner.unlink()
    finally:
        os.close(fd)


def _busy(directory: Path) -> ConflictError:
    owner = read_owner(directory) or {}
    who = (
        f"pid {owner['pid']} on {owner.get('host', '?')} ({owner.get('command', '?')})"
        if "pid" in owner
        else "another process"
    )
    return ConflictError(
        "LOCK_BUSY",
        f"another smallq-deploy is changing this opp: {who}",
        hint="wait for it to end, or use --wait SECONDS",
        details={"owner": owner},
    )
