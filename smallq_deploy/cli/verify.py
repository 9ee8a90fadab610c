"""``verify``: is the live tree what was installed, and does it lie where CANN looks?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from smallq_deploy.cli.options import Call, command
from smallq_deploy.cli.render import Answer, Block, Bullets, Facts, Line, Table
from smallq_deploy.cli.session import Session

if TYPE_CHECKING:
    from smallq_deploy.package.validate import Finding

_SHOWN = 30
_STATES = {
    "installed": "installed by smallq-deploy",
    "adopted": "found before the first install, kept as a generation",
    "unknown": "not installed by smallq-deploy: only the static checks apply",
    "missing": "gone",
    "absent": "nothing is installed",
}


def finding_points(findings: Sequence[Finding]) -> list[str]:
    """One line a finding: code, what, and what to do."""
    return [f"[{item.code}] {item.message}" + (f" ({item.hint})" if item.hint else "") for item in findings]


@command("verify", release=True, example="smallq-deploy verify --json")
def verify(call: Call) -> Answer:
    """Compare every installed file with what was installed, and check the directory as CANN reads it.

    Letters as rpm -V has them: S size, M mode, 5 content, L link, T time. Exit status 10 when anything differs, also
    for a directory that was installed by hand, which gets the static checks only.
    """
    from smallq_deploy.machine.environment import detect_environment
    from smallq_deploy.operate.verifier import verify as run_verify

    session = Session(call, mutating=False)
    toolkit = session.toolkit
    unit = detect_environment(cann=call.cann, opp=call.opp).unit
    report = run_verify(session.store, session.release, unit=unit, arch=toolkit.arch)
    number = report.generation.number if report.generation is not None else None
    blocks: list[Block] = [
        Line("verified: everything is as it should be" if report.clean else "verified: not as it should be"),
        Facts(
            [
                ("directory", str(session.store.live)),
                ("state", _STATES.get(report.state, report.state)),
                ("generation", str(number) if number is not None else ""),
                ("compared", f"{report.checked} files, directories and links" if report.checked else ""),
            ]
        ),
    ]
    if report.differences:
        rows = [(item.letters, item.path) for item in report.differences[:_SHOWN]]
        blocks.append(Table(("differs", "path"), rows))
        if len(report.differences) > _SHOWN:
            blocks.append(Line(f"... and {len(report.differences) - _SHOWN} more (--json lists all)"))
    if report.findings:
        blocks.append(Bullets("findings:", finding_points(report.findings)))
    error = report.failure
    if error is not None:
        error.details = {"differences": len(report.differences), "findings": [item.code for item in report.findings]}
    return Answer({"toolkit": toolkit.to_dict(), **report.to_dict()}, blocks, error=error)
