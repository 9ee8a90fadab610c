"""``plan`` and ``install``: both make the same plan; ``install`` also executes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallq_deploy.base.errors import Problems, SmallqError, SmokeError, UsageError
from smallq_deploy.cli.build import chosen_unit, run_build
from smallq_deploy.cli.bundle import BundleSource, use_bundle
from smallq_deploy.cli.options import PATH, Call, command, option
from smallq_deploy.cli.render import Answer, Block, Bullets, Facts, Line, Table, plain_lines
from smallq_deploy.cli.session import Session
from smallq_deploy.cli.signing import Signing, require_option, signers_option
from smallq_deploy.cli.smoke import device_option, smoke_call, timeout_option

if TYPE_CHECKING:
    from smallq_deploy.operate.installer import InstallReport
    from smallq_deploy.operate.planner import Plan
    from smallq_deploy.package.compat import Tested
    from smallq_deploy.package.runfile import RunFile

_OPTIONS = (
    click.argument("package", type=PATH, required=False),
    option(
        "--recipes",
        type=PATH,
        metavar="DIR",
        help="Without PACKAGE and without a built one: build it from this checkout of cann-recipes-infer.",
    ),
    option("--bundle", type=PATH, metavar="FILE", help="Take the package for this machine from an offline bundle."),
    option("--soc", metavar="NAME", help="Chip or compute unit, such as ascend910b. Default: the NPUs found."),
    option("--use-installer", is_flag=True, help="Unpack with the package's own installer, in a private directory."),
    option("--reinstall", is_flag=True, help="Install again what is live and proven already."),
    option("--allow-prerelease", is_flag=True, help="Take a pre-release of CANN as the release it leads to."),
    option("--allow-untested", is_flag=True, help="Lift refusals of what was never tested; the generation records it."),
    option("--allow-shadowed", is_flag=True, help="Install although another vendor's same operator comes first."),
    option("--allow-downgrade", is_flag=True, help="Install although a newer release is live."),
    require_option,
    signers_option,
    option("--drop-foreign", is_flag=True, help="Let operators go that the new package does not have."),
    option("--priority", type=click.Choice(["keep", "first"]), default="keep", help="Place in config.ini."),
    option("--no-smoke", is_flag=True, help="Install without the smoke test; the generation is unproven."),
    option("--keep-unproven", is_flag=True, help="Keep the install when no device could decide the smoke test."),
    device_option,
)


def _install_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for add in reversed(_OPTIONS):
        function = add(function)
    return function


@dataclass
class _Request:
    """The options of ``plan`` and ``install``."""

    session: Session
    package: Path | None
    recipes: Path | None
    soc: str | None
    device: str
    flags: dict[str, bool]
    bundle: BundleSource | None
    signing: Signing

    @property
    def signature(self) -> dict[str, Any] | None:
        """What is known about who signed the package, or the bundle it came in; None for one just built."""
        return self.signing.found.to_dict() if self.signing.found is not None else None

    def make_plan(self, *, may_build: bool) -> Plan:
        from smallq_deploy.machine.devices import require_device
        from smallq_deploy.operate.planner import InstallOptions, make_plan
        from smallq_deploy.smoke.runner import parse_device

        session = self.session
        run = self._run_file(may_build)
        require_device(session.environment.devices, parse_device(self.device))
        unit = chosen_unit(session, self.soc) if self.soc is not None else ""
        options = InstallOptions(
            **self.flags,
            unit=unit,
            device=self.device,
            dry_run=session.call.dry_run,
            wait_seconds=session.call.wait,
        )
        plan = make_plan(session.environment, session.release, session.store, run, options)
        if session.selection is not None:
            plan = replace(plan, passed_over=session.selection.rejected)
        for warning in plan.warnings:
            session.call.events.warning(warning)
        return plan

    def _run_file(self, may_build: bool) -> RunFile:
        """PACKAGE, else the one built here, else (only ``may_build``) a fresh build."""
        from smallq_deploy.operate.builder import find_built

        session = self.session
        assert session.environment is not None
        if self.package is not None:
            return self.signing.read_run(session.call, self.package)
        unit = chosen_unit(session, self.soc)
        if self.bundle is not None:
            return self.bundle.run_file(session, unit, allow_untested=self.flags["allow_untested"])
        built = find_built(session.environment, session.release, unit, vendor=session.vendor)
        if built is not None:
            session.call.events.note(f"package built here: {built}")
            return self.signing.read_run(session.call, built)
        if self.recipes is not None and may_build:
            made = run_build(session, recipes=self.recipes, unit=unit, output=None)
            return self.signing.read_run(session.call, made.package) if self.signing.required else made.run
        hint = "smallq-deploy build --recipes DIR (or --standalone) makes one; or name a package"
        if self.recipes is not None:
            hint = f"smallq-deploy build --recipes {self.recipes} makes one (`install` would do that by itself)"
        raise UsageError(
            "NO_PACKAGE",
            f"no package was named, and none was built here for CANN {session.toolkit.version} and {unit}",
            hint=hint,
        )


def _request(call: Call, values: dict[str, Any], *, mutating: bool) -> _Request:
    priority_first = values.pop("priority") == "first"
    signing = Signing(values.pop("allowed_signers"), values.pop("require_signature"))
    named = values["bundle"]
    if named is not None:
        signing.check(call, named)  # before anything in it is read
    bundle = use_bundle(call, values)
    if bundle is not None and named is None:
        signing.check(call, bundle.path)  # the one that runs already
    package, recipes, soc, device = (values.pop(name) for name in ("package", "recipes", "soc", "device"))
    session = Session(call, mutating=mutating)
    session.soc, session.allow = soc or "", {key: values[key] for key in ("allow_prerelease", "allow_untested")}
    return _Request(
        session, package, recipes, soc, device, {**values, "priority_first": priority_first}, bundle, signing
    )


def plan_blocks(plan: Plan) -> list[Block]:
    """A plan as people read it."""
    words = {
        "install": "install",
        "reinstall": "install again",
        "nothing": "nothing to do",
        "refused": "refused",
    }
    because = f": {plan.reasons[0]}" if plan.reasons and plan.decision != "refused" else ""
    blocks: list[Block] = [
        Line(f"plan: {words[plan.decision]}{because}"),
        Facts(
            [
                ("release", plan.release.id),
                ("package", str(plan.run.path)),
                ("operators", ", ".join(plan.run.ops)),
                ("built for", f"{', '.join(plan.run.units)}, {plan.run.arch}"),
                ("target", str(plan.store.live)),
                ("space", f"{plan.space_needed / (1 << 20):.1f} MiB" if plan.space_needed else ""),
                ("tested", tested_text(plan.verdict.evidence)),
                ("recorded", ", ".join(name.replace("_", "-") for name in plan.options.recorded)),
            ]
        ),
    ]
    if any(item.outcome != "used" for item in plan.operators) or len(plan.operators) > len(plan.run.ops):
        rows = [(item.operator, ", ".join(item.units), item.source, item.outcome) for item in plan.operators]
        blocks.append(Table(("operator", "compute units", "in", "after this"), rows, "operators:"))
    if plan.passed_over:
        points = [f"{item.name}: {reason}" for item in plan.passed_over for reason in item.reasons]
        blocks.append(Bullets("other releases:", points))
    if plan.steps:
        blocks.append(Bullets("steps:", plan.steps))
    return blocks


def tested_text(evidence: Tested | None) -> str:
    """The best test of the release on such a machine, in one line."""
    from smallq_deploy.package.compat import EVIDENCE

    if evidence is None:
        return "no test of this release on such a machine is recorded"
    chips = ", ".join((*evidence.units, *evidence.arches))
    return f"CANN {evidence.cann}, {chips}: {EVIDENCE[evidence.evidence]}"


def _refusal(plan: Plan) -> SmallqError | None:
    if plan.decision != "refused":
        return None
    return plan.problems[0] if len(plan.problems) == 1 else Problems(plan.problems)


def _plan_answer(request: _Request, plan: Plan) -> Answer:
    data: dict[str, Any] = {
        "toolkit": request.session.toolkit.to_dict(),
        "decision": plan.decision,
        "plan": plan.to_dict(),
        "signature": request.signature,
    }
    if request.session.call.command == "install":
        data |= {"change": None, "recovered": None}
    return Answer(data, plan_blocks(plan), error=_refusal(plan))


@command("plan", release=True, example="smallq-deploy plan ./CANN-custom_ops-8.5.0-linux.aarch64.run")
@_install_options
def plan(call: Call, **values: Any) -> Answer:
    """Say what `install` with the same options would do, and why; nothing is changed.

    Without PACKAGE the one built here for this toolkit and chip is taken. Ends with the exit status that `install`
    would refuse with, or 0.
    """
    request = _request(call, values, mutating=True)
    return _plan_answer(request, request.make_plan(may_build=False))


@command("install", release=True, mutating=True, example="smallq-deploy install --yes")
@_install_options
@timeout_option
def install(call: Call, smoke_timeout: float, **values: Any) -> Answer:
    """Install PACKAGE (.run), prove it by a smoke test, and keep it or put the old state back.

    Without PACKAGE the one built here for this toolkit and chip is taken, or built when --recipes is known. The package
    is read as data; its own installer does not run unless --use-installer asks for it. On a terminal the plan is shown
    and you are asked; elsewhere, and with --yes or --json, it goes on without asking.
    """
    from smallq_deploy.operate.installer import install as run_install

    request = _request(call, values, mutating=True)
    made = request.make_plan(may_build=not call.dry_run)
    if call.dry_run or (made.decision == "refused" and not made.only_needs_recovery):
        return _plan_answer(request, made)
    if made.decision != "nothing" and call.interactive:
        call.progress.pause()
        click.echo("\n".join(plan_blocks_text(made)), err=True)
        call.confirm("install it?")
    session = request.session
    smoke = smoke_call(session, request.device, smoke_timeout)
    common = {"toolkit": session.toolkit.to_dict(), "signature": request.signature}
    try:
        report = run_install(made, smoke=smoke, events=call.events, toolkit_now=session.toolkit_now)
    except SmokeError as error:
        data, error.details = error.details, {"live": str(session.store.live)}
        return Answer({**common, **data}, [Line("the install was undone; nothing is different from before")], error)
    return Answer({**common, **report.to_dict()}, _report_blocks(session, report))


def plan_blocks_text(plan: Plan) -> list[str]:
    """The plan as lines, for the question on a terminal."""
    return plain_lines(plan_blocks(plan))


def _report_blocks(session: Session, report: InstallReport) -> list[Block]:
    change = report.change
    if change is None or change.generation is None:
        reason = report.plan.reasons[0] if report.plan.reasons else "it is live already"
        return [Line(f"nothing to do: {reason}")]
    proof = change.proof
    verdict = proof.verdict if proof is not None else "skipped"
    blocks: list[Block] = [
        Line(f"installed {report.plan.release.id} as generation {change.live}"),
        Facts(
            [
                ("live", str(session.store.live)),
                ("smoke test", f"{verdict}{_on_device(proof.record) if proof is not None else ''}"),
                ("kept as generation", f"{change.adopted} (what was there before)" if change.adopted else ""),
                ("switched by", change.method),
                ("recorded", ", ".join(name.replace("_", "-") for name in report.plan.options.recorded)),
            ]
        ),
        Line("programs started from now on use it; `smallq-deploy rollback` brings back what was live before"),
    ]
    return blocks


def _on_device(record: Any) -> str:
    device = record.get("device")
    return f" on device {device}, {len(record.get('cases', ()))} cases" if device is not None else ""
