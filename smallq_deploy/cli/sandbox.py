"""``sandbox create`` and ``sandbox destroy``: a simulated CANN toolkit in a directory of your choice."""

from __future__ import annotations

from pathlib import Path

import click

from smallq_deploy.cli.options import PATH, Call, command, group, option
from smallq_deploy.cli.render import Answer, Bullets, Facts, Line


@group(epilog="\b\nExample:\n  smallq-deploy sandbox create ./ascend")
def sandbox() -> None:
    """Make or remove a simulated CANN toolkit: a directory for --cann, no NPU needed.

    It has the files, scripts and libraries of a real toolkit, and an emulator that runs the operator's kernel source
    on the CPU. A C++ compiler (g++) and cmake are needed once.
    """


@command("sandbox create", toolkit=False, example="smallq-deploy sandbox create ./ascend --cann-version 8.5.0")
@click.argument("directory", type=PATH)
@option("--cann-version", default="8.5.0", metavar="VERSION", help="8.5.0 (default) or 8.1.RC1.")
@option("--soc", default="Ascend910B3", metavar="NAME", help="The simulated chip. Default: Ascend910B3.")
@option("--devices", type=click.IntRange(0, 64), default=8, metavar="N", help="How many NPUs. Default: 8.")
@option(
    "--layout",
    type=click.Choice(["auto", "old", "new"]),
    default="auto",
    help="Directory layout: old (up to 8.3) or new (from 8.5). Default: the version's own.",
)
@option("--arch", metavar="ARCH", help="aarch64 or x86_64. Default: this machine's.")
def create(
    call: Call, directory: Path, cann_version: str, soc: str, devices: int, layout: str, arch: str | None
) -> Answer:
    """Make a simulated CANN toolkit in DIRECTORY (new or empty)."""
    from smallq_deploy.sandbox.create import create as create_sandbox

    with call.events.step("make the simulated toolkit"):
        info = create_sandbox(directory, cann_version=cann_version, soc=soc, devices=devices, layout=layout, arch=arch)
    data = {
        "root": str(info.root),
        "home": str(info.home),
        "version": str(info.version),
        "layout": info.layout,
        "arch": info.arch,
        "set_env": str(info.set_env),
        "recipes": str(info.recipes),
        "opp": str(info.opp),
        "soc": soc,
        "devices": devices,
        "remark": "simulated toolkit",
    }
    return Answer(
        data,
        [
            Line(f"simulated toolkit: CANN {info.version} with {devices} x {soc} in {info.root}"),
            Facts(
                [
                    ("home", str(info.home)),
                    ("opp", str(info.opp)),
                    ("set_env", str(info.set_env)),
                    ("recipes", str(info.recipes)),
                ]
            ),
            Bullets(
                "next:",
                [
                    f"smallq-deploy build --cann {directory} --recipes {directory / 'cann-recipes-infer'}",
                    f"smallq-deploy install --cann {directory}",
                ],
            ),
        ],
    )


@command("sandbox destroy", toolkit=False, example="smallq-deploy sandbox destroy ./ascend")
@click.argument("directory", type=PATH)
@option("--yes", "-y", is_flag=True, help="Do not ask.")
def destroy(call: Call, directory: Path) -> Answer:
    """Remove a simulated toolkit that `sandbox create` made, with everything installed in it."""
    from smallq_deploy.sandbox.create import destroy as destroy_sandbox

    call.confirm(f"remove the simulated toolkit in {directory}?")
    removed = destroy_sandbox(directory)
    return Answer(
        {"root": str(directory), "removed": removed},
        [Line(f"removed the simulated toolkit in {directory} ({removed} files and directories)")],
    )


sandbox.add_command(create)
sandbox.add_command(destroy)
