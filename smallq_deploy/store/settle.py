"""What follows a decision: bring every tree home, write state and history, clean up. Every step can be repeated."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from smallq_deploy.base.fsops import fsync_dir, remove_tree
from smallq_deploy.store import configini
from smallq_deploy.store import journal as journals
from smallq_deploy.store.generations import (
    VendorState,
    generation_numbers,
    load_generation,
    now,
    read_state,
    write_state,
)
from smallq_deploy.store.history import append_history, who
from smallq_deploy.store.journal import Journal, drop_journal, write_journal
from smallq_deploy.store.paths import ABSENT, Staging, Store
from smallq_deploy.store.switch import move, old_tree_place, restore

_TEMPORARIES = (".journal.new", ".state.new", ".pins.new", ".history.new")


def keep(store: Store, journal: Journal) -> None:
    """Complete a transaction whose decision is ``ok``."""
    area = store.staging(journal.txid)
    if journal.adopt:
        _move_if_there(area.adopted, store, journal.old)
    if journal.made:
        _move_if_there(area.record, store, journal.new)
    place = old_tree_place(store, area, journal)
    if place is not None:
        home = store.tree_dir(journal.old)
        remove_tree(home)  # only ever a second copy: the tree itself is at ``place``
        move(place, home)
    if not journal.made and journal.new != ABSENT:
        remove_tree(store.tree_dir(journal.new))  # there only when what is live now was copied out of it
        fsync_dir(store.generation_dir(journal.new))
    state = read_state(store)
    changed = state.changed(store.vendor, VendorState(journal.new, journal.old), journal.last_number)
    if state != changed:
        write_state(store, changed)
    append_history(store, _line(store, journal, "ok", journal.new))
    if journal.made:
        _drop_failed(store, area, journal.new)
    _close(store, area)


def undo(store: Store, journal: Journal) -> None:
    """Put the old state back and close the transaction; a tree that failed its proof is kept to look at."""
    area = store.staging(journal.txid)
    if journal.phase in (journals.SWITCHING, journals.SWITCHED):
        journal = replace(journal, phase=journals.UNDONE)
        try:
            write_journal(store, journal)
        except OSError:
            pass  # a full disk must not stop the way back; recovery from the phase on disk does the same
    if journal.phase == journals.UNDONE:
        restore(store, area, journal)
        if journal.config is not None:
            configini.revert_change(store, journal.config, store.vendor)
    rebuilt = journal.flags.get("rebuilt")  # made anew from its package: the store had no tree of it, and needs none
    if not journal.made and journal.new_tree is not None and not rebuilt:
        home = store.tree_dir(journal.new)
        if area.tree.exists() and not home.exists():
            move(area.tree, home)
    elif journal.made and journal.proof is not None and journal.flags.get("keep_failed"):
        _move_if_there(area.record, store, journal.new)
        if area.tree.exists():
            move(area.tree, store.tree_dir(journal.new))
    else:
        remove_tree(area.root)  # first, because a full disk may be the reason
    state = read_state(store)
    changed = state.changed(store.vendor, state.of(store.vendor), journal.last_number)
    if state != changed:
        write_state(store, changed)
    append_history(store, _line(store, journal, "undone", state.of(store.vendor).current or ABSENT))
    _close(store, area)


def sweep(store: Store) -> None:
    """Remove what no open transaction owns: staging directories and half-written temporaries of dead processes."""
    for path in (*(store.root / name for name in _TEMPORARIES), store.vendors / ".config.ini.new"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
    staging = store.root / "staging"
    for name in os.listdir(staging):
        remove_tree(staging / name)


def _move_if_there(record: Path, store: Store, number: int) -> None:
    target = store.generation_dir(number)
    if os.path.isdir(record) and not target.exists():
        move(record, target)


def _drop_failed(store: Store, area: Staging, below: int) -> None:
    for number in generation_numbers(store):
        if number < below:
            generation = load_generation(store, number)
            if generation.failed and generation.vendor == store.vendor:
                # Out of the store by one rename: a half-removed generation would look like a damaged store.
                try:
                    move(store.generation_dir(number), area.root / f"failed-{number}")
                except OSError as error:
                    if error.errno != errno.EXDEV:  # in a lower layer of overlayfs: it stays, removing frees nothing
                        raise


def _close(store: Store, area: Staging) -> None:
    remove_tree(area.root)
    drop_journal(store)


def _line(store: Store, journal: Journal, result: str, live: int) -> dict[str, Any]:
    shown = ("verdict", "reason", "code", "code_name", "message")
    smoke = {key: journal.proof[key] for key in shown if key in journal.proof} if journal.proof else None
    line: dict[str, Any] = {
        "txid": journal.txid,
        "time": now(),
        "vendor": store.vendor,
        "action": journal.action,
        "result": result,
        "from": journal.old,
        "to": journal.new,
        "live": live,
        "adopted": journal.old if journal.adopt and result == "ok" else None,
        "method": journal.method,
        "smoke": smoke,
        "reason": journal.reason,
        **who(journal.owner),
    }
    return line
