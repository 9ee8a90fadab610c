"""``fleet``: many hosts from one terminal."""

from __future__ import annotations

from smallq_deploy.cli import fleet_ask, fleet_change, fleet_check, fleet_export, fleet_runs
from smallq_deploy.cli.options import group


@group(epilog="\b\nExample:\n  smallq-deploy fleet check -i hosts.yaml")
def fleet() -> None:
    """See, change and undo many hosts: check, install in waves, roll back, report.

    \b
    The usual way:  fleet check -> fleet install --dry-run -> fleet install -> fleet check
    And back:       fleet rollback --run RUN

    Hosts need sshd, sh and Python 3.10 or newer (or a bundle that carries one). The tool is sent as one file.
    """


for _command in (
    fleet_check.check,
    fleet_change.install,
    fleet_ask.smoke,
    fleet_change.rollback,
    fleet_change.uninstall,
    fleet_ask.run_sweep,
    fleet_check.report,
    fleet_export.export,
    fleet_runs.runs,
    fleet_runs.pause,
    fleet_runs.resume,
    fleet_runs.abort,
    fleet_ask.relay,
):
    fleet.add_command(_command)
