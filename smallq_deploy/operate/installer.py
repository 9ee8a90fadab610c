"""Install: execute a plan through the one transaction. (Rollback, uninstall and recovery are in mover.py.)"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallq_deploy.base.errors import ConflictError, PackageError, access_error, raise_problems
from smallq_deploy.base.events import Events
from smallq_deploy.base.fsops import remove_tree, sha256_file
from smallq_deploy.operate.mover import MoveReport, recover_store, rollback, uninstall
from smallq_deploy.operate.planner import Plan, make_plan
from smallq_deploy.operate.proving import Smoke, SmokeResult, describe_found, prove, smoke_failure
from smallq_deploy.operate.status import Status, history, status
from smallq_deploy.store.paths import Staging
from smallq_deploy.store.transaction import Change, ChangeReport, Draft, Proof, RecoveryReport, change_live, session

if TYPE_CHECKING:
    from smallq_deploy.machine.toolkit import Toolkit
    from smallq_deploy.package.runfile import RunFile

__all__ = [
    "InstallReport",
    "MoveReport",
    "Smoke",
    "SmokeResult",
    "Status",
    "history",
    "install",
    "recover_store",
    "rollback",
    "status",
    "uninstall",
]


@dataclass(frozen=True)
class InstallReport:
    """How an install ended well. Failures are raised, with the same content in their ``details``."""

    decision: str
    plan: Plan
    change: ChangeReport | None = None
    recovered: RecoveryReport | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "decision": self.decision,
            "plan": self.plan.to_dict(),
            "change": self.change.to_dict() if self.change else None,
            "recovered": self.recovered.to_dict() if self.recovered else None,
        }


def install(
    plan: Plan,
    *,
    smoke: Smoke,
    events: Events | None = None,
    method: str = "",
    toolkit_now: Callable[[], Toolkit] | None = None,
) -> InstallReport:
    """Do what ``plan`` says: it is made again under the lock, so what it found must still hold.

    ``smoke`` is called once the new tree is live; ``toolkit_now`` looks for the toolkit again, which must be the same
    (ConflictError TOOLKIT_CHANGED). Raises the plan's problems (several as Problems); SmokeError with the
    smoke test's reason as code after the old state was put back (SMOKE_INCONCLUSIVE unless ``keep_unproven``);
    PackageError BAD_TREE when the staged tree fails its static checks; InstallError and AccessError for what the file
    system refuses; ConflictError LOCK_BUSY.
    """
    events = events or Events()
    store, options = plan.store, plan.options
    if plan.decision == "refused" and not plan.only_needs_recovery:
        raise_problems(plan.problems)
    if options.dry_run or plan.decision == "nothing":
        return InstallReport(plan.decision, plan)
    _require_same_toolkit(plan, toolkit_now)  # before anything is written, and again after the wait for the lock
    with session(store, wait_seconds=options.wait_seconds, events=events) as recovered:
        _require_same_toolkit(plan, toolkit_now)
        again = make_plan(plan.environment, plan.release, store, plan.run, options)
        plan = replace(again, passed_over=plan.passed_over)
        raise_problems(plan.problems)
        for warning in plan.warnings:
            events.warning(warning)
        if plan.decision == "nothing":
            return InstallReport("nothing", plan, None, recovered)
        change = Change(
            "install",
            stage=lambda area: _stage(plan, area, events),
            describe=lambda path: describe_found(path, plan.environment.toolkit),
            prove=(lambda: prove(smoke, events, keep_unproven=options.keep_unproven))
            if not options.no_smoke
            else (lambda: Proof(True, "skipped", {"message": "not asked for (--no-smoke)"})),
            first=options.priority_first,
        )
        report = change_live(store, change, events=events, method=method)
    result = InstallReport(plan.decision, plan, report, recovered)
    if not report.kept:
        raise smoke_failure(report, f"the install was undone, {_live_words(report.live)}", result.to_dict())
    return result


def _require_same_toolkit(plan: Plan, toolkit_now: Callable[[], Toolkit] | None) -> None:
    """Raises ConflictError TOOLKIT_CHANGED, and what ``toolkit_now`` raises where none is left."""
    before = plan.environment.toolkit
    if toolkit_now is None or before is None:
        return
    now = toolkit_now()
    names = ("home", "real_home", "version", "inner_version", "arch", "opp", "set_env")
    changed = [name for name in names if getattr(before, name) != getattr(now, name)]
    if changed:
        what = "; ".join(f"{name} was {getattr(before, name)}, is {getattr(now, name)}" for name in changed)
        raise ConflictError(
            "TOOLKIT_CHANGED",
            f"the toolkit is another one than when the plan was made: {what.replace('_', ' ')}",
            hint="nothing was installed; run the command again for the toolkit that is there now",
            details={"changed": changed},
        )


def _stage(plan: Plan, area: Staging, events: Events) -> Draft:
    """Make the tree that is to become live, from a private copy of the package, and check it."""
    from smallq_deploy.package import runfile, vendortree

    store, run, options, toolkit = plan.store, plan.run, plan.options, plan.environment.toolkit
    with events.step("copy and check the package"):
        _copy_package(run, area.package)
        run = replace(run, path=area.package)  # what was checked is what is extracted
    with events.step("run the package's installer" if options.use_installer else "extract"):
        if options.use_installer:
            produced = runfile.run_installer(run, area.root / "installer", timeout=600.0)
            produced.rename(area.tree)
            remove_tree(area.root / "installer")
        else:
            runfile.extract_vendor(run, area.tree)
    with events.step("flatten, normalise, check"):
        if vendortree.flatten(area.tree):
            events.note("the package had the nested layout; it is flat now")
        vendortree.normalise(area.tree, final=store.live)
        _check_tree(plan, run, area.tree, events)
    return Draft(
        "installed",
        plan.release.id,
        plan.run.path.name,
        run.file_sha256,
        str(toolkit.version) if toolkit else "",
        toolkit.remark if toolkit else "",
        tuple(sorted(run.ops)),
        tuple(run.units),
        run.arch,
        options.recorded,
    )


def _check_tree(plan: Plan, run: RunFile, tree: Path, events: Events) -> None:
    """The static checks of a staged tree, all failures at once (PackageError BAD_TREE)."""
    from smallq_deploy.package.elf import read_elf
    from smallq_deploy.package.validate import validate_vendor
    from smallq_deploy.package.vendortree import API_LIBRARY

    release, unit = plan.release, plan.options.unit or plan.environment.unit
    findings = validate_vendor(
        tree, operator=release.operator, unit=unit, arch=run.arch, vendor=plan.store.vendor, final=plan.store.live
    )
    problems = []
    for finding in findings:
        if finding.severity == "fail":
            problems.append(PackageError("BAD_TREE", finding.message, hint=finding.hint, details=finding.to_dict()))
        else:
            events.warning(f"{finding.path or tree.name}: {finding.message}")
    for name in dict.fromkeys(path for item in run.units for path in release.files_for(unit=item, arch=run.arch)):
        if not (tree / name).is_file():
            message = f"the package lacks {name}, which {release.id} requires"
            problems.append(PackageError("BAD_TREE", message, hint="build it again"))
    readable = not any(finding.code == "BAD_ELF" and finding.path == API_LIBRARY for finding in findings)
    if (tree / API_LIBRARY).is_file() and readable:
        said = "\n".join(problem.message for problem in problems)
        missing = set(release.required_symbols) - read_elf(tree / API_LIBRARY).exported
        for symbol in sorted(name for name in missing if name not in said):
            problems.append(PackageError("BAD_TREE", f"{API_LIBRARY} does not export {symbol}", hint="build it again"))
    raise_problems(problems)


def _copy_package(run: RunFile, target: Path) -> None:
    try:
        shutil.copyfile(run.path, target)
        changed = sha256_file(target) != run.file_sha256
    except OSError as error:
        raise access_error(error, f"copy {run.path} into the store") from error
    if changed:
        raise PackageError(
            "PACKAGE_CHANGED",
            f"{run.path} changed since it was checked",
            hint="nothing was changed; run the command again when nobody writes to the package",
        )


def _live_words(number: int) -> str:
    return f"generation {number} is live again" if number else "the state before it is live again"
