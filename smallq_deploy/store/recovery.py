"""Open transactions: seeing them without the lock, closing them with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from smallq_deploy.base.errors import OpenTransactionError, SmallqError, access_error
from smallq_deploy.base.events import Events
from smallq_deploy.base.lock import UNKNOWN_HOST, held_elsewhere
from smallq_deploy.store import journal as journals
from smallq_deploy.store import settle
from smallq_deploy.store.generations import read_state
from smallq_deploy.store.journal import read_journal
from smallq_deploy.store.paths import ABSENT, Store

Found = TypeVar("Found")
_LOOKS = 20


@dataclass(frozen=True)
class RecoveryReport:
    """What recovery did: ``outcome`` is ``completed`` (the decision to keep had been taken) or ``undone``."""

    txid: str
    action: str
    phase: str
    outcome: str
    live: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "transaction": self.txid,
            "action": self.action,
            "phase": self.phase,
            "outcome": self.outcome,
            "live": self.live,
        }


@dataclass(frozen=True)
class OpenTransaction:
    """A journal on disk. ``running``: its process still holds the lock; False: it died; None: cannot be told, as for a
    process on another host of a shared file system."""

    txid: str
    action: str
    phase: str
    started: str
    owner: Mapping[str, Any]
    running: bool | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "transaction": self.txid,
            "action": self.action,
            "phase": self.phase,
            "started": self.started,
            "owner": dict(self.owner),
            "running": self.running,
        }


def open_transaction(store: Store) -> OpenTransaction | None:
    """The open transaction, read without the lock. Raises as read_journal."""
    found = read_journal(store)
    if found is None:
        return None
    return OpenTransaction(found.txid, found.action, found.phase, found.started, found.owner, _lock_is_held(store))


def refuse_open(store: Store) -> None:
    """Raise OpenTransactionError OPEN_TRANSACTION when there is one (for reading commands that need a settled tree)."""
    found = open_transaction(store)
    if found is None:
        return
    if found.running:
        message = f"another smallq-deploy ({found.action}, pid {found.owner.get('pid', '?')}) is changing {store.live}"
        hint = "wait until it has ended"
    elif (other := held_elsewhere(store.root)) is not None:
        host = other.get("host", UNKNOWN_HOST)
        message = f"host {host} (pid {other.get('pid', '?')}) has begun a {found.action} of {store.live}"
        hint = (
            "wait until it has ended; when it is certain that it no longer runs there: "
            f"`smallq-deploy recover --break-lock {host}`"
        )
    else:
        message = f"a {found.action} begun {found.started} was interrupted in phase '{found.phase}'"
        hint = "run `smallq-deploy recover` (any install, rollback or uninstall does it too)"
    raise OpenTransactionError("OPEN_TRANSACTION", message, hint=hint, details=found.to_dict())


def steady(store: Store, look: Callable[[], Found]) -> Found:
    """What ``look`` finds, at a time when no transaction began, switched or ended under it.

    Readers take no lock: a switch in the middle of a walk shows files of two trees, or none; then it is looked again.
    Raises what ``look`` raises, and OpenTransactionError OPEN_TRANSACTION when there never is such a time.
    """
    for _ in range(_LOOKS):
        before = _marks(store)
        try:
            found = look()
        except SmallqError:
            if _marks(store) == before:
                raise
        else:
            if _marks(store) == before:
                return found
    raise OpenTransactionError(
        "OPEN_TRANSACTION", f"{store.live} is changed again and again", hint="wait until that has ended, then ask again"
    )


def _marks(store: Store) -> list[tuple[int, int] | None]:
    """What every step of a transaction replaces: journal, state, the live directory."""
    marks: list[tuple[int, int] | None] = []
    for path in (store.journal, store.state, store.live):
        try:
            info = path.lstat()
        except OSError:
            marks.append(None)
        else:
            marks.append((info.st_ino, info.st_ctime_ns))
    return marks


def _lock_is_held(store: Store) -> bool | None:
    """Asks /proc/locks, because trying the lock could make a starting install believe that it is busy."""
    if held_elsewhere(store.root) is not None:
        return None
    try:
        inode = (store.root / "lock").stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    return any(
        " FLOCK " in line and line.split()[5].rpartition(":")[2] == str(inode) for line in lines if "->" not in line
    )


@contextmanager
def session(
    store: Store, *, wait_seconds: float = 0.0, events: Events | None = None
) -> Iterator[RecoveryReport | None]:
    """Lock the opp and recover what a dead run left; yields the recovery's report.

    Every change happens inside. Raises what Store.locked and what recovery raise.
    """
    with store.locked(wait_seconds=wait_seconds):
        report = recover(store)
        if report is not None and events is not None:
            events.warning(
                f"an interrupted {report.action} (phase '{report.phase}') was "
                + ("completed" if report.outcome == "completed" else "undone: the state before it is live")
            )
        yield report


def recover(store: Store) -> RecoveryReport | None:
    """Close an open transaction and sweep what no transaction owns; the lock must be held. Idempotent.

    Before the decision ``ok`` was written the old state comes back, after it the new one is completed.
    Raises ConflictError RECOVERY_BLOCKED, InstallError JOURNAL_DAMAGED, and the typed form of an OSError.
    """
    try:
        found = read_journal(store)
        report = None
        if found is not None:
            target = Store(store.opp, found.vendor)
            if found.phase == journals.OK:
                settle.keep(target, found)
            else:
                reason = found.reason or f"interrupted in phase '{found.phase}'"
                settle.undo(target, replace(found, reason=reason))
            live = read_state(target).of(found.vendor).current or ABSENT
            outcome = "completed" if found.phase == journals.OK else "undone"
            report = RecoveryReport(found.txid, found.action, found.phase, outcome, live)
        settle.sweep(store)
        return report
    except OSError as error:
        raise access_error(error, f"recover {store.vendors}") from error
