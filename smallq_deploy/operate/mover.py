"""Roll back, uninstall, recover: use cases that make something older live, or nothing."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from smallq_deploy.base.errors import (
    ConflictError,
    InstallError,
    SmokeError,
    UsageError,
    access_error,
    raise_problems,
)
from smallq_deploy.base.events import Events
from smallq_deploy.base.fsops import fsync_dir, remove_tree
from smallq_deploy.operate.foreign import handovers
from smallq_deploy.operate.inuse import processes_using
from smallq_deploy.operate.preflight import unwritable
from smallq_deploy.operate.proving import Smoke, describe_found, prove, smoke_failure
from smallq_deploy.package.vendortree import ops_of_vendor
from smallq_deploy.store.configini import read_config
from smallq_deploy.store.generations import (
    Generation,
    State,
    VendorState,
    generation_numbers,
    list_generations,
    load_generation,
    read_state,
    write_state,
)
from smallq_deploy.store.live import check_place, observe_live
from smallq_deploy.store.paths import ABSENT, Staging, Store
from smallq_deploy.store.switch import move
from smallq_deploy.store.transaction import Change, ChangeReport, RecoveryReport, change_live, refuse_open, session

if TYPE_CHECKING:
    from smallq_deploy.machine.toolkit import Toolkit


@dataclass(frozen=True)
class MoveReport:
    """How a rollback or uninstall ended. ``failure`` is the SmokeError of a rollback whose smoke test did not pass:
    the tree is left in place, and the caller raises it after having shown the report."""

    action: str
    decision: str  # done | nothing | planned (dry run)
    source: int
    target: int
    change: ChangeReport | None = None
    recovered: RecoveryReport | None = None
    notes: tuple[str, ...] = ()
    failure: SmokeError | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        return {
            "action": self.action,
            "decision": self.decision,
            "from": self.source,
            "to": self.target,
            "change": self.change.to_dict() if self.change else None,
            "recovered": self.recovered.to_dict() if self.recovered else None,
            "notes": list(self.notes),
        }


def rollback(
    store: Store,
    *,
    operator: str,
    to: int | None = None,
    smoke: Smoke | None = None,
    deep_check: bool | None = None,
    dry_run: bool = False,
    wait_seconds: float = 0.0,
    toolkit: Toolkit | None = None,
    events: Events | None = None,
    method: str = "",
) -> MoveReport:
    """Make generation ``to`` live again (default: the one before the current one; 0: no vendor directory).

    With ``smoke`` the result is tested, unless the generation has no ``operator``; the tree stays whatever the test
    says (``failure`` in the report). ``deep_check``: compare contents before the switch, not only names, sizes and
    times; None: where no test follows. Raises UsageError
    NOTHING_TO_ROLL_BACK, NO_SUCH_GENERATION, FAILED_GENERATION; InstallError GENERATION_DAMAGED; ConflictError
    LOCK_BUSY; AccessError.
    """
    events = events or Events()
    _require_store(store, "NOTHING_TO_ROLL_BACK", "nothing was ever installed here")
    raise_problems(list(unwritable(store)))
    if dry_run:
        return _plan_move(store, to)
    with session(store, wait_seconds=wait_seconds, events=events) as recovered:
        check_place(store)
        live = observe_live(store)
        target = _rollback_target(store, to)
        source = live.number
        if target == source and live.kind in ("current", "absent"):
            return MoveReport("rollback", "nothing", source, target, None, recovered, ("it is live already",))
        notes = list(_handovers(store, target))
        generation = load_generation(store, target) if target else None
        test = smoke
        if generation is None:
            test = None
        elif test is not None and operator not in generation.ops:
            test = None
            notes.append(f"generation {target} has no {operator}: it is unproven and was not tested")
        _warn_users(store, events)
        change = Change(
            "rollback",
            target=target,
            describe=lambda path: describe_found(path, toolkit),
            rebuild=lambda area, item: _rebuild(store, area, item),
            prove=(lambda: prove(test, events, keep_always=True)) if test is not None else None,
            listed=generation.listed if generation else False,
            deep_check=test is None if deep_check is None else deep_check,
        )
        report = change_live(store, change, events=events, method=method)
    result = MoveReport("rollback", "done", source, target, report, recovered, tuple(notes))
    if report.proof is not None and report.proof.verdict != "pass":
        outcome = f"generation {target} is live and was left in place"
        return replace(result, failure=smoke_failure(report, outcome, result.to_dict()))
    return result


def _rollback_target(store: Store, to: int | None) -> int:
    state = read_state(store).of(store.vendor)
    if to is None:
        if state.previous is None:
            raise UsageError(
                "NOTHING_TO_ROLL_BACK",
                f"no earlier generation of vendor {store.vendor} is known",
                hint="`smallq-deploy status` lists the generations; `uninstall` removes the live one",
            )
        to = state.previous
    if to == ABSENT:
        return ABSENT
    generation = load_generation(store, to)
    if generation.vendor != store.vendor:
        raise UsageError(
            "NO_SUCH_GENERATION",
            f"generation {to} belongs to vendor {generation.vendor}, not {store.vendor}",
            hint=f"say --vendor {generation.vendor}",
        )
    if generation.failed:
        raise UsageError(
            "FAILED_GENERATION",
            f"generation {to} never worked ({generation.failed})",
            hint="it is kept to look at only; `smallq-deploy status` lists the others",
        )
    return to


def _rebuild(store: Store, area: Staging, generation: Generation) -> None:
    """The tree of a generation whose files are gone, from its kept package; the transaction compares the digest."""
    from smallq_deploy.package import runfile, vendortree

    package = store.package_file(generation.number)
    if not package.exists():
        raise InstallError(
            "GENERATION_DAMAGED",
            f"the files of generation {generation.number} are gone, and it has no package to take them from",
            hint="nothing was changed; roll back to another one, see `smallq-deploy status`",
        )
    run = runfile.read_run(package)
    runfile.extract_vendor(run, area.tree)
    vendortree.flatten(area.tree)
    vendortree.normalise(area.tree, final=store.live)


def restore(
    store: Store,
    *,
    operator: str,
    smoke: Smoke | None = None,
    dry_run: bool = False,
    wait_seconds: float = 0.0,
    toolkit: Toolkit | None = None,
    events: Events | None = None,
    method: str = "",
) -> MoveReport:
    """Put the live generation back as it was installed, from its kept package; contents decide whether it differs.

    The tree found is kept as a generation, and the switch is that of every change: no file is written to that a process
    may have mapped. ``smoke`` as for :func:`rollback`. Raises UsageError NOTHING_TO_RESTORE, InstallError
    PACKAGE_NOT_KEPT, GENERATION_DAMAGED, PackageError; ConflictError LOCK_BUSY; AccessError.
    """
    events = events or Events()
    _require_store(store, "NOTHING_TO_RESTORE", "nothing was ever installed here")
    raise_problems(list(unwritable(store)))
    if dry_run:
        refuse_open(store)
        number = _restorable(store).number
        same = observe_live(store, deep=True).kind == "current"
        return MoveReport("restore", "nothing" if same else "planned", number, number)
    with session(store, wait_seconds=wait_seconds, events=events) as recovered:
        generation = _restorable(store)
        number = generation.number
        if observe_live(store, deep=True).kind == "current":
            return MoveReport("restore", "nothing", number, number, None, recovered, ("nothing differs",))
        test = smoke if operator in generation.ops else None
        _warn_users(store, events)
        change = Change(
            "restore",
            target=number,
            describe=lambda path: describe_found(path, toolkit),
            rebuild=lambda area, item: _rebuild(store, area, item),
            prove=(lambda: prove(test, events, keep_always=True)) if test is not None else None,
            listed=generation.listed,
            deep_live=True,
        )
        report = change_live(store, change, events=events, method=method)
    result = MoveReport("restore", "done", report.previous, number, report, recovered)
    if report.proof is not None and report.proof.verdict != "pass":
        outcome = f"generation {number} is live again and was left in place"
        return replace(result, failure=smoke_failure(report, outcome, result.to_dict()))
    return result


def _restorable(store: Store) -> Generation:
    current = read_state(store).of(store.vendor).current
    if not current:
        raise UsageError(
            "NOTHING_TO_RESTORE", "no generation is live", hint="`smallq-deploy rollback` or `install` makes one live"
        )
    generation = load_generation(store, current)
    if not store.package_file(current).is_file():
        raise InstallError(
            "PACKAGE_NOT_KEPT",
            f"generation {current} was not installed from a package that is kept: its files cannot be made again",
            hint="install a package, or roll back to a generation that has one (`smallq-deploy status`)",
            details={"generation": current, "origin": generation.origin},
        )
    return generation


def uninstall(
    store: Store,
    *,
    restore_adopted: bool = False,
    purge: bool = False,
    dry_run: bool = False,
    wait_seconds: float = 0.0,
    toolkit: Toolkit | None = None,
    events: Events | None = None,
    method: str = "",
) -> MoveReport:
    """Remove the live directory and our name in config.ini; the store stays, so that ``rollback`` brings it back.

    ``restore_adopted`` brings back the state found before the first install instead; ``purge`` also deletes this
    vendor's generations, and the whole store when no other vendor uses it. A directory that smallq-deploy did not
    install is refused (ConflictError NOT_OURS) unless it is known as a generation. Raises UsageError NOTHING_ADOPTED,
    ConflictError LOCK_BUSY, AccessError.
    """
    events = events or Events()
    check_place(store)
    live = observe_live(store)
    if not store.exists:
        if live.exists:
            raise _not_ours(store)
        return MoveReport("uninstall", "nothing", ABSENT, ABSENT, notes=("nothing is installed",))
    raise_problems(list(unwritable(store)))
    target = _first_adopted(store) if restore_adopted else ABSENT
    if dry_run:
        return MoveReport("uninstall", "planned", live.number, target, notes=_handovers(store, target))
    with session(store, wait_seconds=wait_seconds, events=events) as recovered:
        live = observe_live(store)
        if live.kind == "unknown":
            raise _not_ours(store)
        listed = store.vendor in read_config(store).names
        generation = load_generation(store, target) if target else None
        report = None
        notes = _handovers(store, target)
        if live.kind != "absent" or target != ABSENT or listed:
            _warn_users(store, events)
            change = Change(
                "uninstall",
                target=target,
                describe=lambda path: describe_found(path, toolkit),
                rebuild=lambda area, item: _rebuild(store, area, item),
                listed=generation.listed if generation else False,
                deep_check=True,
            )
            if target == ABSENT or live.number != target:
                report = change_live(store, change, events=events, method=method)
        if purge:
            _purge(store, keep=target)
    decision = "done" if report is not None or purge else "nothing"
    return MoveReport("uninstall", decision, live.number, target, report, recovered, notes)


def _first_adopted(store: Store) -> int:
    found = [item.number for item in list_generations(store) if item.origin == "adopted" and not item.failed]
    if not found:
        raise UsageError(
            "NOTHING_ADOPTED",
            f"nothing was in {store.live} before the first install",
            hint="leave --restore-adopted out",
        )
    return found[0]


def _not_ours(store: Store) -> ConflictError:
    return ConflictError(
        "NOT_OURS",
        f"{store.live} was not installed by smallq-deploy",
        hint="remove it by hand if nobody needs it, or `smallq-deploy repair` it first",
    )


def _purge(store: Store, *, keep: int) -> None:
    """Delete this vendor's generations (one brought back, ``keep``, stays), and the store when it is then empty."""
    try:
        state = read_state(store)
        vendors = {**state.vendors, store.vendor: VendorState(keep or None, None)}
        if not keep:
            del vendors[store.vendor]
        write_state(store, State(state.last_number, vendors))
        for number in [item.number for item in list_generations(store) if item.number != keep]:
            # Out of sight by one rename first: a half-removed generation would look like a damaged store.
            aside = store.root / "staging" / f"purged-{number}"
            try:
                move(store.generation_dir(number), aside)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # In a lower layer of overlayfs. The record goes last: until then a second purge finishes this one.
                remove_tree(store.tree_dir(number))
                aside = store.generation_dir(number)
            remove_tree(aside)
        if not generation_numbers(store):
            remove_tree(store.root)
            fsync_dir(store.vendors)
    except OSError as error:
        raise access_error(error, f"purge {store.root}") from error


