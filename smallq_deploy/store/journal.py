"""The journal: what the open transaction is about to do, written before it does it.

Present only while a transaction is open. Phases: ``staging`` -> ``switching`` -> ``switched`` -> ``ok`` | ``undone``.
``ok`` and ``undone`` are decisions: everything after them can be done any number of times.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import InstallError
from smallq_deploy.base.fsops import fsync_dir, write_atomic
from smallq_deploy.store.generations import read_json
from smallq_deploy.store.paths import ABSENT, SCHEMA, Store
from smallq_deploy.store.records import check_types

STAGING, SWITCHING, SWITCHED, OK, UNDONE = "staging", "switching", "switched", "ok", "undone"
PHASES = (STAGING, SWITCHING, SWITCHED, OK, UNDONE)


@dataclass(frozen=True)
class TreeId:
    """Which directory a tree is, wherever it has been renamed to; ``digest`` when only its content can tell.

    ``home_dev`` is the st_dev of the vendors directory at that time: device numbers can change with a reboot, then the
    inode alone decides.
    """

    dev: int
    ino: int
    home_dev: int
    digest: str

    @staticmethod
    def of(path: Path, digest: str, vendors: Path) -> TreeId:
        info = path.lstat()
        return TreeId(info.st_dev, info.st_ino, vendors.lstat().st_dev, digest)

    def is_at(self, path: Path, vendors: Path) -> bool:
        """True when ``path`` is this very directory."""
        try:
            info = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not stat.S_ISDIR(info.st_mode) or info.st_ino != self.ino:
            return False
        return info.st_dev == self.dev or vendors.lstat().st_dev != self.home_dev


@dataclass(frozen=True)
class ConfigChange:
    """config.ini before and after, as whole texts (None: no such file), and the mode before."""

    before: str | None
    after: str | None
    mode: int = 0o644


@dataclass(frozen=True)
class Journal:
    """One open transaction. Numbers are generation numbers, ABSENT (0) for "no vendor directory"."""

    txid: str
    action: str  # install | rollback | uninstall | repair
    vendor: str
    phase: str
    started: str
    owner: Mapping[str, Any]
    old: int = ABSENT
    new: int = ABSENT
    adopt: bool = False  # ``old`` is the live directory found, recorded by this transaction
    made: bool = False  # ``new`` is made by this transaction, not taken from the store
    method: str = ""  # exchange | rename (one side absent) | renames | copy
    old_tree: TreeId | None = None
    new_tree: TreeId | None = None
    config: ConfigChange | None = None
    proof: Mapping[str, Any] | None = None
    reason: str = ""
    last_number: int = 0
    flags: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Journal:
        known = {item.name for item in dataclasses.fields(Journal)}
        values = {key: value for key, value in record.items() if key in known}
        for key in ("old_tree", "new_tree"):
            if values.get(key) is not None:
                values[key] = TreeId(**values[key])
        if values.get("config") is not None:
            values["config"] = ConfigChange(**values["config"])
        journal = Journal(**values)
        for made in (journal, journal.old_tree, journal.new_tree, journal.config):
            if made is not None:
                check_types(made)
        # The txid names the directory that recovery removes.
        if journal.phase not in PHASES or "/" in journal.txid or journal.txid in ("", ".", ".."):
            raise ValueError(f"{journal.phase} {journal.txid}")
        return journal


def new_txid() -> str:
    """A name for a transaction that no other has."""
    return secrets.token_hex(6)


def read_journal(store: Store) -> Journal | None:
    """The open transaction, or None. Raises InstallError JOURNAL_DAMAGED, UsageError STORE_NEWER."""
    record = read_json(store.journal)
    if record is None:
        return None
    try:
        return Journal.from_dict(record)
    except (KeyError, TypeError, ValueError) as error:
        raise InstallError(
            "JOURNAL_DAMAGED",
            f"the journal {store.journal} cannot be understood",
            hint="nothing was changed; keep the file and report it",
            details={"path": str(store.journal)},
        ) from error


def write_journal(store: Store, journal: Journal) -> Journal:
    """Make the journal say this, durably; gives it back."""
    write_atomic(store.journal, json.dumps(journal.to_dict(), ensure_ascii=True, sort_keys=True) + "\n")
    return journal


def drop_journal(store: Store) -> None:
    """The transaction is over."""
    try:
        os.unlink(store.journal)
    except FileNotFoundError:
        return
    fsync_dir(store.root)
