"""Packages that were built before, found again by everything that went into them.

Place: ``$XDG_CACHE_HOME/smallq-deploy/packages/<key>/`` with the ``.run``, its provenance, SBOM and log, and
``entry.json`` that names each with size and sha256. An entry is read only when all of it is as it was written; anything
else is thrown away and built again. One lock for each key: of two processes that want the same package one builds, the
other waits and takes it. The cache only saves time: nothing else refers to it, and it can be deleted at any moment.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import ConflictError, access_error
from smallq_deploy.base.events import Events
from smallq_deploy.base.fsops import remove_tree, sha256_file, tree_size
from smallq_deploy.base.lock import owner_record

ENTRY = "entry.json"
SCHEMA_VERSION = 1
DEFAULT_LIMIT = 1 << 30  # bytes; the least recently used entries beyond it go
_LOCKS = "locks"
_STALE_STAGING = 24 * 3600.0  # seconds; what a killed process left


def cache_root() -> Path:
    """``$XDG_CACHE_HOME/smallq-deploy/packages`` (default below ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, "smallq-deploy", "packages")


@dataclass(frozen=True)
class CacheEntry:
    """One cached package. ``size`` in bytes on disk; ``used`` and ``created`` are times in UTC; ``damage`` says what
    is wrong with it ('' = nothing)."""

    key: str
    folder: Path
    identity: Mapping[str, Any]
    size: int
    created: str
    used: str
    damage: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "operator": str(self.identity.get("operator", "")),
            "vendor": str(self.identity.get("vendor", "")),
            "unit": str(self.identity.get("unit", "")),
            "arch": str(self.identity.get("arch", "")),
            "toolkit": str((self.identity.get("toolkit") or {}).get("version", "")),
            "remark": str((self.identity.get("toolkit") or {}).get("remark", "")),
            "size": self.size,
            "created": self.created,
            "used": self.used,
            "damage": self.damage,
        }


@dataclass
class Slot:
    """The place of one key, held: ``folder`` is the whole entry that was found, or None: then build and ``fill``."""

    key: str
    folder: Path | None
    fill: Callable[[Path], None] = field(default=lambda folder: None)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _read_entry(folder: Path) -> dict[str, Any]:
    """``entry.json`` of a folder; raises ValueError with the reason when it cannot be one of ours."""
    try:
        record = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{ENTRY}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{ENTRY} is no JSON") from error
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{ENTRY} is of another version")
    files, identity = record.get("files"), record.get("identity")
    if not isinstance(identity, dict) or not isinstance(files, dict) or not files:
        raise ValueError(f"{ENTRY} is incomplete")
    for name, stated in files.items():
        if "/" in name or not isinstance(stated, dict):
            raise ValueError(f"{ENTRY} is malformed")
    return record


def entry_damage(folder: Path, identity: Mapping[str, Any] | None = None) -> str:
    """What is wrong with an entry, reading all of it; '' when it is as it was written (and for ``identity``)."""
    try:
        record = _read_entry(folder)
        if identity is not None and record["identity"] != json.loads(json.dumps(identity)):
            return "it is for another build"
        for name, stated in record["files"].items():
            path = folder / name
            if path.is_symlink() or not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != stated.get("size") or sha256_file(path) != stated.get("sha256"):
                return f"{name} was changed (size or sha256 differs)"
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror}"
    return ""


