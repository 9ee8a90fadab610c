"""The columns of the fleet matrix: how each reads a row, and which of them should be the same on every host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smallq_deploy.fleet.check.rows import Row

MAX_SKEW = 60.0  # seconds
_SHORT = 12  # hex digits of a digest


@dataclass(frozen=True)
class Column:
    """``text`` is '' where nothing is known; ``number`` is what the column is sorted by where that is no text.

    ``uniform``: hosts that differ here are outliers. ``compared``: a change between two checks is told.
    """

    key: str
    title: str
    text: Callable[[Row], str]
    number: Callable[[Row], float | None] | None = None
    uniform: bool = False
    compared: bool = True


def duration(seconds: float) -> str:
    """``90`` is ``1 min``; the largest unit that fits, rounded down."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _arch(row: Row) -> str:
    """The host's, and the toolkit's where it is another one."""
    return f"{row.arch}, CANN for {row.cann_arch}" if row.cann_arch not in ("", row.arch) else row.arch


def _package(row: Row) -> str:
    """What was installed; the digest of a tree that came without a package. That of an installed one also tells the
    path of the opp directory, which bin/set_env.bash holds, so it may differ where nothing else does."""
    return (row.package or row.digest)[:_SHORT]


def _health(row: Row) -> str:
    unknown = row.npus - row.healthy - len(row.unhealthy)
    counts = [f"{row.healthy} OK"] * bool(row.healthy) + [f"{unknown} unknown"] * bool(unknown)
    return ", ".join([*counts, *row.unhealthy])


def _drift(row: Row) -> str:
    if not row.installed:
        return ""
    return f"{row.drift} ({row.drift_kinds})" if row.drift and row.drift_kinds else str(row.drift)


def _proof(row: Row) -> str:
    if row.smoke:
        return row.smoke
    return "never" if row.state in ("current", "changed") else ""


def _clock(row: Row) -> str:
    if row.skew is None:
        return ""
    return "ok" if abs(row.skew) <= MAX_SKEW else f"{'+' if row.skew > 0 else '-'}{duration(abs(row.skew))}"


COLUMNS: tuple[Column, ...] = (
    Column("arch", "arch", _arch, uniform=True),
    Column("soc", "SoC", lambda row: row.soc, uniform=True),
    Column("npus", "NPUs", lambda row: str(row.npus), lambda row: row.npus, uniform=True),
    Column("health", "health", _health),
    Column("driver", "driver", lambda row: row.driver, uniform=True),
    Column("firmware", "firmware", lambda row: row.firmware, uniform=True),
    Column("cann", "CANN", lambda row: row.cann, uniform=True),
    Column("inner", "inner version", lambda row: row.inner, uniform=True),
    Column("remark", "remark", lambda row: row.remark, uniform=True),
    Column("state", "state", lambda row: row.state, uniform=True),
    Column("release", "release", lambda row: row.release or row.origin, uniform=True),
    Column("package", "package", _package, uniform=True),
    Column("digest", "digest", lambda row: row.digest[:_SHORT]),
    Column("generation", "generation", lambda row: str(row.generation or ""), lambda row: row.generation),
    Column("smoke", "smoke", _proof),
    Column(
        "age",
        "smoke age",
        lambda row: "" if row.smoke_age is None else duration(row.smoke_age),
        lambda row: row.smoke_age,
        compared=False,
    ),
    Column("drift", "drift", _drift, lambda row: row.drift),
    Column("priority", "load_priority", lambda row: row.priority, uniform=True),
    Column("foreign", "other vendors", lambda row: ", ".join(row.foreign)),
    Column("open", "open journal", lambda row: row.transaction),
    Column("clock", "clock", _clock, lambda row: row.skew),
    Column("os", "system", lambda row: row.os),
    Column("kernel", "kernel", lambda row: row.kernel),
    Column("free", "free", lambda row: gib(row.free), lambda row: row.free, compared=False),
)
BY_KEY = {column.key: column for column in COLUMNS}
UNIFORM = tuple(column for column in COLUMNS if column.uniform)
