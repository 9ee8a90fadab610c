"""``migrate``: bring operators that stayed in another toolkit's tree into the chosen one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallq_deploy.cli.build import chosen_unit
from smallq_deploy.cli.options import PATH, Call, command, option
from smallq_deploy.cli.render import Answer, Block, Bullets, Facts, Line, plain_lines
from smallq_deploy.cli.session import Session
from smallq_deploy.cli.smoke import device_option, timeout_option

if TYPE_CHECKING:
    from smallq_deploy.operate.migrate import Item, Migration
    from smallq_deploy.operate.proving import Smoke
    from smallq_deploy.store.paths import Store

_ACTIONS = {
    "rebuild": "build from source and install",
    "reinstall": "install the package built here",
    "by-hand": "not by this command",
}


@command("migrate", release=True, mutating=True, example="smallq-deploy migrate --dry-run")
@option(
    "--recipes",
    type=PATH,
    metavar="DIR",
    help="The checkout of cann-recipes-infer to build with. Default: the one the old package was built with.",
)
@option("--soc", metavar="NAME", help="Chip or compute unit, such as ascend910b. Default: the NPUs found.")
@option("--allow-prerelease", is_flag=True, help="Take a pre-release of CANN as the release it leads to.")
@option("--allow-untested", is_flag=True, help="Lift refusals about versions; the generation records it.")
@option("--no-smoke", is_flag=True, help="Install without the smoke test; the generation is unproven.")
@device_option
@timeout_option
def migrate(
    call: Call,
    recipes: Path | None,
    soc: str | None,
    allow_prerelease: bool,
    allow_untested: bool,
    no_smoke: bool,
    device: str,
    smoke_timeout: float,
) -> Answer:
    """After a switch of CANN: build the operators that stayed in the old tree for the new one, and install them.

    Shows the plan and asks; without a terminal it changes something only with --yes. The old tree is not touched.
    Operators whose sources are not known are named, with what to do; they lead to exit status 10.
    """
    from smallq_deploy.operate.migrate import migrate as run_migrate
    from smallq_deploy.operate.migrate import plan as make_plan
    from smallq_deploy.package.compat import Policy

    session = Session(call, mutating=True)
    toolkit = session.toolkit
    environment = session.environment
    unit = chosen_unit(session, soc) if soc is not None else ""
    policy = Policy(allow_prerelease, allow_untested)
    planned = make_plan(environment, session.release, session.store, recipes=recipes, unit=unit, policy=policy)
    data: dict[str, Any] = {"toolkit": toolkit.to_dict()}
    waiting = bool(planned.possible) and not call.dry_run and not call.yes and not call.interactive
    if call.dry_run or not planned.possible or waiting:
        if not call.dry_run and not planned.possible and planned.items:
            planned = replace(planned, decision="done")
        blocks = migration_blocks(planned)
        if waiting:
            blocks.append(Line("nothing was changed: say --yes to do it"))
        return Answer({**data, **planned.to_dict()}, blocks, error=None if waiting else planned.failure)
    if call.interactive:
        call.progress.pause()
        for line in plain_lines(migration_blocks(planned)):
            call.events.note(line)
        call.confirm(f"migrate {len(planned.possible)} of {len(planned.items)}?")

    def smoke_of(store: Store) -> Smoke:
        from smallq_deploy.smoke.runner import parse_device, run_smoke

        which = parse_device(device)
        return lambda: run_smoke(
            toolkit, session.release, live=store.live, device=which, timeout=smoke_timeout, events=call.events
        )

    done = run_migrate(
        planned,
        environment,
        session.release,
        smoke=smoke_of,
        options={
            "allow_prerelease": allow_prerelease,
            "allow_untested": allow_untested,
            "no_smoke": no_smoke,
            "wait_seconds": call.wait,
            "device": device,
        },
        events=call.events,
    )
    return Answer({**data, **done.to_dict()}, migration_blocks(done), error=done.failure)


def migration_blocks(found: Migration) -> list[Block]:
    """A plan, or how it ended, as people read it."""
    if not found.items:
        return [Line("nothing to migrate: no other toolkit here has operators that this one lacks")]
    done = sum(item.outcome == "migrated" for item in found.items)
    words = {"planned": "would migrate", "done": f"migrated {done} of"}
    count = len(found.possible) if found.decision == "planned" else len(found.items)
    noun = "vendor directory" if count == 1 else "vendor directories"
    blocks: list[Block] = [Line(f"{words[found.decision]} {count} {noun} into {found.store.vendors}")]
    for item in found.items:
        blocks += _item_blocks(item)
    if done:
        old = next(item.left.vendors for item in found.items if item.outcome == "migrated")
        blocks.append(
            Bullets(
                "then:",
                [
                    "restart the programs that use the operator, in shells with the new toolkit's set_env.sh",
                    f"take entries below {old} out of ASCEND_CUSTOM_OPP_PATH (`smallq-deploy doctor` shows them)",
                    f"the old tree is as it was; `smallq-deploy uninstall --cann {old.parent.parent}` removes it there",
                ],
            )
        )
    return blocks


def _item_blocks(item: Item) -> list[Block]:
    change = item.report.change if item.report is not None else None
    proof = change.proof if change is not None else None
    return [
        Facts(
            [
                ("operators", ", ".join(item.left.operators)),
                ("found in", f"{item.left.vendors / item.left.vendor} (CANN {item.left.version})"),
                ("what", _ACTIONS[item.action] + f": {item.reason}"),
                ("to do", item.hint),
                ("package", str(item.package) if item.package else ""),
                ("result", f"{item.outcome}{f': {item.error.message}' if item.error else ''}" if item.outcome else ""),
                ("generation", str(change.live) if change is not None else ""),
                ("smoke test", proof.verdict if proof is not None else ""),
            ]
        )
    ]
