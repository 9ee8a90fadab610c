"""``smoke``: does the installed operator compute?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from smallq_deploy.cli.options import Call, command, option
from smallq_deploy.cli.render import Answer, Block, Facts, Line, Table
from smallq_deploy.cli.session import Session

if TYPE_CHECKING:
    from smallq_deploy.smoke.report import SmokeReport

device_option = option(
    "--device",
    default="auto",
    metavar="N|all|auto",
    help="Which NPU is asked. auto (default): the first that can tell; all: every one must pass.",
)
timeout_option = option(
    "--smoke-timeout",
    type=click.FloatRange(min=1),
    default=120.0,
    metavar="SECONDS",
    help="How long one device may take. Default: 120.",
)


def smoke_call(session: Session, device: str, timeout: float) -> Callable[[], SmokeReport]:
    """The smoke test of this session, to be called once the tree to test is live."""
    from smallq_deploy.smoke.runner import parse_device, run_smoke

    toolkit, release, live = session.toolkit, session.release, session.store.live
    which = parse_device(device)
    events = session.call.events
    return lambda: run_smoke(toolkit, release, live=live, device=which, timeout=timeout, events=events)


def case_table(report: SmokeReport) -> list[Block]:
    """The cases of the device that decided."""
    rows = [
        (
            case.name,
            "pass" if case.passed else "fail",
            "-" if case.max_abs is None else f"{case.max_abs:.2e}",
            "-" if case.bound is None else f"{case.bound:.3f}",
            f"{case.seconds:.3f}",
        )
        for case in report.cases
    ]
    return [Table(("case", "result", "max error", "of tolerance", "seconds"), rows)] if rows else []


@command("smoke", release=True, example="smallq-deploy smoke --device 0")
@device_option
@timeout_option
def smoke(call: Call, device: str, smoke_timeout: float) -> Answer:
    """Call the installed operator through aclnn in a fresh process and compare with a float64 reference.

    Several shapes, unaligned ones among them. Exit status 9 when the numbers are wrong or the operator cannot be
    called, with the runtime's code and what it means; 3 for a device that is not there.
    """
    from smallq_deploy.store.recovery import refuse_open

    session = Session(call, mutating=False)
    refuse_open(session.store)
    with call.events.step("smoke test"):
        report = smoke_call(session, device, smoke_timeout)()
    on = f" on device {report.device}" if report.device is not None else ""
    blocks: list[Block] = [
        Line(f"smoke test: {report.verdict}{on} ({report.seconds:.1f} s)"),
        *case_table(report),
        Facts([("library", report.library)]),
    ]
    if report.remark and report.cases:
        blocks.append(Line(f"times are those of the {report.remark}, not of an NPU"))
    data = {"toolkit": session.toolkit.to_dict(), "smoke": report.to_dict()}
    from smallq_deploy.smoke.runner import parse_device

    error = report.error(parse_device(device))
    if error is not None:
        error.details = {"verdict": report.verdict, "code": report.code, "code_name": report.code_name}
    return Answer(data, blocks, error=error)
