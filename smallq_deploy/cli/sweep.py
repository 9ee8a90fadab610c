"""``sweep``: does the installed operator compute every shape of a matrix, on every device?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from smallq_deploy.base.errors import UsageError
from smallq_deploy.cli.options import PATH, Call, command, option
from smallq_deploy.cli.render import Answer, Block, Bullets, Facts, Line, Table
from smallq_deploy.cli.session import Session

if TYPE_CHECKING:
    from smallq_deploy.smoke.sweep import SweepReport

_LIST = "for example 1,4-8"


def _figure(value: float | None, pattern: str) -> str:
    return "-" if value is None else format(value, pattern)


def blocks_of(report: SweepReport, remark: str) -> list[Block]:
    """The summary by model, then what did not go well, by device."""
    found = report.found
    rows = [
        (
            str(model["model"]),
            str(model["cases"]),
            str(model["failed"]),
            _figure(model["worst_error"], ".2e"),
            _figure(model["bound"], ".3f"),
            _figure(model["relative_l2"], ".2e"),
        )
        for model in found["models"]
    ]
    blocks: list[Block] = []
    if rows:
        blocks.append(Table(("model", "cases", "failed", "worst error", "of tolerance", "relative L2"), rows))
    given_up = [f"device {each['device']}: {each['given_up']}" for each in found["devices"] if each["given_up"]]
    if given_up:
        blocks.append(Bullets("devices that were given up", given_up))
    failed = [
        f"{each['case']['name']} on device {each['device']}: {each['status']}: {each['message']}"
        for each in found["results"]
        if each["status"] != "passed"
    ]
    if failed:
        more = [f"and {len(failed) - 10} more"] if len(failed) > 10 else []
        blocks.append(Bullets("cases that did not pass", failed[:10] + more))
    counts = f"{found['passed']} passed, {found['failed']} failed, {found['not_run']} not run"
    earlier = f", {found['resumed']} of them earlier" if found["resumed"] else ""
    blocks.append(Line(f"sweep {found['matrix']}: {found['verdict']} ({counts}{earlier}; {found['seconds']:.0f} s)"))
    blocks.append(Facts([("library", report.library), ("results", found["state"])]))
    if remark:
        blocks.append(Line(f"computed by the {remark}, not by an NPU"))
    return blocks


@command("sweep", release=True, example="smallq-deploy sweep --devices 1-7 --junit sweep.xml")
@option("--matrix", default="models", metavar="NAME|FILE", help="The shapes. Default: models; also: acceptance.")
@option("--models", default="", metavar="NAMES", help="Only these groups of the matrix, separated by commas.")
@option("--qlen", default="", metavar="LIST", help=f"Only these query lengths, {_LIST}.")
@option("--kvlen", default="", metavar="LIST", help="Only these key lengths.")
@option("--quick", is_flag=True, help="Only qLen 1 and 4 with short kvLen.")
@option("--devices", default="", metavar="LIST|all", help="NPUs to use. Default: 1-7 where they are, else 0.")
@option(
    "--case-timeout",
    type=click.FloatRange(min=0.1),
    default=600.0,
    metavar="SECONDS",
    help="How long one case may take. Default: 600.",
)
@option("--repeat", type=click.IntRange(min=0), default=0, help="Timed calls of each case. Default: 0.")
@option("--memory", type=click.FloatRange(min=0.1), metavar="GB", help="For inputs. Default: half of what is free.")
@option("--program", type=PATH, metavar="FILE", help="A built test_aclnn that makes the calls. Default: Python.")
@option("--resume", is_flag=True, help="Run only what has not passed in the earlier sweep of this operator.")
@option("--junit", type=PATH, metavar="FILE", help="Also write the results as JUnit XML.")
def sweep(
    call: Call,
    matrix: str,
    models: str,
    qlen: str,
    kvlen: str,
    quick: bool,
    devices: str,
    case_timeout: float,
    repeat: int,
    memory: float | None,
    program: Path | None,
    resume: bool,
    junit: Path | None,
) -> Answer:
    """Run every shape of a matrix through the installed operator, on several NPUs at once, and compare with float64.

    Each case has a process of its own. A device that hangs, fails or computes wrongly is named and given up; the
    others do its work. Results are kept as they come. Needs numpy. Exit status 9 when a case or a device failed.
    """
    from smallq_deploy.smoke.sweep import SweepOptions, find_matrix, run_sweep
    from smallq_deploy.store.recovery import refuse_open

    shapes = find_matrix(matrix)
    if junit is not None and not junit.absolute().parent.is_dir():
        raise UsageError("BAD_SWEEP", f"there is no directory for {junit}", hint="make it first")
    options = SweepOptions(
        devices=devices,
        models=models,
        q_lengths=qlen,
        kv_lengths=kvlen,
        quick=quick,
        timeout=case_timeout,
        repeat=repeat,
        memory=memory,
        program=program,
        resume=resume,
        junit=junit,
    )
    session = Session(call, mutating=False)
    refuse_open(session.store)
    with call.events.step(f"sweep {shapes.name}"):
        report = run_sweep(session.toolkit, session.release, shapes, options, events=call.events)
    data = {"toolkit": session.toolkit.to_dict(), "sweep": report.to_dict()}
    return Answer(data, blocks_of(report, session.toolkit.remark), error=report.error())
