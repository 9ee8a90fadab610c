"""``status`` and ``history``: what is live and what has been. Neither needs the lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smallq_deploy.cli.options import Call, command
from smallq_deploy.cli.render import Answer, Block, Facts, Line, Table
from smallq_deploy.cli.session import Session

if TYPE_CHECKING:
    from smallq_deploy.operate.status import Status
    from smallq_deploy.store.generations import Generation

_LIVE_WORDS = {
    "current": "as installed",
    "changed": "changed since it was installed",
    "unknown": "there, but not installed by smallq-deploy",
    "absent": "nothing is installed",
    "removed": "removed by somebody else",
}

_SHOWN = 20  # processes
_REASON_WIDTH = 90  # characters of a reason in the table; --json has all of it


def _proof(generation: Generation) -> str:
    if generation.failed:
        return "failed"
    if generation.proven:
        return "proven"
    return "unproven"


def _source(generation: Generation) -> str:
    return generation.release or ("found here before the first install" if generation.origin == "adopted" else "")


@command("status", example="smallq-deploy status --json")
def status(call: Call) -> Answer:
    """Show what is live, whether it is proven, and the generations to roll back to.

    Reads only names, sizes and times (`verify` reads contents) and never waits for another command. An interrupted
    command is a warning here; the exit status stays 0.
    """
    from smallq_deploy.operate.status import status as read_status

    session = Session(call, mutating=False)
    found = read_status(session.store)
    for warning in found.warnings:
        call.events.warning(warning)
    return Answer({"toolkit": session.toolkit.to_dict(), **found.to_dict()}, _status_blocks(found))


def _status_blocks(found: Status) -> list[Block]:
    current = found.current
    live = _LIVE_WORDS[found.live.kind] if found.live is not None else "unknown: a command was interrupted"
    pairs = [("vendor", found.store.vendor), ("directory", str(found.store.live)), ("state", live)]
    if current is not None:
        pairs += [
            ("generation", f"{current.number}, {_proof(current)}, since {current.created}"),
            ("what", _source(current)),
            ("operators", ", ".join(current.ops)),
            ("for", ", ".join([*current.units, current.arch]) if current.arch else ""),
            ("built with", f"CANN {current.toolkit_version}" if current.toolkit_version else ""),
            ("recorded", ", ".join(name.replace("_", "-") for name, value in current.flags.items() if value is True)),
        ]
    pairs.append(("load_priority", ", ".join(found.order) or "no vendor is listed"))
    if found.shared:
        pairs.append(("file system", f"{found.shared}: other hosts may use this directory too"))
    blocks: list[Block] = [Facts(pairs)]
    rows = [
        (
            str(item.number),
            "live" if current is not None and item.number == current.number and found.live is not None else "",
            item.origin,
            _proof(item),
            item.created,
            _source(item) + (" [pinned]" if item.number in found.pins else ""),
        )
        for item in found.generations
    ]
    if rows:
        blocks.append(Table(("generation", "now", "origin", "proof", "created", "what"), rows))
    running = [
        (str(item.pid), item.user, str(item.generation or "?"), item.command) for item in found.users.processes[:_SHOWN]
    ]
    if running:
        blocks.append(Table(("pid", "user", "runs generation", "command"), running, "processes that loaded it:"))
    if found.shared and (running or current is not None):
        blocks.append(Line("processes of other hosts cannot be seen from here"))
    more = len(found.users.processes) - len(running)
    if more > 0:
        blocks.append(Line(f"... and {more} more (--json lists all)"))
    if found.users.unseen and (running or current is not None):
        blocks.append(Line(f"{found.users.unseen} processes of other users could not be looked at (only root can)"))
    return blocks


@command("history", example="smallq-deploy history")
def history(call: Call) -> Answer:
    """Show every install, rollback, repair and removal, oldest first, with how it ended."""
    from smallq_deploy.operate.status import history as read_history

    session = Session(call, mutating=False)
    records = read_history(session.store)
    rows = [_history_row(record) for record in records]
    columns = ("when", "what", "result", "live after", "who", "why")
    blocks: list[Block] = [Table(columns, rows)] if rows else [Line("nothing has happened here yet")]
    data = {"toolkit": session.toolkit.to_dict(), "vendor": session.vendor, "history": list(records)}
    return Answer(data, blocks)


def _who(record: dict[str, Any]) -> str:
    user, sudo = str(record.get("user", "")), str(record.get("sudo_user", ""))
    name = f"{sudo} as {user}" if sudo and sudo != user else user
    host = str(record.get("host", ""))
    return f"{name}@{host}" if host else name


def _history_row(record: dict[str, Any]) -> tuple[str, ...]:
    live = record.get("live")
    reason = str(record.get("reason", ""))
    return (
        str(record.get("time", "")),
        str(record.get("action", "")),
        str(record.get("result", "")),
        f"generation {live}" if live else "nothing",
        _who(record),
        reason if len(reason) <= _REASON_WIDTH else reason[: _REASON_WIDTH - 1] + "…",
    )
