"""The memory of a rollout: one append-only file a run, from which a run goes on that was killed.

A line is a checksum and a JSON document: what was asked for, then events (waves.py), numbered. Lines are written at
once and made durable together, 50 ms after the first of them or when somebody waits for it: before a turn begins.
"""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import PackageError, SmallqError, UsageError, access_error
from smallq_deploy.base.fsops import fsync_dir, open_plain, read_plain
from smallq_deploy.base.lock import owner_record
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.rollout.policy import Member, Policy
from smallq_deploy.fleet.rollout.waves import Ended, Event, event_from_dict, event_to_dict

SCHEMA = 1
_TOGETHER = 0.05  # seconds within which lines share one fsync


@dataclass(frozen=True)
class Header:
    """What was asked for: everything a resumed run needs, and no secret.

    ``inventory`` is its name, ``digest`` its sha256; ``options`` the action's own (bundle, words, hooks), as its maker
    reads them back.
    """

    run: str
    action: str
    inventory: str
    digest: str
    hosts: tuple[Host, ...]
    policy: Policy
    options: Mapping[str, Any] = field(default_factory=dict)
    owner: Mapping[str, Any] = field(default_factory=owner_record)

    @property
    def started(self) -> str:
        """UTC, as 2026-12-01T02:30:20Z."""
        return str(self.owner.get("since", ""))

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(Member(host.name, host.shared_opp) for host in self.hosts)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA,
            "run": self.run,
            "action": self.action,
            "inventory": self.inventory,
            "digest": self.digest,
            "policy": self.policy.to_dict(),
            "options": dict(self.options),
            "owner": dict(self.owner),
            "hosts": [_without_empty(host.to_dict()) for host in self.hosts],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Header:
        return cls(
            record["run"],
            record["action"],
            record["inventory"],
            record["digest"],
            tuple(Host.from_dict(host) for host in record["hosts"]),
            Policy.from_dict(record["policy"]),
            record["options"],
            record["owner"],
        )


def _without_empty(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value or key == "name"}


class Ledger:
    """An open ledger; ``header`` and ``events`` are what it had when it was opened. One process writes."""

    def __init__(self, path: Path, header: Header, events: tuple[Event, ...], fd: int, lines: int) -> None:
        self.path = path
        self.header = header
        self.events = events
        self._fd = fd
        self._lines = lines
        self._synced = lines
        self._changed = threading.Condition()
        self._error: SmallqError | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._keep, name="ledger", daemon=True)
        self._thread.start()

    @classmethod
    def create(cls, folder: Path, header: Header) -> Ledger:
        """A new run's, ``folder/<run>/ledger``, with its header; durable. Raises access errors."""
        directory = folder / header.run
        path = directory / "ledger"
        try:
            directory.mkdir(parents=True, mode=0o700)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            _write(fd, _line(1, header.to_dict()))
            os.fsync(fd)
            for above in (directory, directory.parent, directory.parent.parent):
                fsync_dir(above)
        except OSError as error:
            raise access_error(error, f"write {path}") from error
        return cls(path, header, (), fd, 1)

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """To go on with: a torn last line is cut off. Raises as :func:`read_ledger`."""
        header, events, whole = read_ledger(path)
        try:
            fd = open_plain(path, os.O_WRONLY | os.O_APPEND)
            os.ftruncate(fd, whole)
            os.fsync(fd)
        except OSError as error:
            raise access_error(error, f"write {path}") from error
        return cls(path, header, events, fd, len(events) + 1)

    def append(self, event: Event) -> None:
        """Write an event; it is durable soon, or after :meth:`sync`. Raises access errors, also of earlier lines."""
        with self._changed:
            self._raise()
            try:
                _write(self._fd, _line(self._lines + 1, {"at": round(time.time(), 3), **event_to_dict(event)}))
            except OSError as error:
                self._error = access_error(error, f"write {self.path}")
                raise self._error from error
            self._lines += 1
            self._changed.notify()

    def sync(self) -> None:
        """Return when every line is durable. Raises access errors."""
        with self._changed:
            self._raise()
            self._sync()
            self._raise()

    def close(self) -> None:
        """Make everything durable and let go of the file; may be called twice. Raises access errors."""
        with self._changed:
            if self._closed:
                return
            self._sync()
            self._closed = True
            self._changed.notify()
        self._thread.join()
        os.close(self._fd)
        self._raise()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _sync(self) -> None:
        if self._synced == self._lines or self._error is not None:
            return
        try:
            os.fsync(self._fd)
            self._synced = self._lines
        except OSError as error:
            self._error = access_error(error, f"write {self.path}")

    def _keep(self) -> None:
        """The thread that makes lines durable when nobody waits for it."""
        while True:
            with self._changed:
                while self._synced == self._lines and not self._closed and self._error is None:
                    self._changed.wait()
                if self._closed or self._error is not None:
                    return
            time.sleep(_TOGETHER)
            lines = self._lines
            try:
                os.fsync(self._fd)  # not under the lock: the controller need not wait for a slow disk
            except OSError as error:
                with self._changed:
                    self._error = access_error(error, f"write {self.path}")
                return
            with self._changed:
                self._synced = max(self._synced, lines)


