"""What the live directory is: a generation we know, one that was changed since, something unknown, or absent."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import ConflictError, NoToolkitError, access_error
from smallq_deploy.base.fsops import FileEntry, entries_digest, tree_entries
from smallq_deploy.store.generations import Generation, check_manifest, find_generation, read_state
from smallq_deploy.store.paths import ABSENT, Store


@dataclass(frozen=True)
class LiveState:
    """``kind``: ``current`` (the generation the state names), ``changed`` (it was, and was edited since), ``unknown``
    (a directory no generation describes), ``absent``, or ``removed`` (a generation should be live, nothing is)."""

    kind: str
    generation: Generation | None = None
    differences: tuple[str, ...] = ()  # paths, for ``changed``
    digest: str = ""

    @property
    def exists(self) -> bool:
        return self.kind in ("current", "changed", "unknown")

    @property
    def number(self) -> int:
        """The number of the generation that is live, ABSENT when none is."""
        return self.generation.number if self.kind == "current" and self.generation else ABSENT

    def to_dict(self) -> dict[str, Any]:
        return {
            "state": self.kind,
            "generation": self.generation.number if self.generation else None,
            "differences": list(self.differences[:50]),
            "difference_count": len(self.differences),
        }


def live_exists(store: Store) -> bool:
    """True for a directory, False for nothing. Raises ConflictError LIVE_NOT_A_DIRECTORY for anything else."""
    try:
        mode = store.live.lstat().st_mode
        target = os.readlink(store.live) if stat.S_ISLNK(mode) else ""
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return False
    except OSError as error:
        raise access_error(error, f"look at {store.live}") from error
    if not stat.S_ISDIR(mode):
        kind = f"a link to {target}" if target else "no directory"
        raise ConflictError(
            "LIVE_NOT_A_DIRECTORY",
            f"{store.live} is {kind}",
            hint="the vendor directory must be a real directory: move the link away and run the command again",
            details={"path": str(store.live)},
        )
    return True


def check_place(store: Store) -> None:
    """Is this an opp directory whose vendors directory we may work in?

    Raises NoToolkitError NO_OPP, ConflictError VENDORS_IS_LINK, VENDORS_NOT_A_DIRECTORY, LIVE_NOT_A_DIRECTORY, and
    NOT_PLAIN (a place of the store is a link or something else), AccessError where even looking is not allowed.
    """
    try:
        opp, linked = store.opp.is_dir(), os.readlink(store.vendors) if store.vendors.is_symlink() else ""
        blocked = store.vendors.exists() and not store.vendors.is_dir()
    except OSError as error:
        raise access_error(error, f"look at {store.vendors}") from error
    if not opp:
        raise NoToolkitError("NO_OPP", f"there is no opp directory {store.opp}", hint="see `smallq-deploy detect`")
    if linked:
        raise ConflictError(
            "VENDORS_IS_LINK",
            f"{store.vendors} is a link to {linked}",
            hint="name the opp directory that really holds the vendors directory with --opp",
        )
    if blocked:
        raise ConflictError("VENDORS_NOT_A_DIRECTORY", f"{store.vendors} is no directory", hint="move it away")
    store.check()
    live_exists(store)


def observe_live(store: Store, *, deep: bool = False) -> LiveState:
    """Compare the live directory with the generation the state names: names, kinds, modes, sizes and mtimes; contents
    too where these differ or with ``deep``. Takes no lock.

    Raises ConflictError LIVE_NOT_A_DIRECTORY, InstallError STORE_DAMAGED and the typed form of an OSError.
    """
    current = read_state(store).of(store.vendor).current
    generation = find_generation(store, current)
    if not live_exists(store):
        return LiveState("removed", generation) if current else LiveState("absent")
    if generation is None:
        return LiveState("unknown")
    manifest = check_manifest(store, generation)
    if not deep and not differing(manifest, read_tree(store.live, digests=False)):
        return LiveState("current", generation, digest=generation.manifest_digest)
    present = read_tree(store.live)
    if entries_digest(present) == generation.manifest_digest:
        return LiveState("current", generation, digest=generation.manifest_digest)
    return LiveState("changed", generation, differing(manifest, present, contents=True))


def read_tree(root: Path, *, digests: bool = True) -> tuple[FileEntry, ...]:
    """tree_entries with a typed error."""
    try:
        return tree_entries(root, digests=digests)
    except OSError as error:
        raise access_error(error, f"read {error.filename or root}") from error


def differing(
    expected: Iterable[FileEntry], present: Iterable[FileEntry], *, contents: bool = False
) -> tuple[str, ...]:
    """Paths that are missing, extra or different; by digest with ``contents``, else by size and mtime."""

    def key(entry: FileEntry) -> tuple[Any, ...]:
        last = entry.sha256 if contents else entry.mtime_ns
        return entry.kind, entry.mode, entry.target, entry.size, last

    first = {entry.path: key(entry) for entry in expected}
    second = {entry.path: key(entry) for entry in present}
    return tuple(sorted(path for path in first.keys() | second.keys() if first.get(path) != second.get(path)))
