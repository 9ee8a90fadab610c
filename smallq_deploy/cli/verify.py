"""``verify``: is the live tree what was installed, and does it lie where CANN looks?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from smallq_deploy.cli.options import Call, command, option
from smallq_deploy.cli.render import Answer, Block, Bullets, Facts, Line, Table
from smallq_deploy.cli.session import Session
from smallq_deploy.cli.smoke import device_option, smoke_call, timeout_option

if TYPE_CHECKING:
    from smallq_deploy.base.errors import SmallqError
    from smallq_deploy.operate.mover import MoveReport
    from smallq_deploy.package.releases import Release
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
@option("--repair", is_flag=True, help="Put back what differs, from the package that was installed, and test it.")
@option("--no-smoke", is_flag=True, help="With --repair: no smoke test afterwards.")
@device_option
@timeout_option
def verify(call: Call, repair: bool, no_smoke: bool, device: str, smoke_timeout: float) -> Answer:
    """Compare every installed file with what was installed, and check the directory as CANN reads it.

    Letters as rpm -V has them: S size, M mode, 5 content, L link, T time. Exit status 10 when anything differs, also
    for a directory that was installed by hand, which gets the static checks only. --repair makes the tree again from
    the kept package and switches it in as an install does; what was found is kept as a generation.
    """
    from smallq_deploy.operate.readahead import TreeReader

    session = Session(call, mutating=repair)
    toolkit = session.toolkit
    ahead = TreeReader(session.store.live)  # the rest takes as long to import as a few hundred MB to read

    from smallq_deploy.operate.verifier import verify_while

    def machine() -> tuple[Release, str]:
        from smallq_deploy.machine.environment import detect_environment  # the files are read meanwhile

        return session.release, detect_environment(discovery=session.discovery).unit

    report = verify_while(session.store, machine, arch=toolkit.arch, ahead=ahead)
    restored: MoveReport | None = None
    if repair and (report.differences or report.state == "missing"):
        from smallq_deploy.operate.mover import restore

        call.confirm(f"{session.store.live} differs in {len(report.differences)} places: make it again?")
        restored = restore(
            session.store,
            operator=session.release.operator,
            smoke=None if no_smoke else smoke_call(session, device, smoke_timeout),
            toolkit=toolkit,
            events=call.events,
        )
        report = verify_while(session.store, machine, arch=toolkit.arch)
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
    if restored is not None and restored.change is not None:
        kept = f"; what was found is generation {restored.change.adopted}" if restored.change.adopted else ""
        blocks.insert(0, Line(f"generation {restored.target} was made again from its package{kept}"))
    if report.differences:
        rows = [(item.letters, item.path) for item in report.differences[:_SHOWN]]
        blocks.append(Table(("differs", "path"), rows))
        if len(report.differences) > _SHOWN:
            blocks.append(Line(f"... and {len(report.differences) - _SHOWN} more (--json lists all)"))
    if report.findings:
        blocks.append(Bullets("findings:", finding_points(report.findings)))
    error: SmallqError | None = report.failure
    if restored is not None and restored.failure is not None:
        error = restored.failure
    elif error is not None:
        error.details = {"differences": len(report.differences), "findings": [item.code for item in report.findings]}
    return Answer(
        {"toolkit": toolkit.to_dict(), **report.to_dict(), "restored": restored.to_dict() if restored else None},
        blocks,
        error=error,
    )
