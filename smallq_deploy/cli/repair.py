"""``repair``: put right what hand-made installs leave behind."""

from __future__ import annotations

from smallq_deploy.cli.options import Call, command, option
from smallq_deploy.cli.render import Answer, Block, Bullets, Facts, Line, plain_lines
from smallq_deploy.cli.session import Session
from smallq_deploy.cli.smoke import device_option, smoke_call, timeout_option
from smallq_deploy.cli.verify import finding_points


@command("repair", release=True, mutating=True, example="smallq-deploy repair --dry-run")
@option("--no-smoke", is_flag=True, help="No smoke test of the repaired tree.")
@device_option
@timeout_option
def repair(call: Call, no_smoke: bool, device: str, smoke_timeout: float) -> Answer:
    """Fix a hand-made install: nested directories, a stale set_env.bash, wrong modes, a missing config.ini entry.

    Works on a copy that is switched in as an install is; the state found is kept as a generation to roll back to.
    What repair cannot fix is named, with exit status 10.
    """
    from smallq_deploy.machine.environment import detect_environment
    from smallq_deploy.operate.repair import diagnose
    from smallq_deploy.operate.repair import repair as run_repair
    from smallq_deploy.operate.verifier import REPAIRABLE

    session = Session(call, mutating=True)
    toolkit = session.toolkit
    unit = detect_environment(cann=call.cann, opp=call.opp).unit
    if not call.dry_run and call.interactive:
        found = [
            item
            for item in diagnose(session.store, session.release, unit=unit, arch=toolkit.arch)
            if item.code in REPAIRABLE
        ]
        if found:
            call.progress.pause()
            for line in plain_lines([Bullets("to repair:", finding_points(found))]):
                call.events.note(line)
            call.confirm(f"repair {session.store.live}?")
    report = run_repair(
        session.store,
        session.release,
        smoke=None if no_smoke else smoke_call(session, device, smoke_timeout),
        unit=unit,
        arch=toolkit.arch,
        dry_run=call.dry_run,
        wait_seconds=call.wait,
        toolkit=toolkit,
        events=call.events,
    )
    words = {
        "nothing": "nothing to repair" if not report.remaining else "nothing that repair could put right",
        "planned": "would repair; nothing was changed",
        "repaired": f"repaired {session.store.live}",
        "config": f"rewrote {session.store.config_ini}",
    }
    change = report.change
    blocks: list[Block] = [Line(words[report.decision])]
    if change is not None:
        blocks.append(
            Facts(
                [
                    ("live", f"generation {change.live}"),
                    ("kept as generation", f"{change.adopted} (the state found)" if change.adopted else ""),
                    ("smoke test", change.proof.verdict if change.proof is not None else "not made"),
                ]
            )
        )
    if report.found:
        blocks.append(Bullets("found:", finding_points(report.found)))
    if report.remaining:
        blocks.append(Bullets("remaining:", finding_points(report.remaining)))
    error = report.failure
    if error is not None:
        error.details = {"remaining": [item.code for item in report.remaining]}
    return Answer({"toolkit": toolkit.to_dict(), **report.to_dict()}, blocks, error=error)
