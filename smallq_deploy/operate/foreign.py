"""The same operator in several places: what a change would take away, and whose copy CANN uses after it.

CANN tries the vendors in the order of config.ini and its own operators last; the first that has the operator wins
(reference: cann.md, the search order of ``load_priority``). A vendor that config.ini does not name is not looked into.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smallq_deploy.package.vendortree import other_vendors, units_of_ops
from smallq_deploy.store.configini import read_config

if TYPE_CHECKING:
    from smallq_deploy.store.paths import Store

BUILT_IN = "built into CANN"

OpUnits = Mapping[str, Sequence[str]]  # operator -> the compute units it is there for


@dataclass(frozen=True)
class Holding:
    """One operator in one place. ``outcome``: what it is after the change, ``used``, ``lost`` or ``unused: why``."""

    operator: str
    units: tuple[str, ...]
    source: str
    outcome: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "operator": self.operator,
            "units": list(self.units),
            "source": self.source,
            "outcome": self.outcome,
        }


def losses(live: OpUnits, new: OpUnits) -> dict[str, tuple[str, ...]]:
    """operator -> the compute units of the live tree that the new one lacks (all, where it lacks the operator)."""
    found = {name: tuple(sorted(set(units) - set(new.get(name, ())))) for name, units in live.items()}
    return {name: units for name, units in sorted(found.items()) if units or name not in new}


def holdings(
    vendor: str,
    *,
    live: OpUnits,
    new: OpUnits,
    others: Mapping[str, OpUnits],
    built_in: OpUnits,
    order: Sequence[str],
) -> tuple[Holding, ...]:
    """Every place of every operator of the ``live`` and the ``new`` tree of ``vendor``, and what it is afterwards.

    ``order``: the vendors as config.ini will name them.
    """
    found: list[Holding] = []
    gone = losses(live, new)
    for operator in sorted({*live, *new}):
        places = [(name, operator in (new if name == vendor else others.get(name, {}))) for name in order]
        winner = next((name for name, has in places if has), "")
        for name in (vendor, *sorted(set(others) - {vendor})):
            units = (new if name == vendor else others[name]).get(operator)
            if units is not None:
                found.append(Holding(operator, tuple(units), _source(name, vendor), _outcome(name, winner, order)))
        if operator in built_in:
            outcome = f"unused: vendor {winner} comes first" if winner else "used"
            found.append(Holding(operator, tuple(built_in[operator]), BUILT_IN, outcome))
        if operator in gone:
            found.append(Holding(operator, gone[operator], "the live directory", "lost"))
    return tuple(found)


def _source(name: str, vendor: str) -> str:
    return "the package" if name == vendor else f"vendor {name}"


def _outcome(name: str, winner: str, order: Sequence[str]) -> str:
    if name == winner:
        return "used"
    if name not in order:
        return "unused: config.ini does not name it"
    return f"unused: vendor {winner} comes first"


def handovers(store: Store, before: Sequence[str], after: Sequence[str], *, listed: bool) -> tuple[str, ...]:
    """Notes on operators that another place takes over, or loses, when vendor ``store.vendor`` goes from the operators
    ``before`` to those ``after``; ``listed``: config.ini names it afterwards.
    """
    config = read_config(store)
    order = tuple(name for name in config.names if listed or name != store.vendor)
    if listed and store.vendor not in order:
        order = (*order, store.vendor)
    others = other_vendors(store.vendors, without=store.vendor) if store.vendors.is_dir() else {}
    return tuple(_handovers(store, before, after, config.names, order, others))


def _handovers(
    store: Store,
    before: Sequence[str],
    after: Sequence[str],
    order_before: Sequence[str],
    order_after: Sequence[str],
    others: Mapping[str, OpUnits],
) -> Iterator[str]:
    vendor = store.vendor
    built_in = functools.cache(lambda: units_of_ops(store.opp / "built-in"))  # megabytes: only where it decides

    def winner(operator: str, own: Sequence[str], order: Sequence[str]) -> str:
        for name in order:
            if operator in (own if name == vendor else others.get(name, {})):
                return f"vendor {name}"
        return BUILT_IN if operator in built_in() else ""

    for operator in sorted({*before, *after}):
        was, now = winner(operator, before, order_before), winner(operator, after, order_after)
        if was == now and not (operator in after and now != f"vendor {vendor}"):
            continue
        if not now:
            yield f"{operator}: no vendor and no part of CANN has it after this"
        elif now == BUILT_IN:
            yield f"{operator}: the one {BUILT_IN} is used after this"
        else:
            yield f"{operator}: that of {now} is used after this"
