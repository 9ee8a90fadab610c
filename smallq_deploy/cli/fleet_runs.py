"""``fleet runs``, ``resume``, ``pause``, ``abort``: rollouts that were begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from smallq_deploy.base.errors import UsageError
from smallq_deploy.cli.options import Call, command, option
from smallq_deploy.cli.render import Answer, Line, Table

if TYPE_CHECKING:
    from smallq_deploy.fleet.rollout.runs import RunInfo

_SHOWN = 30


def _standing(run: RunInfo) -> str:
    if run.problem:
        return f"cannot be read: {run.problem}"
    return run.result or ("running" if run.busy else "cut off: `fleet resume` goes on")


@command("fleet runs", toolkit=False, example="smallq-deploy fleet runs")
def runs(call: Call) -> Answer:
    """List rollouts that were begun here, the latest first, and how each ended."""
    from smallq_deploy.fleet.rollout.runs import runs as all_runs

    found = all_runs()
    rows = [
        (item.run, item.action, item.inventory, str(item.hosts), item.started, _standing(item))
        for item in found[:_SHOWN]
    ]
    table = Table(("run", "what", "inventory", "hosts", "begun", "stands"), rows) if rows else Line("no rollout yet")
    return Answer({"runs": [item.to_dict() for item in found]}, [table])


@command("fleet resume", toolkit=False, example="smallq-deploy fleet resume 20261201T031500Z-4f1c2a")
@click.argument("run", required=False, default="")
@option("--transport", type=click.Choice(["auto", "pyinfra", "ssh", "local"]), help="Not the engine it began with.")
@option("--parallel", type=click.IntRange(1, 300), metavar="N", help="Another number of hosts at once.")
def resume(call: Call, run: str, transport: str | None, parallel: int | None) -> Answer:
    """Go on with RUN (default: the latest): one that was paused, interrupted, or whose controller died.

    It goes on with the hosts, waves and bundle it began with. A host whose outcome is not known is asked once more.
    """
    from smallq_deploy.cli.fleet_rollout import resume as go_on
    from smallq_deploy.fleet.rollout.control import request_resume
    from smallq_deploy.fleet.rollout.runs import find_run

    found = find_run(run)
    if found.busy and not found.result:
        request_resume(found)
        told = f"run {found.run} goes on, in the process that began it"
        return Answer({"planned": None, "rollout": None}, [Line(told)])
    if found.result:
        raise UsageError(
            "RUN_OVER",
            f"run {found.run} is over: {found.result}",
            hint="begin a new one: it changes only what is left",
        )
    return go_on(call, found, transport, parallel or 0)


@command("fleet pause", toolkit=False, example="smallq-deploy fleet pause")
@click.argument("run", required=False, default="")
def pause(call: Call, run: str) -> Answer:
    """Let RUN (default: the latest) begin no further host until `fleet resume`; hosts that run go on to their end."""
    from smallq_deploy.fleet.rollout.control import request_pause
    from smallq_deploy.fleet.rollout.runs import find_run

    found = find_run(run)
    request_pause(found)
    return Answer({"run": found.run, "asked": "pause"}, [Line(f"run {found.run} begins no further host now")])


@command("fleet abort", toolkit=False, example="smallq-deploy fleet abort")
@click.argument("run", required=False, default="")
def abort(call: Call, run: str) -> Answer:
    """End RUN (default: the latest) after the hosts that run; what was changed stays.

    `fleet rollback --run RUN` takes it back.
    """
    from smallq_deploy.fleet.rollout.control import request_abort
    from smallq_deploy.fleet.rollout.runs import find_run

    found = find_run(run)
    request_abort(found)
    lines = [Line(f"run {found.run} ends after the hosts that run")]
    if not found.busy:
        lines = [Line(f"run {found.run} has no controller: `smallq-deploy fleet resume {found.run}` closes it")]
    return Answer({"run": found.run, "asked": "abort"}, lines)


runs.short_help = "List rollouts and how they ended."
resume.short_help = "Go on with a paused, interrupted or cut off rollout."
pause.short_help = "Begin no further host for now."
abort.short_help = "End a rollout after the hosts that run."
