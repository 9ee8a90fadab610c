"""``fleet install``, ``rollback``, ``uninstall``: one change of many hosts, in waves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallq_deploy.base.errors import PackageError, UsageError
from smallq_deploy.cli.fleet_options import Fleet, inventory_options, reach_options
from smallq_deploy.cli.fleet_rollout import Plan, rollout_options, start
from smallq_deploy.cli.options import PATH, Call, command, option
from smallq_deploy.cli.render import Answer
from smallq_deploy.cli.session import Session
from smallq_deploy.cli.signing import Signing, require_option, require_same, signers_option
from smallq_deploy.cli.smoke import device_option

if TYPE_CHECKING:
    from smallq_deploy.fleet.bundles import NodeBundle

# Options of the single-host command that go to the hosts as they are.
_PASSED = (
    "reinstall",
    "allow_prerelease",
    "allow_untested",
    "allow_shadowed",
    "allow_downgrade",
    "drop_foreign",
    "no_smoke",
    "keep_unproven",
)
_CHANGE_TIMEOUT = 900.0


def _passed(values: dict[str, Any]) -> tuple[str, ...]:
    """Flags that are set, as words for the hosts."""
    return tuple(f"--{name.replace('_', '-')}" for name in _PASSED if values.pop(name, False))


def _waiting(call: Call) -> tuple[str, ...]:
    return ("--wait", f"{call.wait:g}") if call.wait else ()


@command(
    "fleet install",
    toolkit=False,
    release=True,
    mutating=True,
    example="smallq-deploy fleet install -i hosts.yaml --waves 1,5%,25%,100% --max-fail 1% ./op-a.run ./op-b.run",
)
@click.argument("packages", metavar="[PACKAGE]...", type=PATH, nargs=-1)
@inventory_options
@option("--bundle", type=PATH, metavar="FILE", help="Send this bundle, instead of one made of PACKAGE files.")
@rollout_options
@option("--reinstall", is_flag=True, help="Also where it is live and proven already.")
@option("--allow-prerelease", is_flag=True, help="Take a pre-release of CANN as the release it leads to.")
@option("--allow-untested", is_flag=True, help="Lift refusals of what was never tested; the generations record it.")
@option("--allow-shadowed", is_flag=True, help="Also where another vendor's same operator comes first.")
@option("--allow-downgrade", is_flag=True, help="Also where a newer release is live.")
@option("--drop-foreign", is_flag=True, help="Let operators go that the new package does not have.")
@option("--no-smoke", is_flag=True, help="Without the smoke test; the generations are unproven.")
@option("--keep-unproven", is_flag=True, help="Keep it where no device could decide the smoke test.")
@device_option
@require_option
@signers_option
@reach_options(timeout=_CHANGE_TIMEOUT)
def install(call: Call, packages: tuple[Path, ...], bundle: Path | None, device: str, **values: Any) -> Answer:
    """Install on every host the PACKAGE that fits it, in waves; stop and go back when too many fail.

    PACKAGE files may be for several architectures, chips or CANN versions (default: those that were built here): each
    host takes the one that fits, and a host that none fits is refused before anything changes anywhere. Every host
    proves its install by its own smoke test and puts the old state back when the proof fails. --dry-run shows every
    host's plan.
    """
    from smallq_deploy.fleet.rollout import actions

    signing = Signing(values.pop("allowed_signers"), values.pop("require_signature"))
    extra = (*_passed(values), *(() if device == "auto" else ("--device", device)), *_waiting(call))
    plan, fleet = Plan.take(values), Fleet.take(call, values)
    made = _bundle(call, packages, bundle, signing, fleet.runtimes)
    timeout = fleet.timeout
    return start(fleet, made, lambda sent: actions.install(sent, extra, timeout), plan)


def _bundle(
    call: Call, packages: tuple[Path, ...], named: Path | None, signing: Signing, runtimes: tuple[Path, ...]
) -> NodeBundle:
    """What is sent: its signature, or those of its packages, checked first."""
    from smallq_deploy.fleet.bundles import existing, package_bundle

    if named is not None:
        if packages or runtimes:
            raise UsageError("USAGE", "--bundle excludes PACKAGE and --python-runtime", hint="name one of them")
        checked = signing.check(call, named)
        found = existing(named)
        require_same(named, checked, found.sha256)
        if not found.index.packages:
            raise UsageError("NO_PACKAGE", f"{named} holds the tool alone", hint="name a bundle with packages")
        return found
    for package in packages:
        signing.read_run(call, package)
    if signing.required and not packages:
        raise PackageError(
            "NO_SIGNATURE", "packages built here are not signed", hint="name signed packages, or a signed --bundle"
        )
    with call.events.step("pack the tool and the packages into one file"):
        return package_bundle(Session(call, mutating=False).release, packages, runtimes)


def _tool(call: Call, fleet: Fleet) -> NodeBundle:
    from smallq_deploy.fleet.bundles import tool_bundle

    with call.events.step("pack the tool into one file"):
        return tool_bundle(Session(call, mutating=False).release, fleet.runtimes)


@command(
    "fleet rollback",
    toolkit=False,
    release=True,
    mutating=True,
    example="smallq-deploy fleet rollback -i hosts.yaml --run 20261201T031500Z-4f1c2a",
)
@inventory_options
@option("--to", type=click.IntRange(min=0), metavar="N", help="The generation on every host. Default: the one before.")
@option("--run", "run_name", metavar="RUN", help="Take back what this rollout changed, on the hosts it changed.")
@option("--no-smoke", is_flag=True, help="No smoke test afterwards; contents are compared instead.")
@rollout_options
@reach_options(timeout=_CHANGE_TIMEOUT)
def rollback(call: Call, to: int | None, run_name: str | None, no_smoke: bool, **values: Any) -> Answer:
    """Make an earlier generation live on every host, in waves.

    With --run each host goes back to what was live there before that rollout; hosts it did not change are left alone.
    A rollback that was made keeps its place when its smoke test fails, and counts as failed.
    """
    from smallq_deploy.fleet.rollout import actions

    if to is not None and run_name is not None:
        raise UsageError("USAGE", "--to and --run exclude each other", hint="name one of them")
    extra = (*(("--to", str(to)) if to is not None else ()), *(("--no-smoke",) if no_smoke else ()))
    plan, fleet = Plan.take(values), Fleet.take(call, values)
    per_host: dict[str, tuple[str, ...]] = {}
    if run_name is not None:
        per_host = _before(run_name)
        fleet = fleet.only(per_host, f"run {run_name} changed none of these hosts")
    timeout = fleet.timeout
    return start(fleet, _tool(call, fleet), lambda sent: actions.rollback(sent, extra, timeout, per_host), plan)


def _before(name: str) -> dict[str, tuple[str, ...]]:
    """host -> the words that lead back to what was live there before run ``name`` changed it.

    A host that was asked twice, because its first outcome was lost, told the second time that nothing was left to do:
    then what it had before the run counts, and where that had no number yet, the generation before the live one.
    """
    from smallq_deploy.fleet.rollout.ledger import read_ledger
    from smallq_deploy.fleet.rollout.runs import find_run
    from smallq_deploy.fleet.rollout.waves import fold

    header, events, _ = read_ledger(find_run(name).path)
    state = fold(header.policy, header.members, events)
    found: dict[str, tuple[str, ...]] = {}
    for host in state.hosts.values():
        if host.changed and not host.undone:
            before = host.last.data.get("before") if host.last is not None else None
            if not isinstance(before, int):
                before = header.options.get("live", {}).get(host.name)
            found[host.name] = ("--to", str(before)) if isinstance(before, int) else ()
    return found


@command(
    "fleet uninstall",
    toolkit=False,
    release=True,
    mutating=True,
    example="smallq-deploy fleet uninstall -i hosts.yaml -l rack07 --yes",
)
@inventory_options
@option("--restore-adopted", is_flag=True, help="Bring back the directory found before the first install.")
@rollout_options
@reach_options(timeout=_CHANGE_TIMEOUT)
def uninstall(call: Call, restore_adopted: bool, **values: Any) -> Answer:
    """Remove the operator from every host, in waves; generations are kept, so that `fleet rollback` brings it back."""
    from smallq_deploy.fleet.rollout import actions

    extra = ("--restore-adopted",) if restore_adopted else ()
    plan, fleet = Plan.take(values), Fleet.take(call, values)
    timeout = fleet.timeout
    return start(fleet, _tool(call, fleet), lambda sent: actions.uninstall(sent, extra, timeout), plan)


install.short_help = "Install on many hosts in waves; stop and go back when too many fail."
rollback.short_help = "Make an earlier generation live on many hosts."
uninstall.short_help = "Remove the operator from many hosts."
