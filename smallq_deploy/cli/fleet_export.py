"""``fleet export``: files for those who must use an engine of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from smallq_deploy.base.errors import UsageError
from smallq_deploy.cli.bundle import own_bundle
from smallq_deploy.cli.fleet_options import inventory_options, take_inventory
from smallq_deploy.cli.options import PATH, Call, command, option
from smallq_deploy.cli.render import Answer, Bullets, Facts, Line

_KINDS = ("ansible", "kubernetes", "slurm", "clustershell", "ssh")


@command(
    "fleet export",
    example="smallq-deploy fleet export ansible -i hosts.yaml --bundle smallq.pyz -o ansible/",
)
@click.argument("kind", type=click.Choice(_KINDS))
@inventory_options
@option("--bundle", type=PATH, metavar="FILE", help="What is installed: `bundle create` makes one. Needed.")
@option("--output", "-o", type=PATH, metavar="DIR", help="Where the files go. Default: a directory called KIND, here.")
@option("--waves", default="1,5%,25%,100%", metavar="SIZES", help="Hosts changed after each wave.")
@option("--max-fail", default="0", metavar="N|P%", help="Failed hosts allowed in a wave.")
@option("--host-timeout", type=click.FloatRange(min=1), default=900.0, metavar="SECONDS", help="For one host.")
@option("--namespace", default="smallq-deploy", metavar="NAME", help="Kubernetes: the namespace.")
@option("--image", default="", metavar="IMAGE", help="Kubernetes: an image that has the bundle.")
@option("--base-image", default="python:3.12-slim", metavar="IMAGE", help="Kubernetes: what runs the bundle.")
@option("--bundle-dir", default="", metavar="DIR", help="Kubernetes: where the bundle lies on every node.")
@option("--selector", multiple=True, metavar="LABEL=VALUE", help="Kubernetes: which nodes. Repeatable.")
@option("--gres", default="npu:1", metavar="GRES", help="Slurm: what a job asks for; '' for nothing.")
@option("--partition", default="", metavar="NAME", help="Slurm: the partition.")
def export(
    call: Call,
    kind: str,
    bundle: Path | None,
    output: Path | None,
    waves: str,
    max_fail: str,
    host_timeout: float,
    selector: tuple[str, ...],
    **values: Any,
) -> Answer:
    """Write files for Ansible, Kubernetes, Slurm, ClusterShell or plain ssh that install a bundle in waves.

    They run the bundle's single-host commands and read their exit statuses; nothing else is in them. A file that was
    edited since an earlier export is never overwritten. --cann, --opp and --vendor are for hosts for which the
    inventory names none.
    """
    from smallq_deploy.fleet.bundles import existing
    from smallq_deploy.fleet.export import exporter
    from smallq_deploy.fleet.export.request import ExportRequest
    from smallq_deploy.fleet.export.write import write_export
    from smallq_deploy.fleet.rollout.policy import Policy

    path = bundle or own_bundle()
    if path is None:
        raise UsageError("MISSING_PARAMETER", "no bundle was named", hint="`smallq-deploy bundle create` makes one")
    inventory = take_inventory(call, values)
    found = existing(path)
    packages = found.index.packages
    request = ExportRequest(
        inventory,
        found.path,
        found.sha256,
        tuple(sorted({unit for entry in packages for unit in entry.units})),
        tuple(sorted({entry.arch for entry in packages})),
        str(call.cann or ""),
        str(call.opp or ""),
        call.vendor or "",
        Policy.parse(waves=waves, max_fail=max_fail),
        host_timeout,
        selector=selector,
        **values,
    )
    directory = output or Path(kind)
    files = write_export(exporter(kind)(request), directory)
    data = {"kind": kind, "directory": str(directory), "files": [str(file) for file in files], "hosts": len(inventory)}
    return Answer(
        data,
        [
            Line(f"{kind}: {len(files)} files for {len(inventory)} hosts"),
            Facts([("directory", str(directory)), ("bundle", f"{path}, sha256 {found.sha256[:12]}...")]),
            Bullets("files:", [str(file.relative_to(directory)) for file in files]),
            Line("how to use them: docs/how-to/fleet-exports.md"),
        ],
    )


export.short_help = "Files for Ansible, Kubernetes, Slurm, ClusterShell, ssh."
