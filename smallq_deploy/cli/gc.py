"""``gc``, ``pin`` and ``unpin``: which generations stay, and the space the others give back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from smallq_deploy.cli.options import Call, command, option
from smallq_deploy.cli.render import Answer, Block, Line, Table
from smallq_deploy.cli.session import Session

if TYPE_CHECKING:
    from smallq_deploy.operate.gc import GcReport, PinReport

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Size(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Bytes, with K, M, G or T for powers of 1024: ``500M``, ``1.5G``."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,3})?)\s*([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is no size (for example 500M or 2G)", param, ctx)
        return int(float(match[1]) * _UNITS[match[2].upper()])


def size_text(size: int) -> str:
    """Bytes for people: ``12.3 MiB``."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


@command("gc", mutating=True, example="smallq-deploy gc --keep 2 --dry-run")
@option("--keep", type=click.IntRange(min=0), default=3, metavar="N", help="Keep the newest N that worked. Default: 3.")
@option("--max-size", type=Size(), metavar="SIZE", help="Go on with the oldest until this is left (500M, 2G).")
@option("--adopted", is_flag=True, help="Also what was found here before the first install; nothing brings it back.")
@option("--other-hosts", is_flag=True, help="Shared opp: no process of another host runs what is deleted.")
def gc(call: Call, keep: int, max_size: int | None, adopted: bool, other_hosts: bool) -> Answer:
    """Delete generations that nobody needs, and say for each why it goes or stays.

    Never deleted: the live generation, one that a running process has loaded, the last that a smoke test proved, a
    pinned one, and the one that `rollback` goes to. What it deletes cannot be taken back: without a terminal say --yes.
    """
    from smallq_deploy.operate.gc import collect

    session = Session(call, mutating=True)
    options = {"keep": keep, "max_size": max_size, "adopted": adopted, "other_hosts": other_hosts}
    store, toolkit = session.store, {"toolkit": session.toolkit.to_dict()}
    if not call.dry_run and not call.yes:
        seen = collect(store, dry_run=True, **options)  # type: ignore[arg-type]
        gone = [str(item.number) for item in seen.items if item.deleted]
        if gone:
            question = f"delete generation{'s' if len(gone) > 1 else ''} {', '.join(gone)} ({size_text(seen.freed)})?"
            call.must_confirm(question, "what gc deletes")
    report = collect(store, dry_run=call.dry_run, wait_seconds=call.wait, events=call.events, **options)  # type: ignore[arg-type]
    for warning in report.warnings:
        call.events.warning(warning)
    return Answer({**toolkit, **report.to_dict()}, _blocks(report))


def _blocks(report: GcReport) -> list[Block]:
    planned = report.decision == "planned"
    count = sum(item.deleted for item in report.items)
    if not count:
        head = "nothing to delete"
    elif planned:
        head = (
            f"would delete {count} of {len(report.items)} generations ({size_text(report.freed)}); nothing was changed"
        )
    else:
        head = f"deleted {count} of {len(report.items)} generations: {size_text(report.freed)} are free again"
    blocks: list[Block] = [Line(head)]
    word = "goes" if planned else "deleted"
    rows = [
        (str(item.number), size_text(item.size), word if item.deleted else "stays", item.reason)
        for item in report.items
    ]
    if rows:
        blocks.append(Table(("generation", "size", "", "why"), rows))
    return blocks


def _pin(call: Call, number: int, *, reason: str = "", remove: bool = False) -> Answer:
    from smallq_deploy.operate.gc import pin as run_pin

    session = Session(call, mutating=True)
    report = run_pin(
        session.store,
        number,
        reason=reason,
        remove=remove,
        dry_run=call.dry_run,
        wait_seconds=call.wait,
        events=call.events,
    )
    return Answer({"toolkit": session.toolkit.to_dict(), **report.to_dict()}, [Line(_pin_text(report, call.dry_run))])


def _pin_text(report: PinReport, dry_run: bool) -> str:
    state = "pinned" if report.pinned else "not pinned"
    if not report.changed:
        return f"nothing to do: generation {report.number} is {state} already"
    if dry_run:
        return f"generation {report.number} would be {state}; nothing was changed"
    return f"generation {report.number} is {state}{': gc keeps it' if report.pinned else ' any longer'}"


@command("pin", mutating=True, example='smallq-deploy pin 3 --reason "benchmark of May"')
@click.argument("number", type=click.IntRange(min=1), metavar="N")
@option("--reason", default="", metavar="TEXT", help="Why; shown by status and gc.")
def pin(call: Call, number: int, reason: str) -> Answer:
    """Keep generation N from `gc`, until `unpin`."""
    return _pin(call, number, reason=reason)


@command("unpin", mutating=True, example="smallq-deploy unpin 3")
@click.argument("number", type=click.IntRange(min=1), metavar="N")
def unpin(call: Call, number: int) -> Answer:
    """Let `gc` decide over generation N again."""
    return _pin(call, number, remove=True)
