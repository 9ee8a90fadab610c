"""Pins: generations that ``gc`` must keep, because somebody said so. They lie beside the generations, never in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from smallq_deploy.base.errors import InstallError
from smallq_deploy.base.fsops import write_atomic
from smallq_deploy.store.generations import now, read_json
from smallq_deploy.store.paths import SCHEMA, Store


@dataclass(frozen=True)
class Pin:
    """Why and since when (UTC) a generation is kept."""

    reason: str
    since: str


def read_pins(store: Store) -> dict[int, Pin]:
    """Generation number -> pin. Raises InstallError STORE_DAMAGED, UsageError STORE_NEWER."""
    record = read_json(store.pins)
    if record is None:
        return {}
    try:
        return {int(number): Pin(str(pin["reason"]), str(pin["since"])) for number, pin in record["pins"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InstallError(
            "STORE_DAMAGED",
            f"{store.pins} is damaged",
            hint="move it away and pin again what must be kept",
            details={"path": str(store.pins)},
        ) from error


def write_pins(store: Store, pins: Mapping[int, Pin]) -> None:
    """Replace the pins durably; the lock must be held."""
    record = {"schema": SCHEMA, "pins": {str(number): asdict(pin) for number, pin in sorted(pins.items())}}
    write_atomic(store.pins, json.dumps(record, ensure_ascii=True, sort_keys=True) + "\n")


def new_pin(reason: str) -> Pin:
    """A pin of this moment."""
    return Pin(reason, now())
