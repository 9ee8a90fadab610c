"""Recognise and put right what hand-made installs leave behind: the nested layout, a set_env.bash that points to a
deleted place, modes that lock other users out, a vendor that config.ini does not name (cann.md 6.5 and 13.15).

The live tree is never edited: a repaired copy is made beside it and switched in by the one transaction, so that the
state found stays as a generation to go back to.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from smallq_deploy.base.errors import DifferencesError, SmallqError, SmokeError, access_error, raise_problems
from smallq_deploy.base.events import Events
from smallq_deploy.base.fsops import copy_tree
from smallq_deploy.base.lock import owner_record
from smallq_deploy.operate.preflight import unwritable
from smallq_deploy.operate.proving import Smoke, describe_found, prove, smoke_failure
from smallq_deploy.operate.verifier import REPAIRABLE, config_findings, static_findings
from smallq_deploy.package.releases import Release
from smallq_deploy.package.validate import Finding
from smallq_deploy.package.vendortree import flatten, inspect_vendor, normalise
from smallq_deploy.store.configini import read_config, with_vendor, write_config
from smallq_deploy.store.generations import now, read_state
from smallq_deploy.store.history import append_history, who
from smallq_deploy.store.journal import new_txid
from smallq_deploy.store.live import check_place, live_exists
from smallq_deploy.store.paths import ABSENT, Staging, Store
from smallq_deploy.store.transaction import Change, ChangeReport, Draft, RecoveryReport, change_live, session

if TYPE_CHECKING:
    from smallq_deploy.machine.toolkit import Toolkit

_IN_CONFIG = frozenset({"VENDOR_NOT_LISTED", "CONFIG_MALFORMED"})


@dataclass(frozen=True)
class RepairReport:
    """``decision``: ``nothing`` (there was nothing to repair), ``planned`` (dry run), ``repaired``, or ``config`` (only
    config.ini was rewritten). ``found`` is what was repaired or would be, ``remaining`` what repair cannot put right.
    ``failure`` is what the caller raises after having shown the report: a smoke test that did not pass (the repaired
    tree stays), or findings that remain."""

    store: Store
    decision: str
    found: tuple[Finding, ...]
    remaining: tuple[Finding, ...]
    change: ChangeReport | None = None
    recovered: RecoveryReport | None = None
    failure: SmokeError | DifferencesError | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        return {
            "vendor": self.store.vendor,
            "live_path": str(self.store.live),
            "decision": self.decision,
            "found": [finding.to_dict() for finding in self.found],
            "remaining": [finding.to_dict() for finding in self.remaining],
            "change": self.change.to_dict() if self.change else None,
            "recovered": self.recovered.to_dict() if self.recovered else None,
        }


def diagnose(store: Store, release: Release, *, unit: str = "", arch: str = "") -> tuple[Finding, ...]:
    """Everything that is wrong with the live directory and config.ini; those in REPAIRABLE can be put right here.

    A directory that does not exist has no findings. Raises as verify does, but looks at open transactions not at all.
    """
    check_place(store)
    if not live_exists(store):
        return ()
    return (
        *static_findings(store, release, unit=unit, arch=arch),
        *config_findings(store, release),
    )


def repair(
    store: Store,
    release: Release,
    *,
    smoke: Smoke | None = None,
    unit: str = "",
    arch: str = "",
    dry_run: bool = False,
    wait_seconds: float = 0.0,
    toolkit: Toolkit | None = None,
    events: Events | None = None,
    method: str = "",
) -> RepairReport:
    """Put right what can be; with nothing to do, nothing is changed and no generation is made.

    ``smoke`` is called after the switch where the repaired tree has the operator; the tree stays whatever it says.
    Raises ConflictError LAYOUT_CONFLICT (two copies with different operators), LOCK_BUSY; InstallError; AccessError.
    """
    events = events or Events()
    check_place(store)
    found = diagnose(store, release, unit=unit, arch=arch)
    # Nothing to do needs no lock and leaves no trace, unless an interrupted transaction is to be recovered first.
    if dry_run or not (_fixable(found) or store.journal.exists()):
        decision = "planned" if _fixable(found) else "nothing"
        return _finished(store, decision, _fixable(found), _others(found))
    raise_problems(list(unwritable(store)))
    with session(store, wait_seconds=wait_seconds, events=events) as recovered:
        found = diagnose(store, release, unit=unit, arch=arch)
        fixable = _fixable(found)
        report: ChangeReport | None = None
        if not fixable:
            decision = "nothing"
        elif all(finding.code in _IN_CONFIG for finding in fixable):
            decision = "config"
            with events.step("rewrite config.ini"):
                _repair_config(store, fixable)
        else:
            decision = "repaired"
            report = _repair_tree(store, release, fixable, smoke, toolkit, events, method)
        try:
            remaining = diagnose(store, release, unit=unit, arch=arch)
        except SmallqError as error:
            if report is not None:
                error.message = f"the repaired tree is live as generation {report.live}, but {error.message}"
            raise
    result = _finished(store, decision, fixable, remaining)
    result = replace(result, change=report, recovered=recovered)
    if report is not None and report.proof is not None and report.proof.verdict != "pass":
        outcome = f"the repaired tree is live as generation {report.live} and was left in place"
        return replace(result, failure=smoke_failure(report, outcome, result.to_dict()))
    return result


def _fixable(found: tuple[Finding, ...]) -> tuple[Finding, ...]:
    return tuple(finding for finding in found if finding.code in REPAIRABLE)


def _others(found: tuple[Finding, ...]) -> tuple[Finding, ...]:
    return tuple(finding for finding in found if finding.code not in REPAIRABLE)


def _finished(store: Store, decision: str, found: tuple[Finding, ...], remaining: tuple[Finding, ...]) -> RepairReport:
    result = RepairReport(store, decision, found, remaining)
    failing = [finding for finding in remaining if finding.severity == "fail"]
    # A nested tree hides what is wrong inside it, so a plan cannot judge that yet.
    if not failing or decision == "planned":
        return result
    failure = DifferencesError(
        failing[0].code,
        f"repair cannot put right: {failing[0].message}" + (f" (and {len(failing) - 1} more)" if failing[1:] else ""),
        hint=failing[0].hint,
        details=result.to_dict(),
    )
    return replace(result, failure=failure)


def _repair_tree(
    store: Store,
    release: Release,
    fixable: tuple[Finding, ...],
    smoke: Smoke | None,
    toolkit: Toolkit | None,
    events: Events,
    method: str,
) -> ChangeReport:
    def stage(area: Staging) -> Draft:
        with events.step("copy, flatten, normalise"):
            try:
                copy_tree(store.live, area.tree)
            except OSError as error:
                raise access_error(error, f"copy {store.live} into the store") from error
            flatten(area.tree)
            normalise(area.tree, final=store.live)
        draft = describe_found(area.tree, toolkit)
        flags = {"repaired": sorted({finding.code for finding in fixable})}
        return replace(draft, origin="repaired", flags=flags)

    tree = inspect_vendor(store.live)
    test = smoke if smoke is not None and release.operator in tree.ops else None
    change = Change(
        "repair",
        stage=stage,
        describe=lambda path: describe_found(path, toolkit),
        prove=(lambda: prove(test, events, keep_always=True)) if test is not None else None,
    )
    return change_live(store, change, events=events, method=method)


def _repair_config(store: Store, fixable: tuple[Finding, ...]) -> None:
    """config.ini alone: one atomic replacement, so there is nothing to journal."""
    config = read_config(store)
    text = with_vendor(config, store.vendor, listed=True)
    try:
        write_config(store, text, config.mode | 0o644)
    except OSError as error:
        raise access_error(error, f"write {store.config_ini}") from error
    live = read_state(store).of(store.vendor).current or ABSENT
    append_history(
        store,
        {
            "txid": new_txid(),
            "time": now(),
            "vendor": store.vendor,
            "action": "repair",
            "result": "ok",
            "from": live,
            "to": live,
            "live": live,
            "adopted": None,
            "method": "config",
            "smoke": None,
            "reason": ", ".join(sorted({finding.code for finding in fixable})),
            **who(owner_record()),
        },
    )
