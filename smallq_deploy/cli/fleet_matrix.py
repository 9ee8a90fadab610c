"""The fleet matrix, and two of them compared, as blocks for a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from smallq_deploy.cli.render import Block, Bullets, Facts, Line, Table

if TYPE_CHECKING:
    from smallq_deploy.fleet.compare import Comparison
    from smallq_deploy.fleet.matrix import Fault, Group, Matrix

_SHOWN = 20  # groups, faults, failures
_NAMES = 100  # characters of a list of hosts
# What a terminal has room for; the other formats have every column.
_COLUMNS = ("soc", "npus", "health", "driver", "cann", "state", "release", "digest", "smoke", "age", "drift", "clock")


def matrix_blocks(matrix: Matrix, *, every: bool = False) -> list[Block]:
    """What differs first, then the norm; ``every`` adds a line for each host."""
    total = matrix.summary
    blocks: list[Block] = [
        Facts(
            [
                ("checked", f"{_when(matrix.time)}, {total['hosts']} hosts" + _of(matrix.inventory)),
                ("intended", _intended(matrix)),
            ]
        )
    ]
    if matrix.failures:
        blocks.append(_faults("could not be asked:", matrix.failures))
    if matrix.outliers:
        points = [_outlier(group) for group in matrix.outliers[:_SHOWN]]
        usual = len(matrix.norm.hosts) if matrix.norm else 0
        blocks.append(Bullets(f"{usual} like this, {total['differ']} differ:", [*points, *_more(matrix.outliers)]))
    if matrix.faults:
        blocks.append(_faults("wrong:", matrix.faults))
    if matrix.norm is not None:
        blocks += _norm(matrix, matrix.norm)
    if every:
        blocks.append(_table(matrix))
    return blocks


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def _of(inventory: str) -> str:
    return f" of {inventory}" if inventory else ""


def _intended(matrix: Matrix) -> str:
    wanted = matrix.intended
    parts = [wanted.release, *(f"package {item[:12]}" for item in wanted.packages[:3])]
    return ", ".join(part for part in (*parts, f"CANN {wanted.cann}" if wanted.cann else "") if part)


def short_names(names: str) -> str:
    """A list of hosts that fits a line."""
    return names if len(names) <= _NAMES else names[: _NAMES - 1] + "…"


def _outlier(group: Group) -> str:
    return f"{short_names(group.names)}: {'; '.join(map(str, group.differs))}"


def _faults(title: str, faults: Sequence[Fault]) -> Bullets:
    points = [f"{short_names(fault.names)}: {fault.text} [{fault.code}]" for fault in faults[:_SHOWN]]
    return Bullets(title, [*points, *_more(faults)])


def _more(found: Sequence[object]) -> list[str]:
    return [f"... and {len(found) - _SHOWN} more (--json has all)"] if len(found) > _SHOWN else []


def _norm(matrix: Matrix, norm: Group) -> list[Block]:
    values = norm.values
    usual = f"{'all ' * (len(norm.hosts) == len(matrix.rows))}{len(norm.hosts)} hosts"
    if len(norm.names) <= _NAMES:
        usual += f": {norm.names}"
    npus = f"{values['npus']} x {values['soc'] or 'unknown'}" if values["npus"] != "0" else "no NPU"
    inner = f" ({values['inner']})" if values["inner"] else ""
    installed = [values["release"], values["package"] and f"package {values['package']}"]
    pairs = [
        ("norm", usual),
        ("host", f"{values['arch']}, {npus}, driver {values['driver'] or 'not found'}"),
        ("CANN", f"{values['cann']}{inner}" if values["cann"] else "none"),
        ("installed", ", ".join(part for part in [values["state"], *installed] if part)),
        ("load_priority", values["priority"]),
    ]
    return [Facts(pairs)]


def _table(matrix: Matrix) -> Table:
    from smallq_deploy.fleet.columns import BY_KEY

    columns = [BY_KEY[key] for key in _COLUMNS]
    odd = {**matrix.differs_by_host, **matrix.faults_by_host}
    rows = [
        (row.host, "failed" if not row.ok else "differs" if row.host in odd else "ok")
        + (tuple(column.text(row) for column in columns) if row.ok else (row.code, *[""] * (len(columns) - 1)))
        for row in sorted(matrix.rows, key=lambda row: (row.ok, row.host not in odd))
    ]
    return Table(("host", "now", *(column.title for column in columns)), rows)


def comparison_blocks(found: Comparison) -> list[Block]:
    """What changed between two checks."""
    blocks: list[Block] = [
        Facts(
            [
                ("from", f"{_when(found.old.time)}, {len(found.old.rows)} hosts" + _of(found.old.inventory)),
                ("to", f"{_when(found.new.time)}, {len(found.new.rows)} hosts" + _of(found.new.inventory)),
            ]
        )
    ]
    if found.same:
        return [*blocks, Line("nothing changed")]
    for title, hosts in (("hosts that are gone:", found.gone), ("hosts that are new:", found.added)):
        if hosts:
            blocks.append(Bullets(title, [_names(hosts)]))
    if found.changed:
        points = [
            f"{len(item.hosts)}: {short_names(item.names)}: {'; '.join(map(str, item.changes))}"
            for item in found.changed[:_SHOWN]
        ]
        blocks.append(Bullets("changed:", [*points, *_more(found.changed)]))
    if found.appeared:
        blocks.append(_faults("wrong now:", found.appeared))
    if found.mended:
        blocks.append(_faults("no longer wrong:", found.mended))
    return [*blocks, Line(f"{len(found.unchanged)} hosts did not change")]


def _names(hosts: Iterable[str]) -> str:
    from smallq_deploy.fleet.ranges import compress

    return short_names(compress(hosts))
