"""Which libcust_opapi.so a program would get: the runtime's lookup of custom operators, read from the files.

Rules of libnnopbase: cann.md 6.1. ASCEND_CUSTOM_OPP_PATH entries come first (each is a vendor directory), then the
vendors that ``$ASCEND_OPP_PATH/vendors/config.ini`` names, from left to right; names are not trimmed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

OPAPI = Path("op_api/lib/libcust_opapi.so")


@dataclass(frozen=True)
class Base:
    """One vendor directory that the runtime looks in, in its order. ``has_operator``: its library names the symbol."""

    path: Path
    origin: str
    exists: bool
    has_library: bool
    has_operator: bool

    @property
    def library(self) -> Path:
        return self.path / OPAPI


def config_vendors(config_ini: Path) -> tuple[str, ...]:
    """Vendor names as libnnopbase reads them: first line without '#' that has the word priority, split at commas."""
    try:
        lines = config_ini.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ()
    for line in lines:
        if not line.startswith("#") and "priority" in line:
            _, _, names = line.partition("=")
            return tuple(name for name in names.split(",") if name)
    return ()


def _base(path: Path, origin: str, symbol: bytes) -> Base:
    library = path / OPAPI
    has_library = os.path.isfile(library)
    has_operator = False
    if has_library:
        try:
            has_operator = symbol in library.read_bytes()
        except OSError:
            pass
    return Base(path, origin, os.path.isdir(path), has_library, has_operator)


def bases(operator: str, opp: Path, environ: Mapping[str, str]) -> tuple[Base, ...]:
    """All vendor directories in the runtime's order. ``operator`` is the OpType; ``opp`` is ASCEND_OPP_PATH."""
    symbol = f"aclnn{operator}GetWorkspaceSize\0".encode()
    found = [
        _base(Path(entry), "ASCEND_CUSTOM_OPP_PATH", symbol)
        for entry in environ.get("ASCEND_CUSTOM_OPP_PATH", "").split(":")
        if entry and os.path.isdir(entry)
    ]
    config_ini = opp / "vendors" / "config.ini"
    found += [_base(opp / "vendors" / name, str(config_ini), symbol) for name in config_vendors(config_ini)]
    return tuple(found)


def winner(found: tuple[Base, ...]) -> Base | None:
    """The directory whose library has the operator, first in order; None when none has."""
    return next((base for base in found if base.has_operator), None)


def why_not_live(live: Path, opp: Path) -> str:
    """In words, why the runtime does not find the operator in the directory where it is installed."""
    config_ini = opp / "vendors" / "config.ini"
    names = config_vendors(config_ini)
    nested = live / "vendors" / live.name
    if not os.path.isdir(live):
        return f"{live} does not exist: the operator is not installed"
    if os.path.isdir(nested) and not os.path.isfile(live / OPAPI):
        return f"{live} has the nested layout: the files are in {nested}, where the runtime does not look"
    if not os.path.isfile(live / OPAPI):
        return f"{live / OPAPI} is missing"
    if not os.path.isfile(config_ini):
        return f"{config_ini} is missing, so the runtime does not look into {live}"
    if not os.access(config_ini, os.R_OK):
        return f"{config_ini} cannot be read by this user, so the runtime does not look into {live}"
    if live.name not in names:
        return f"{config_ini} does not name {live.name} (it names {', '.join(map(repr, names)) or 'no vendor'})"
    return f"{live / OPAPI} has no function for the operator"