def recover_store(store: Store, *, wait_seconds: float = 0.0, events: Events | None = None) -> RecoveryReport | None:
    """Close an interrupted transaction; None when there was none.

    Raises ConflictError LOCK_BUSY, RECOVERY_BLOCKED, NOT_PLAIN.
    """
    store.check()
    if not store.exists:
        return None
    with session(store, wait_seconds=wait_seconds, events=events) as report:
        return report


def _require_store(store: Store, code: str, message: str) -> None:
    check_place(store)
    if not store.exists:
        raise UsageError(code, message, hint="`smallq-deploy install` comes first")


def _plan_move(store: Store, to: int | None) -> MoveReport:
    refuse_open(store)
    source, target = observe_live(store).number, _rollback_target(store, to)
    return MoveReport("rollback", "planned", source, target, notes=_handovers(store, target))


def _handovers(store: Store, target: int) -> tuple[str, ...]:
    """Who has which operator after a move to generation ``target``, where that is not plain."""
    generation = load_generation(store, target) if target else None
    ops, listed = (generation.ops, generation.listed) if generation else ((), False)
    return handovers(store, sorted(ops_of_vendor(store.live)), ops, listed=listed)


def _warn_users(store: Store, events: Events) -> None:
    for process in processes_using(store.live)[:5]:
        events.warning(f"{process} goes on with the present libraries until it is restarted")
