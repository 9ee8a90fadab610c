"""The switch: which directory is live changes by one rename, and can be undone by what the journal recorded.

Methods, tried in this order, each attempt being its own probe (a refused attempt changes nothing):

``exchange``  renameat2(RENAME_EXCHANGE): at no moment is the live directory missing.
``rename``    one side is absent (first install, uninstall): a single plain rename.
``renames``   two renames, for file systems without the exchange; in between there is no live directory.
``copy``      the live directory cannot be renamed at all (overlayfs lower layer, EXDEV): a proven copy of it is made,
              then it is removed and the new tree renamed into its place.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from smallq_deploy.base.errors import ConflictError, InstallError
from smallq_deploy.base.fsops import (
    copy_tree,
    fsync_dir,
    fsync_tree,
    remove_tree,
    rename_exchange,
    tree_digest,
    tree_entries,
    walk_tree,
)
from smallq_deploy.store.journal import Journal, TreeId
from smallq_deploy.store.paths import Staging, Store

METHODS = ("exchange", "renames", "copy")
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP}


def move(source: Path, target: Path) -> None:
    """Rename, durably."""
    os.rename(source, target)
    for parent in dict.fromkeys((target.parent, source.parent)):
        fsync_dir(parent)


def take(source: Path, target: Path) -> None:
    """:func:`move`, or where ``source`` cannot be renamed (overlayfs: it is in a lower layer, EXDEV) a durable copy.

    ``source`` then stays where it is.
    """
    try:
        move(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    """A complete, durable copy; owners kept where we may."""
    copy_tree(source, target)
    if os.geteuid() == 0:
        for name, info in (("", source.lstat()), *walk_tree(source)):
            path = target / name
            os.chown(path, info.st_uid, info.st_gid, follow_symlinks=False)
            if not path.is_symlink():
                os.chmod(path, info.st_mode & 0o7777)  # chown clears setuid bits
    fsync_tree(target)
    fsync_dir(target.parent)


def switch(
    store: Store, area: Staging, journal: Journal, note: Callable[[str], Journal], *, force: str = ""
) -> Journal:
    """Make ``area.tree`` live (or nothing, when the journal has no new tree); the old tree then lies in ``area``.

    ``note(method)`` writes the journal's ``switching`` record before each attempt and gives it back. ``force`` names
    the one method to use (tests). Raises OSError when no method works.
    """
    if journal.old_tree is None and journal.new_tree is None:
        return note("none")
    if journal.old_tree is not None and journal.new_tree is not None:
        methods: tuple[str, ...] = METHODS
    elif journal.old_tree is None:
        methods = ("rename",)
    else:
        methods = ("rename", "copy")
    if force in methods:
        methods = (force,)
    for method in methods:
        if method == "copy":
            _copy_old(store, area, journal)
        noted = note(method)
        try:
            _perform(store, area, noted)
            return noted
        except OSError as error:
            if error.errno not in _UNSUPPORTED or method == methods[-1]:
                raise
            restore(store, area, noted)
    raise AssertionError("no switch method")


def _perform(store: Store, area: Staging, journal: Journal) -> None:
    if journal.method == "exchange":
        rename_exchange(area.tree, store.live)
        if area.tree.is_symlink() or not area.tree.is_dir():
            rename_exchange(area.tree, store.live)
            raise _replaced(store)
        fsync_dir(store.vendors)
        fsync_dir(area.root)
        return
    if journal.method == "copy":
        remove_tree(store.live)
        fsync_dir(store.vendors)
    elif journal.old_tree is not None:
        move(store.live, area.old)
    if journal.new_tree is not None:
        move(area.tree, store.live)


def _replaced(store: Store) -> InstallError:
    return InstallError(
        "LIVE_CHANGED",
        f"{store.live} was replaced by something that is no directory while the new tree was being prepared",
        hint="find out who writes to the vendors directory, then run the command again",
    )


def _copy_old(store: Store, area: Staging, journal: Journal) -> None:
    """A copy of the live tree at ``area.old``, digest compared."""
    assert journal.old_tree is not None
    remove_tree(area.old)
    _copy(store.live, area.old)
    if tree_digest(area.old) != journal.old_tree.digest:
        raise InstallError(
            "LIVE_CHANGED",
            f"{store.live} changed while it was being copied",
            hint="stop whatever writes there and run the command again",
        )


def _matcher(store: Store, area: Staging, journal: Journal) -> Callable[[TreeId | None, Path], bool]:
    """``matches(tree, path)``: by inode; by content where no inode of the journal is found at all, which some overlay
    mounts do to a directory after a remount."""
    trees = [tree for tree in (journal.old_tree, journal.new_tree) if tree is not None]
    by_inode = any(tree.is_at(path, store.vendors) for tree in trees for path in (store.live, area.tree, area.old))

    def matches(tree: TreeId | None, path: Path) -> bool:
        if tree is None or not path.is_dir() or path.is_symlink():
            return False
        return tree.is_at(path, store.vendors) if by_inode else tree_digest(path) == tree.digest

    return matches


def old_tree_place(store: Store, area: Staging, journal: Journal) -> Path | None:
    """Where the old tree lies after a switch that is kept; None when there was none or it has gone home already."""
    if journal.method == "copy" and _exists(area.old):
        return area.old
    matches = _matcher(store, area, journal)
    return next((path for path in (area.tree, area.old) if matches(journal.old_tree, path)), None)


def restore(store: Store, area: Staging, journal: Journal) -> None:
    """Make the old state live again, whatever part of the switch was done; can be run any number of times.

    Never removes anything but the remains of an old tree of which the ``copy`` method holds a proven copy. Raises
    ConflictError RECOVERY_BLOCKED when somebody else's directory is live.
    """
    live, old = store.live, journal.old_tree
    matches = _matcher(store, area, journal)
    new_is_live = matches(journal.new_tree, live)
    if old is None:
        if new_is_live:
            move(live, area.tree)
        elif _exists(live):
            raise _blocked(store, area)
        return
    if journal.method == "copy" and _exists(area.old):
        if matches(old, live):
            if tree_digest(live) == old.digest:
                return
            if not _is_part(live, area.old):  # somebody's new directory can have the inode of a removed one
                raise _blocked(store, area)
            remove_tree(live)  # remains of the old tree; area.old is the copy that was compared with it
        place = area.old
    else:
        if matches(old, live):
            return
        found = next((path for path in (area.tree, area.old) if matches(old, path)), None)
        if found is None:
            if _exists(live) and tree_digest(live) == old.digest:
                return  # the copy, already put back
            raise _blocked(store, area)
        place = found
    if new_is_live and journal.method == "exchange":
        rename_exchange(live, place)
        fsync_dir(store.vendors)
        fsync_dir(place.parent)
        return
    if new_is_live:
        move(live, area.tree)
    elif _exists(live):
        raise _blocked(store, area)
    move(place, live)


def _is_part(path: Path, whole: Path) -> bool:
    """True when everything below ``path`` is also in ``whole``; modes apart, which removing may have changed."""

    def contents(root: Path) -> set[tuple[str, ...]]:
        return {(entry.path, entry.kind, entry.sha256, entry.target) for entry in tree_entries(root)}

    return contents(path) <= contents(whole)


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _blocked(store: Store, area: Staging) -> ConflictError:
    return ConflictError(
        "RECOVERY_BLOCKED",
        f"{store.live} is neither the old nor the new directory of the interrupted transaction",
        hint=f"somebody replaced it: move it away, then run `smallq-deploy recover` (our trees are in {area.root})",
        details={"live": str(store.live), "staging": str(area.root)},
    )
