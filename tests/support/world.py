"""The invariants of the reliability promises, checked on disk after every fault.

I1 the live tree is one complete known generation (old or new, or absent where that is one of the two)   I2 other
vendors unchanged   I3 recovery works and is idempotent   I4 exit status 0 means the new state is live   I5 any other
means the old one is, or the command said which   I6 nothing temporary is left   I7 the history does not lie   I8 the
lock is free. :func:`assert_world_ok` checks them all; that I4 also holds after a power cut is tests/faults/powercut's.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from smallq_deploy.base.fsops import sha256_file, tree_digest
from smallq_deploy.base.lock import exclusive_lock
from smallq_deploy.operate.mover import recover_store
from smallq_deploy.store.configini import read_config
from smallq_deploy.store.generations import check_manifest, list_generations, load_generation, read_state
from smallq_deploy.store.history import read_history
from smallq_deploy.store.live import read_tree
from smallq_deploy.store.paths import ABSENT, Store

NOTHING = "absent"


def live_digest(store: Store) -> str:
    """tree_digest of the live directory, or NOTHING."""
    return tree_digest(store.live) if store.live.is_dir() else NOTHING


def others_digest(store: Store) -> dict[str, str]:
    """Digest of every other vendor directory."""
    names = [name for name in os.listdir(store.vendors) if name != store.vendor and not name.startswith(".")]
    return {name: tree_digest(store.vendors / name) for name in sorted(names) if (store.vendors / name).is_dir()}


def assert_world_ok(
    world: Path | Store,
    *,
    allowed: Collection[str],
    others: dict[str, str],
    edited: str = "",
    old: str = "",
    new: str = "",
    exit_status: int | None = None,
    said: str = "",
    where: str = "",
) -> None:
    """I1 to I8, after recovery; raises AssertionError with every violated invariant in words.

    ``world`` is a store or an opp directory. ``allowed`` are the live digests that may be, ``others`` what
    :func:`others_digest` gave before. With ``old``, ``new`` and ``exit_status`` (of a command that ended by itself)
    I4 and I5 are checked, before recovery; ``said`` is all that it printed. ``edited``: see :func:`world_problems`.
    """
    store = world if isinstance(world, Store) else Store(world)
    found = []
    at_once = live_digest(store)
    if exit_status == 0 and new and at_once != new:
        found.append("I4: exit status 0, but the new state is not live")
    if exit_status not in (0, None) and old and at_once != old and not _says_which(said):
        found.append(f"I5: exit status {exit_status}, the old state is not live and nothing says so")
    found += world_problems(store, allowed, others, edited=edited)
    assert not found, "\n".join(f"{where}: {text}" if where else text for text in found)


def _says_which(said: str) -> bool:
    words = ("is live", "was left in place", "was decided on", "smallq-deploy recover", "could not be undone")
    return any(text in said for text in words)


def world_problems(store: Store, allowed: Collection[str], others: dict[str, str], *, edited: str = "") -> list[str]:
    """Recover, then every violated invariant in words.

    ``allowed``: live digests that may be; ``edited``: that of a tree which somebody changed after it was installed.
    """
    found = []
    try:
        recover_store(store)
        settled = tree_digest(store.vendors)
        if recover_store(store) is not None:
            found.append("I3: a second recovery found something to do")
        if tree_digest(store.vendors) != settled:
            found.append("I3: a second recovery changed something")
    except Exception as error:
        return [f"I3: recovery failed: {type(error).__name__} {error}"]
    try:
        found += list(settled_problems(store, allowed, others, edited=edited))
    except Exception as error:
        found.append(f"I1: the store cannot be read: {type(error).__name__} {error}")
    return found


def settled_problems(
    store: Store, allowed: Collection[str], others: dict[str, str], *, edited: str = ""
) -> Iterator[str]:
    """The invariants of a store in which no transaction is open."""
    digest = live_digest(store)
    if digest not in allowed:
        yield f"I1: the live tree is neither old nor new ({digest[:12]})"
    if others_digest(store) != others:
        yield "I2: another vendor's files changed"
    if not store.exists:
        return
    state = read_state(store).of(store.vendor)
    if state.current is not None:
        known = load_generation(store, state.current).manifest_digest if state.current != ABSENT else NOTHING
        if digest not in (known, edited):
            yield f"I1: the live tree is not generation {state.current}, which the state names"
        listed = store.vendor in read_config(store).names
        wanted = state.current != ABSENT and load_generation(store, state.current).listed
        if listed != wanted:
            yield f"I1: config.ini {'names' if listed else 'does not name'} {store.vendor}"
    for name in ("other",):
        if name in others and name not in read_config(store).names:
            yield f"I2: config.ini lost {name}"
    yield from _store_problems(store, state.current, as_installed=digest != edited)
    yield from _leftovers(store)
    yield from _history_problems(store)
    try:
        with exclusive_lock(store.root):
            pass
    except Exception as error:
        yield f"I8: the lock is not free: {error}"


def _store_problems(store: Store, current: int | None, *, as_installed: bool) -> Iterator[str]:
    generations = list_generations(store)
    edited = {generation.flags.get("changed_from") for generation in generations}
    for generation in generations:
        manifest = check_manifest(store, generation)
        tree = store.tree_dir(generation.number)
        if generation.number == current:
            if tree.exists():
                yield f"I1: generation {current} is live and in the store"
        elif not tree.is_dir() and generation.number in edited:
            pass  # somebody edited it while it was live; its package is still there
        elif not tree.is_dir():
            yield f"I1: the tree of generation {generation.number} is lost"
        elif tree_digest(tree) != generation.manifest_digest:
            yield f"I1: the tree of generation {generation.number} is damaged"
        place = store.live if generation.number == current else tree
        if generation.number == current and not as_installed:
            pass  # somebody edited it; what it should hold is its manifest, which was read
        elif place.is_dir() and len(manifest) != len(read_tree(place, digests=False)):
            yield f"I1: generation {generation.number} has another number of files than its manifest"
        package = store.package_file(generation.number)
        if generation.origin == "installed" and not package.is_file():
            yield f"I1: the package of generation {generation.number} is lost"
        elif generation.package_sha256 and sha256_file(package) != generation.package_sha256:
            yield f"I1: the package of generation {generation.number} is damaged"


def _leftovers(store: Store) -> Iterator[str]:
    left = [str(path) for path in (store.root / "staging").iterdir()]
    left += [str(path) for folder in (store.root, store.vendors) for path in folder.glob(".*.new")]
    left += [str(path) for path in (store.journal, store.root / "owner") if path.exists()]
    if left:
        yield f"I6: left behind: {', '.join(Path(path).name for path in left)}"


def _history_problems(store: Store) -> Iterator[str]:
    lines = read_history(store)
    if len({line["txid"] for line in lines}) != len(lines):
        yield "I7: a transaction is in the history twice"
    for line in lines:
        smoke = (line["smoke"] or {}).get("verdict")
        if line["action"] == "install" and line["result"] == "ok" and smoke not in ("pass", "skipped"):
            yield "I7: an install is called ok without a passed smoke test"
    told = {line["to"] for line in lines if (line["smoke"] or {}).get("verdict") == "skipped"}
    for generation in list_generations(store):
        if generation.number in told and (generation.proven or not generation.flags.get("no_smoke")):
            yield f"I7: generation {generation.number} was installed without a smoke test and does not say so"
        if generation.failed and generation.number not in {line["to"] for line in lines if line["result"] == "undone"}:
            yield f"I7: generation {generation.number} failed, and the history does not tell"
    # A purge that takes the whole store begins with the state; the rest goes with the next one.
    if store.state.exists() and max((line["to"] for line in lines), default=0) > read_state(store).last_number:
        yield "I7: a number in the history could be given again"
    state = read_state(store).of(store.vendor)
    done = [line for line in lines if line["result"] == "ok"]
    if done and (state.current or ABSENT) != done[-1]["to"]:
        yield f"I7: the history says generation {done[-1]['to']} is live, the state says {state.current}"
