"""Are the values of a record of the types its dataclass says? A file can be damaged and still be JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def _is(value: Any, kind: str) -> bool:
    if kind == "None":
        return value is None
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if kind.startswith("Mapping"):
        return isinstance(value, Mapping)
    known: dict[str, type] = {"str": str, "bool": bool}
    return kind not in known or isinstance(value, known[kind])


def check_types(made: Any) -> None:
    """Raises ValueError for a dataclass with a text, number (never negative), truth value or mapping that is none."""
    for item in dataclasses.fields(made):
        value = getattr(made, item.name)
        if not any(_is(value, kind.strip()) for kind in str(item.type).split("|")):
            raise ValueError(f"{item.name} is {type(value).__name__}")
