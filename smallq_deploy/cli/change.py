"""``rollback``, ``uninstall`` and ``recover``: make something older live, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from smallq_deploy.cli.options import Call, command, option
from smallq_deploy.cli.render import Answer, Block, Facts, Line
from smallq_deploy.cli.session import Session
from smallq_deploy.cli.smoke import device_option, smoke_call, timeout_option

if TYPE_CHECKING:
    from smallq_deploy.operate.mover import MoveReport


def _name(number: int) -> str:
    return f"generation {number}" if number else "no vendor directory"


def _move_blocks(report: MoveReport, done: str) -> list[Block]:
    notes: list[Block] = [Line(note) for note in report.notes]
    if report.decision == "planned":
        return [Line(f"would change {_name(report.source)} to {_name(report.target)}; nothing was changed"), *notes]
    if report.decision == "nothing":
        return [Line("nothing to do" + (f": {report.notes[0]}" if report.notes else ""))]
    proof = report.change.proof if report.change is not None else None
    facts = Facts([("was live", _name(report.source)), ("smoke test", proof.verdict if proof is not None else "")])
    return [Line(done), facts, *notes]


@command("rollback", release=True, mutating=True, example="smallq-deploy rollback --to 1")
@option("--to", type=click.IntRange(min=0), metavar="N", help="The generation (0: none). Default: the one before.")
@option(
    "--verify/--no-verify",
    default=None,
    help="Compare contents, not only sizes and times, before switching. Default: only with --no-smoke.",
)
@option("--no-smoke", is_flag=True, help="No smoke test afterwards; contents are compared instead.")
@device_option
@timeout_option
def rollback(
    call: Call, to: int | None, verify: bool | None, no_smoke: bool, device: str, smoke_timeout: float
) -> Answer:
    """Make an earlier generation live again, in one step, and test it.

    Without --to it is the generation that was live before this one: twice returns. A rollback never undoes itself:
    when the smoke test does not pass, the exit status is 9 and the generation stays live.
    """
    from smallq_deploy.operate.mover import rollback as run_rollback

    session = Session(call, mutating=True)
    smoke = None if no_smoke else smoke_call(session, device, smoke_timeout)
    if not call.dry_run and call.interactive:
        seen = _rollback(session, to=to, dry_run=True)
        call.confirm(f"{_name(seen.source)} is live; make {_name(seen.target)} live?")
    report = run_rollback(
        session.store,
        operator=session.release.operator if smoke is not None else "",
        to=to,
        smoke=smoke,
        deep_check=verify,
        dry_run=call.dry_run,
        wait_seconds=call.wait,
        toolkit=session.toolkit,
        events=call.events,
    )
    if report.failure is not None:
        report.failure.details = {"live": report.target}
    data = {"toolkit": session.toolkit.to_dict(), **report.to_dict()}
    return Answer(data, _move_blocks(report, f"{_name(report.target)} is live"), error=report.failure)


def _rollback(session: Session, *, to: int | None, dry_run: bool) -> MoveReport:
    from smallq_deploy.operate.mover import rollback as run_rollback

    return run_rollback(session.store, operator="", to=to, dry_run=dry_run)


@command("uninstall", release=True, mutating=True, example="smallq-deploy uninstall --restore-adopted")
@option("--restore-adopted", is_flag=True, help="Bring back what was there before the first install.")
@option("--purge", is_flag=True, help="Also delete the generations. Cannot be taken back.")
def uninstall(call: Call, restore_adopted: bool, purge: bool) -> Answer:
    """Remove the vendor directory and its entry in config.ini; other vendors stay as they are.

    The generations are kept, so that `rollback` brings the operator back, unless --purge deletes them too.
    """
    from smallq_deploy.operate.mover import uninstall as run_uninstall

    session = Session(call, mutating=True)
    if not call.dry_run:
        question = f"remove {session.store.live}?" + (" And delete every generation of it?" if purge else "")
        if purge:
            call.must_confirm(question, "--purge deletes what `rollback` needs, and")
        else:
            call.confirm(question)
    report = run_uninstall(
        session.store,
        restore_adopted=restore_adopted,
        purge=purge,
        dry_run=call.dry_run,
        wait_seconds=call.wait,
        toolkit=session.toolkit,
        events=call.events,
    )
    done = f"{_name(report.target)} is live again" if report.target else f"removed {session.store.live}"
    blocks = _move_blocks(report, done)
    if report.decision == "done" and not purge:
        blocks.append(Line("the generations are kept: `smallq-deploy rollback` brings it back"))
    return Answer({"toolkit": session.toolkit.to_dict(), "purged": purge, **report.to_dict()}, blocks)


@command("recover", mutating=True, example="smallq-deploy recover")
@option(
    "--break-lock",
    metavar="HOST",
    help="Shared opp: take away the lock that HOST holds. Only when nothing runs there any more.",
)
def recover(call: Call, break_lock: str | None) -> Answer:
    """Close what an interrupted command left: finish it when it was decided, undo it otherwise.

    Every command that changes something does this by itself first. On a shared file system the lock of another host is
    respected, also when that host is gone: --break-lock HOST says that you know it.
    """
    from smallq_deploy.base import lock
    from smallq_deploy.operate.mover import recover_store
    from smallq_deploy.store.recovery import open_transaction

    session = Session(call, mutating=True)
    store = session.store
    data: dict[str, Any] = {"toolkit": session.toolkit.to_dict(), "open": None, "recovered": None, "broken": None}
    lines = []
    if break_lock is not None:
        held = lock.held_elsewhere(store.root)
        if not call.dry_run and held is not None and held.get("host") == break_lock:
            since = f" (pid {held.get('pid', '?')}, since {held.get('since', '?')})"
            call.must_confirm(f"break the lock of {break_lock}{since}? Nothing may run there.", "breaking a lock")
        record = lock.break_lock(store.root, break_lock, dry_run=call.dry_run)
        data["broken"] = record
        lines.append(f"the lock of {break_lock} {'would be' if call.dry_run else 'was'} taken away")
    opened = open_transaction(store)
    if opened is None:
        return Answer(data, [Line(text) for text in [*lines, "nothing to recover"]])
    data["open"] = opened.to_dict()
    what = f"{opened.action} begun {opened.started}, phase '{opened.phase}'"
    if call.dry_run:
        return Answer(data, [Line(text) for text in [*lines, f"interrupted: {what}"]])
    call.confirm(f"close the interrupted {what}?")
    report = recover_store(store, wait_seconds=call.wait, events=call.events)
    if report is None:
        return Answer({**data, "open": None}, [Line(text) for text in [*lines, "nothing to recover"]])
    outcome = "finished" if report.outcome == "completed" else "undone"
    lines.append(f"the interrupted {report.action} was {outcome}; {_name(report.live)} is live")
    return Answer({**data, "recovered": report.to_dict()}, [Line(text) for text in lines])
