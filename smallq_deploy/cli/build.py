"""``build``: the operator package from source, against the toolkit of this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smallq_deploy.base.errors import UsageError
from smallq_deploy.cli.options import PATH, Call, command, option
from smallq_deploy.cli.render import Answer, Facts, Line
from smallq_deploy.cli.session import Session

if TYPE_CHECKING:
    from smallq_deploy.operate.builder import BuildResult


def chosen_unit(session: Session, soc: str | None) -> str:
    """The compute unit to work for: --soc (a unit or a SoC name), else the devices', else the release's only one.

    Raises UsageError UNIT_NEEDED.
    """
    from smallq_deploy.machine.devices import unit_of

    units = session.release.units
    if soc is not None:
        return soc if soc in units else unit_of(soc, session.toolkit) or soc.lower()
    if session.environment.unit:
        return session.environment.unit
    if len(units) == 1 and not session.environment.devices.npus:
        session.call.events.note(f"no NPU here tells the chip; {session.release.id} is made for {units[0]} only")
        return units[0]
    raise UsageError(
        "UNIT_NEEDED",
        "the devices do not tell which chip is meant",
        hint=f"name it, for example --soc {units[0]}",
    )


def chosen_units(session: Session, soc: str | None) -> tuple[str, ...]:
    """Like :func:`chosen_unit`, for a package that can be for several: --soc names them with commas."""
    names = [name.strip() for name in re.split("[,;]", soc)] if soc is not None else [None]
    if "" in names:
        raise UsageError("BAD_VALUE", f"--soc {soc!r} names nothing", hint="for example --soc ascend910b,ascend910_93")
    return tuple(dict.fromkeys(chosen_unit(session, name) for name in names))


def run_build(
    session: Session,
    *,
    recipes: Path | None,
    unit: str | tuple[str, ...],
    output: Path | None,
    sources: Path | None = None,
    keep: bool = False,
    rebuild: bool = False,
) -> BuildResult:
    """Build with events shown, where `build` and `install` meet. Without ``recipes``: with the toolkit's template."""
    from smallq_deploy.operate.builder import build as build_package

    units = unit if isinstance(unit, str) else " and ".join(unit)
    with session.call.events.step(f"build {session.release.operator} for {units}"):
        return build_package(
            session.discovery,
            session.release,
            recipes=recipes,
            unit=unit,
            output=output,
            events=session.call.events,
            vendor=session.vendor,
            sources=sources,
            keep_workspace=keep,
            rebuild=rebuild,
        )


def _what_happened(operator: str, unit: str, result: BuildResult) -> str:
    if result.cached:
        return f"built {operator} for {unit} before, at {result.provenance['created']}; taken from the build cache"
    return f"built {operator} for {unit} in {result.seconds:.1f} s"


@command("build", release=True, example="smallq-deploy build --recipes ~/cann-recipes-infer")
@option("--recipes", type=PATH, metavar="DIR", help="A checkout of cann-recipes-infer. It is copied, not changed.")
@option("--standalone", is_flag=True, help="Build with the project template of the toolkit itself: needs no checkout.")
@option(
    "--soc",
    metavar="NAME",
    help="Chip or compute unit, such as ascend910b; several with commas between. Default: the NPUs found.",
)
@option("--output", "-o", type=PATH, metavar="DIR", help="Also copy the package to DIR.")
@option(
    "--sources",
    type=PATH,
    metavar="DIR",
    help="The operator's source directory (op_host, op_kernel). Default: the one this tool comes with.",
)
@option("--rebuild", is_flag=True, help="Build also where the build cache has this package.")
@option("--keep-workspace", is_flag=True, help="Leave the private copy that was built in; builds anew.")
def build(
    call: Call,
    recipes: Path | None,
    standalone: bool,
    soc: str | None,
    output: Path | None,
    sources: Path | None,
    rebuild: bool,
    keep_workspace: bool,
) -> Answer:
    """Build the operator package (.run): with a cann-recipes-infer checkout, or --standalone with CANN alone.

    The package is opened and must hold this operator for this chip; an empty package is a failure even where build.sh
    says success. It is kept, with log, provenance and SBOM, and `install` without a package finds it. What was built
    before from the same sources with the same toolkit and compilers comes from the build cache; see `cache info`.

    --vendor NAME makes a package for a vendor directory of that name. A directory holds the libraries of one build
    only; with a name of its own, this operator lives beside those of others.
    """
    if standalone:
        context = click.get_current_context()
        if context.get_parameter_source("recipes") is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(
                "TWO_ROUTES", "--standalone needs no checkout, and --recipes names one", hint="leave one out"
            )
        recipes = None
    elif recipes is None:
        raise UsageError(
            "MISSING_PARAMETER",
            "build needs --recipes DIR or --standalone",
            hint="DIR is a checkout of cann-recipes-infer (SMALLQ_DEPLOY_RECIPES=DIR says it once for all commands); "
            "--standalone builds with the toolkit's own project template",
        )
    session = Session(call, mutating=True)
    assert session.toolkit is not None
    units = chosen_units(session, soc)
    result = run_build(
        session, recipes=recipes, unit=units, output=output, sources=sources, keep=keep_workspace, rebuild=rebuild
    )
    data = {"toolkit": session.toolkit.to_dict(), **result.to_dict()}
    return Answer(
        data,
        [
            Line(_what_happened(session.release.operator, " and ".join(units), result)),
            Facts(
                [
                    ("package", str(result.package)),
                    ("vendor", result.run.vendor),
                    ("operators", ", ".join(result.run.ops)),
                    ("sha256", result.run.file_sha256),
                    ("sbom", str(result.sbom)),
                    ("log", str(result.log)),
                ]
            ),
        ],
    )
