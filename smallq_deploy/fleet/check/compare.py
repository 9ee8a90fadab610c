"""Two checks of a fleet: which hosts came and went, and what changed, equal changes together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from smallq_deploy.fleet.check.columns import BY_KEY, COLUMNS
from smallq_deploy.fleet.check.matrix import NOTHING, Fault, Matrix
from smallq_deploy.fleet.check.rows import Row
from smallq_deploy.fleet.inventory.ranges import compress

ANSWER = "answer"  # the column that says whether a host could be asked
_OK = "ok"


@dataclass(frozen=True)
class Change:
    """One column, before and after."""

    column: str
    old: str
    new: str

    def __str__(self) -> str:
        title = BY_KEY[self.column].title if self.column in BY_KEY else self.column
        return f"{title} {self.old or NOTHING} -> {self.new or NOTHING}"

    def to_dict(self) -> dict[str, str]:
        return {"column": self.column, "old": self.old, "new": self.new}


@dataclass(frozen=True)
class Changed:
    """Hosts with exactly these changes."""

    hosts: tuple[str, ...]
    changes: tuple[Change, ...]

    @cached_property
    def names(self) -> str:
        """The hosts, as a short list."""
        return compress(self.hosts)

    def to_dict(self) -> dict[str, Any]:
        return {
            "hosts": list(self.hosts),
            "names": self.names,
            "changes": [item.to_dict() for item in self.changes],
        }


@dataclass(frozen=True)
class Comparison:
    """What changed from one check to another: ``changed`` with few hosts first, ``appeared`` and ``mended`` faults."""

    old: Matrix
    new: Matrix
    gone: tuple[str, ...]
    added: tuple[str, ...]
    changed: tuple[Changed, ...]
    unchanged: tuple[str, ...]
    appeared: tuple[Fault, ...]
    mended: tuple[Fault, ...]

    @property
    def same(self) -> bool:
        """True when nothing changed."""
        return not (self.gone or self.added or self.changed or self.appeared or self.mended)

    def to_dict(self) -> dict[str, Any]:
        return {
            "old": {"time": round(self.old.time, 3), "inventory": self.old.inventory, "summary": self.old.summary},
            "new": {"time": round(self.new.time, 3), "inventory": self.new.inventory, "summary": self.new.summary},
            "same": self.same,
            "gone": list(self.gone),
            "added": list(self.added),
            "changed": [item.to_dict() for item in self.changed],
            "unchanged": len(self.unchanged),
            "appeared": [fault.to_dict() for fault in self.appeared],
            "mended": [fault.to_dict() for fault in self.mended],
        }


def compare(old: Matrix, new: Matrix) -> Comparison:
    """What is different in ``new``. Ages, free space and the like change by themselves and are not told."""
    before = {row.host: row for row in old.rows}
    after = {row.host: row for row in new.rows}
    together: dict[tuple[Change, ...], list[str]] = {}
    unchanged = []
    for host, row in after.items():
        if host in before:
            changes = tuple(_changes(before[host], row))
            if changes:
                together.setdefault(changes, []).append(host)
            else:
                unchanged.append(host)
    changed = [Changed(tuple(hosts), changes) for changes, hosts in together.items()]
    both = {host for host in after if host in before and before[host].ok and after[host].ok}
    return Comparison(
        old,
        new,
        tuple(host for host in before if host not in after),
        tuple(host for host in after if host not in before),
        tuple(sorted(changed, key=lambda item: len(item.hosts))),
        tuple(unchanged),
        _only(new, old, both),
        _only(old, new, both),
    )


def _changes(old: Row, new: Row) -> list[Change]:
    if not (old.ok and new.ok):
        was, now = _OK if old.ok else old.code, _OK if new.ok else new.code
        return [Change(ANSWER, was, now)] if was != now else []
    found = [
        Change(column.key, column.text(old), column.text(new))
        for column in COLUMNS
        if column.compared and column.text(old) != column.text(new)
    ]
    # A new generation is news where nothing else is: numbers differ from host to host, what is installed does not.
    implied = {"generation"}
    if any(change.column == "package" for change in found):
        implied.add("digest")  # it also tells the path of the opp directory
    return [change for change in found if change.column not in implied] or found


def _only(these: Matrix, those: Matrix, hosts: set[str]) -> tuple[Fault, ...]:
    """Faults of ``these`` that a host has not in ``those``, by their codes."""
    there = {(host, fault.code) for fault in those.faults for host in fault.hosts}
    found = []
    for fault in these.faults:
        names = tuple(host for host in fault.hosts if host in hosts and (host, fault.code) not in there)
        if names:
            found.append(Fault(fault.code, fault.text, names))
    return tuple(found)
