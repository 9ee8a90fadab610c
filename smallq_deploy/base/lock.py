"""One exclusive lock for each opp root, with a record of who holds it. Readers never need it.

Among the processes of one machine the lock is flock(2), which the kernel releases when its holder dies. Whether two
machines see each other's flock depends on the shared file system and its mount options, so there the record, made with
O_EXCL, is a lock as well: one of another machine is respected until that machine, or a person, takes it away.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from smallq_deploy import __version__
from smallq_deploy.base.errors import ConflictError, UsageError, access_error
from smallq_deploy.base.filesystem import shared_kind
from smallq_deploy.base.fsops import create_new, open_plain, read_plain

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
UNKNOWN_HOST = "unknown"


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


def boot_id() -> str:
    """Changes with every start of the machine, the same in all its containers; '' where it cannot be read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _record(directory: Path) -> dict[str, Any] | None:
    """The record as a lock: None when there is none, one of UNKNOWN_HOST when it cannot be read."""
    try:
        record = json.loads(read_plain(directory / "owner"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ConflictError):
        record = None
    return record if isinstance(record, dict) else {"host": UNKNOWN_HOST}


def _of_this_machine(record: dict[str, Any]) -> bool:
    """Also of an earlier start of it, or of another container on it."""
    return record.get("host") == os.uname().nodename or (bool(record.get("boot")) and record["boot"] == boot_id())


def held_elsewhere(directory: Path) -> dict[str, Any] | None:
    """The record of another machine that holds the lock of a directory on a shared file system, else None.

    A record of this machine holds nothing: there flock tells.
    """
    record = _record(directory) if shared_kind(directory) else None
    return None if record is None or _of_this_machine(record) else record


def break_lock(directory: Path, host: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Take away the lock that a dead process of ``host`` left on a shared file system; returns its record.

    Whoever calls this knows that nothing runs there any more. Raises UsageError NO_SUCH_LOCK when ``host`` holds none.
    """
    record = held_elsewhere(directory)
    if record is None or record.get("host") != host:
        holder = f"{record.get('host')} does" if record else "no other host does"
        raise UsageError(
            "NO_SUCH_LOCK",
            f"{host} does not hold the lock of {directory.parent}: {holder}",
            hint="only the lock of another host, on a shared file system, is ever broken; on one machine none can stay",
        )
    try:
        if not dry_run:
            os.unlink(directory / "owner")
    except OSError as error:
        raise access_error(error, f"remove {directory / 'owner'}") from error
    return record


@contextmanager
def exclusive_lock(
    directory: Path, *, wait_seconds: float = 0.0, across_hosts: bool = False, about: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Hold ``directory/lock`` (flock); the record of the holder is ``directory/owner``, with what ``about`` adds.

    ``across_hosts``: on a shared file system the record of another host counts too. Raises ConflictError LOCK_BUSY,
    LOCK_OTHER_HOST when somebody else holds it longer than ``wait_seconds``; NO_FILE_LOCKS where flock is refused.
    """
    path = directory / "lock"
    try:
        fd = open_plain(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise access_error(error, f"open the lock {path}") from error
    try:
        deadline = time.monotonic() + wait_seconds
        while (busy := _take(directory, fd, across_hosts, about or {})) is not None:
            if time.monotonic() >= deadline:
                raise busy
            time.sleep(0.05)
        try:
            yield
        finally:
            with suppress(OSError):  # it is only text, and the work is done
                (directory / "owner").unlink()
    finally:
        os.close(fd)


def _take(directory: Path, fd: int, across_hosts: bool, about: Mapping[str, Any]) -> ConflictError | None:
    """The lock and the record; or who has it."""
    owner = directory / "owner"
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _busy(directory)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise _no_locks(directory) from error
        raise access_error(error, f"lock {directory / 'lock'}") from error
    try:
        if across_hosts and shared_kind(directory):
            record = _record(directory)
            if record is not None and not _of_this_machine(record):
                fcntl.flock(fd, fcntl.LOCK_UN)
                return _other_host(directory, record)
            if record is not None:
                owner.unlink()  # of a dead process of this machine; nobody else takes it away, nor writes over it
            new = os.open(owner, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        else:
            new = create_new(owner)
        with os.fdopen(new, "w") as stream:
            stream.write(json.dumps({**owner_record(), "boot": boot_id(), **about}) + "\n")
    except FileExistsError:  # another machine was quicker between the look and the open
        fcntl.flock(fd, fcntl.LOCK_UN)
        return _other_host(directory, held_elsewhere(directory) or {"host": UNKNOWN_HOST})
    except OSError as error:
        raise access_error(error, f"write {owner}") from error
    return None


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


def _other_host(directory: Path, record: dict[str, Any]) -> ConflictError:
    host, kind = record.get("host", UNKNOWN_HOST), shared_kind(directory)
    who = f" (pid {record['pid']}, {record.get('command', '?')}, {record.get('since', '?')})" if "pid" in record else ""
    return ConflictError(
        "LOCK_OTHER_HOST",
        f"{directory.parent} is on a shared file system ({kind}), and host {host} holds its lock{who}",
        hint="wait for it to end; when it is certain that it no longer runs there: "
        f"`smallq-deploy recover --break-lock {host}`",
        details={"owner": record},
    )


def _no_locks(directory: Path) -> ConflictError:
    return ConflictError(
        "NO_FILE_LOCKS",
        f"the file system of {directory} ({shared_kind(directory) or 'unknown'}) refuses file locks",
        hint="mount it with locks (NFS: without nolock, with lockd running; Lustre: with -o flock), or change it from "
        "a host that can lock it",
    )