def _line(number: int, record: Mapping[str, Any]) -> bytes:
    text = json.dumps({"n": number, **record}, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def read_ledger(path: Path) -> tuple[Header, tuple[Event, ...], int]:
    """What was asked for, what happened, and the length in bytes of the whole lines; a torn last line does not count.

    Raises UsageError NO_SUCH_RUN, PackageError BAD_LEDGER with the line, UsageError LEDGER_NEWER, access errors.
    """
    lines = _lines(path)
    header = _header(path, lines[0])
    known = {host.name for host in header.hosts}
    events = [_event(path, number, line, known) for number, line in enumerate(lines[1:], 2)]
    return header, tuple(events), sum(map(len, lines)) + len(lines)


def peek_ledger(path: Path) -> tuple[Header, Event | None]:
    """What was asked for, and the last that happened; what is between is not looked at. Raises as read_ledger."""
    lines = _lines(path)
    header = _header(path, lines[0])
    known = {host.name for host in header.hosts}
    return header, _event(path, len(lines), lines[-1], known) if len(lines) > 1 else None


def _lines(path: Path) -> list[bytes]:
    """The whole lines; one at least."""
    try:
        raw = read_plain(path)
    except FileNotFoundError:
        raise UsageError(
            "NO_SUCH_RUN", f"{path} does not exist", hint="`smallq-deploy fleet runs` lists them"
        ) from None
    except OSError as error:
        raise access_error(error, f"read {path}") from error
    lines = raw.split(b"\n")[:-1]
    if not lines:
        raise _bad_ledger(path, 1, "there is no whole line")
    return lines


def _header(path: Path, line: bytes) -> Header:
    try:
        document = _document(1, line)
    except ValueError as error:
        raise _bad_ledger(path, 1, str(error)) from None
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA:
        hint = "use the version of smallq-deploy that wrote it, or a newer one"
        raise UsageError("LEDGER_NEWER", f"{path} has schema version {version}, this tool reads {SCHEMA}", hint=hint)
    try:
        return Header.from_dict(document)
    except (KeyError, TypeError, ValueError, AttributeError, SmallqError) as error:
        raise _bad_ledger(path, 1, f"{type(error).__name__}: {error}") from None


def _event(path: Path, number: int, line: bytes, known: AbstractSet[str]) -> Event:
    try:
        document = _document(number, line)
        event = event_from_dict({key: value for key, value in document.items() if key not in ("n", "at")})
        if not known >= set(_hosts_of(event)):
            raise ValueError("it names a host that is not in the first line")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad_ledger(path, number, f"{type(error).__name__}: {error}") from None
    return event


def _hosts_of(event: Event) -> tuple[str, ...]:
    return (event.host,) if isinstance(event, Ended) else getattr(event, "hosts", ())


def _document(number: int, line: bytes) -> dict[str, Any]:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        raise ValueError("the checksum does not fit")
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("n") != number:
        raise ValueError("lines are missing or out of order")
    return document


def _bad_ledger(path: Path, number: int, why: str) -> PackageError:
    return PackageError(
        "BAD_LEDGER",
        f"{path}:{number}: {why}",
        hint="this run cannot be resumed: `smallq-deploy fleet check` shows what the hosts have; start a new one",
        details={"path": str(path), "line": number},
    )
