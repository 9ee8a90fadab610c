"""The smoke test as the transaction sees it: an injected call whose answer decides what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from smallq_deploy.base.errors import SmokeError
from smallq_deploy.base.events import Events
from smallq_deploy.store.change import ChangeReport, Draft, Proof

if TYPE_CHECKING:
    from smallq_deploy.machine.toolkit import Toolkit


class SmokeResult(Protocol):
    """What a smoke test answers (smoke.report.SmokeReport). ``verdict``: pass, fail or inconclusive."""

    @property
    def verdict(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def hint(self) -> str: ...
    def to_dict(self) -> dict[str, Any]: ...


Smoke = Callable[[], SmokeResult]


def prove(smoke: Smoke, events: Events, *, keep_unproven: bool = False, keep_always: bool = False) -> Proof:
    """Run the smoke test and decide: a pass is kept, a failure is not, an inconclusive one only when asked for."""
    with events.step("smoke test") as step:
        result = smoke()
        if result.verdict != "pass":
            step.fail()
    keep = keep_always or result.verdict == "pass" or (result.verdict == "inconclusive" and keep_unproven)
    reason = "" if result.verdict == "pass" else f"smoke test: {result.message or result.verdict}"
    return Proof(keep, result.verdict, result.to_dict(), reason)


def smoke_failure(report: ChangeReport, outcome: str, details: dict[str, Any]) -> SmokeError:
    record = report.proof.record if report.proof else {}
    verdict = report.proof.verdict if report.proof else "fail"
    code = str(record.get("reason") or ("SMOKE_INCONCLUSIVE" if verdict == "inconclusive" else "SMOKE_FAILED"))
    hint = str(record.get("hint") or "")
    if verdict == "inconclusive" and not report.kept:
        hint = (hint + "; " if hint else "") + "--keep-unproven keeps it without proof"
    return SmokeError(code, f"{record.get('message') or verdict}; {outcome}", hint=hint, details=details)


def describe_found(path: Path, toolkit: Toolkit | None) -> Draft:
    """What can be said of a vendor directory that no generation describes."""
    from smallq_deploy.package.vendortree import inspect_vendor

    tree = inspect_vendor(path)
    return Draft(
        "adopted",
        toolkit_version=str(toolkit.version) if toolkit else "",
        toolkit_remark=toolkit.remark if toolkit else "",
        ops=tree.ops,
        units=tree.units,
        arch=tree.arch,
        flags={"layout": tree.layout},
    )