def _open_lock(path: Path) -> int:
    """Lock file of a key, created where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)


def _same_file(fd: int, path: Path) -> bool:
    """False when the lock file was removed or replaced between open and flock: then the lock is worth nothing."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(path: Path) -> int | None:
    """An open descriptor that holds the lock, or None when another process has it. Raises OSError."""
    while True:
        fd = _open_lock(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        if _same_file(fd, path):
            return fd
        os.close(fd)


class BuildCache:
    """The cache at ``root`` (default :func:`cache_root`), bounded to ``limit`` bytes."""

    def __init__(self, root: Path | None = None, *, limit: int = DEFAULT_LIMIT) -> None:
        self.root = root or cache_root()
        self.limit = limit

    @contextmanager
    def slot(
        self,
        key: str,
        identity: Mapping[str, Any],
        *,
        rebuild: bool = False,
        wait_seconds: float = 3600.0,
        events: Events | None = None,
    ) -> Iterator[Slot]:
        """Hold the place of ``key``; see :class:`Slot`. ``rebuild`` passes over what is there.

        While another process builds the same, this waits up to ``wait_seconds`` and then has its package. Raises
        ConflictError BUILD_BUSY after that. A cache that cannot be used is a warning, and the build goes on without.
        """
        events = events or Events()
        lock = self._wait(key, wait_seconds, events)
        try:
            folder = self._take(key, identity, events) if not rebuild else None
            yield Slot(key, folder, lambda made: self._put(key, identity, made, events))
        finally:
            if lock is not None:
                os.close(lock)

    def _wait(self, key: str, wait_seconds: float, events: Events) -> int | None:
        path = self.root / _LOCKS / key
        deadline = time.monotonic() + wait_seconds
        told = False
        try:
            while (lock := _try_lock(path)) is None:
                if time.monotonic() >= deadline:
                    raise _busy(path)
                if not told:
                    events.note(f"{_holder(path)} builds the same package; waiting for it")
                    told = True
                time.sleep(0.05)
            os.ftruncate(lock, 0)
            os.pwrite(lock, (json.dumps(owner_record()) + "\n").encode(), 0)
            return lock
        except OSError as error:
            # A file system without locks (ENOLCK), or not ours to write: entries are put in place in one step anyway.
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EROFS, errno.EPERM):
                raise access_error(error, f"use the build cache {self.root}") from error
            events.warning(f"the build cache {self.root} cannot be locked: {error.strerror}")
            return None

    def _take(self, key: str, identity: Mapping[str, Any], events: Events) -> Path | None:
        folder = self.root / key
        if not folder.is_dir():
            return None
        damage = entry_damage(folder, identity)
        if not damage:
            try:
                os.utime(folder)
            except OSError:
                pass  # of use only for choosing what goes first
            return folder
        events.warning(f"the cached package in {folder} is damaged and is built again: {damage}")
        try:
            remove_tree(folder)
        except OSError as error:
            events.warning(f"the damaged entry stays: {error.strerror}")
        return None

    def _put(self, key: str, identity: Mapping[str, Any], made: Path, events: Events) -> None:
        """Copy the files of ``made`` into the entry of ``key``; a cache that is full or closed is only a warning."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".new-", dir=self.root))
            try:
                files: dict[str, dict[str, Any]] = {}
                for source in sorted(path for path in made.iterdir() if path.is_file()):
                    copy = Path(shutil.copyfile(source, staging / source.name))
                    files[source.name] = {"size": copy.stat().st_size, "sha256": sha256_file(copy)}
                record = {
                    "schema_version": SCHEMA_VERSION,
                    "created": _utc(time.time()),
                    "identity": dict(identity),
                    "files": files,
                }
                (staging / ENTRY).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
                staging.chmod(0o755)
                remove_tree(self.root / key)
                staging.rename(self.root / key)
            finally:
                remove_tree(staging)
            self.prune(self.limit, keep=key)
        except OSError as error:
            events.warning(f"the package was built, but not put into the build cache: {error.strerror or error}")

    def entries(self, *, check: bool = False) -> tuple[CacheEntry, ...]:
        """All entries, the least recently used first; ``check`` reads each completely. Raises AccessError."""
        found: list[tuple[float, CacheEntry]] = []
        try:
            folders = [path for path in self.root.iterdir() if path.is_dir() and path.name != _LOCKS]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise access_error(error, f"read the build cache {self.root}") from error
        for folder in folders:
            if folder.name.startswith("."):
                continue
            try:
                used, size = folder.stat().st_mtime, tree_size(folder)
                record, damage = _read_entry(folder), ""
            except OSError:
                continue  # it was removed just now
            except ValueError as error:
                record, damage = {"identity": {}, "created": ""}, str(error)
            damage = damage or (entry_damage(folder) if check else "")
            entry = CacheEntry(
                folder.name, folder, record["identity"], size, str(record.get("created", "")), _utc(used), damage
            )
            found.append((used, entry))
        return tuple(entry for _, entry in sorted(found, key=lambda item: (item[0], item[1].key)))

    def prune(self, limit: int, *, keep: str = "") -> tuple[CacheEntry, ...]:
        """Remove damaged entries, then the least recently used ones until ``limit`` bytes are left; returns those.

        The entry ``keep`` and those in use by other processes stay. Raises AccessError.
        """
        gone: list[CacheEntry] = []
        entries = self.entries(check=not keep)
        total = sum(entry.size for entry in entries)
        try:
            for entry in sorted(entries, key=lambda item: not item.damage):
                if entry.key == keep or not (entry.damage or total > limit):
                    continue
                if self._remove(entry):
                    gone.append(entry)
                    total -= entry.size
            for left in self.root.glob(".new-*"):
                if time.time() - left.stat().st_mtime > _STALE_STAGING:
                    remove_tree(left)
        except FileNotFoundError:
            pass  # another process was faster
        except OSError as error:
            raise access_error(error, f"clean the build cache {self.root}") from error
        return tuple(gone)

    def _remove(self, entry: CacheEntry) -> bool:
        path = self.root / _LOCKS / entry.key
        lock = _try_lock(path)
        if lock is None:
            return False
        try:
            remove_tree(entry.folder)
            path.unlink(missing_ok=True)
        finally:
            os.close(lock)
        return True


def _holder(path: Path) -> str:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return f"pid {record['pid']} on {record['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _busy(path: Path) -> ConflictError:
    return ConflictError(
        "BUILD_BUSY",
        f"{_holder(path)} has been building the same package for too long",
        hint="look at that process; once it has ended, run the command again",
        details={"lock": str(path)},
    )
