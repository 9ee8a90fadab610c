"""The matrix as one HTML page that needs nothing else: no network, no other file.

Data stands once in the page, as JSON; the page's script makes the table of it with textContent only. The policy in its
head lets a browser run this script and use this style sheet, known by their digests, and load nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import UsageError
from smallq_deploy.base.visible import visible
from smallq_deploy.fleet.check.columns import COLUMNS, UNIFORM
from smallq_deploy.fleet.check.matrix import NOTHING, Matrix
from smallq_deploy.fleet.check.rows import Row
from smallq_deploy.fleet.check.saved import write_report

# What a host is, the gravest first; a host that is wrong and differs is wrong.
STATES = (("away", "not asked"), ("wrong", "wrong"), ("differs", "differ"), ("ok", "alike and well"))
# Shown also where all hosts are equal in it.
_ALWAYS = ("cann", "state", "release", "smoke", "age")
_HERE = Path(__file__).parent


def write_html(matrix: Matrix, path: Path) -> None:
    """Replace ``path`` by the page. Raises UsageError FLEET_EXTRA_MISSING, and the typed form of an OSError."""
    write_report(path, html_text(matrix))


def html_text(matrix: Matrix) -> str:
    """The page. Raises UsageError FLEET_EXTRA_MISSING where jinja2 is not installed."""
    try:
        from jinja2 import Environment
        from markupsafe import Markup
    except ImportError as error:
        hint = "pip install 'smallq-deploy[fleet]'; the other formats need nothing"
        raise UsageError("FLEET_EXTRA_MISSING", "the HTML page needs jinja2", hint=hint) from error
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["seen"] = _seen
    style, script = (_HERE.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    states = [_state(matrix, row) for row in matrix.rows]
    page = environment.from_string(_HERE.joinpath("page.html.j2").read_text(encoding="utf-8"))
    return page.render(
        matrix=matrix,
        title=matrix.inventory or "fleet",
        when=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(matrix.time)),
        intended=_intended(matrix),
        tiles=[(key, title, states.count(key)) for key, title in reversed(STATES)],
        bar=_bar(states),
        norm=[(column.title, value) for column in UNIFORM if matrix.norm and (value := matrix.norm.values[column.key])],
        titles={column.key: column.title for column in COLUMNS},
        nothing=NOTHING,
        policy=f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'",
        # Ours, and made safe for a script element: nothing in them can end it.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        data=Markup(_embedded(_data(matrix, states))),  # noqa: S704
    )


def _seen(text: str) -> str:
    return visible(text, lines=False)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _state(matrix: Matrix, row: Row) -> str:
    if not row.ok:
        return "away"
    if row.host in matrix.faults_by_host:
        return "wrong"
    return "differs" if row.host in matrix.differs_by_host else "ok"


def _bar(states: list[str]) -> list[tuple[str, float, float]]:
    """(state, start, width) of 1000; the few stay visible beside the many."""
    counts = [(key, states.count(key)) for key, _ in reversed(STATES) if key in states]
    widths = [max(8.0, 1000 * count / len(states)) for _, count in counts]
    scale, start, found = 1000 / sum(widths) if widths else 1.0, 0.0, []
    for (key, _), width in zip(counts, widths, strict=True):
        found.append((key, round(start, 2), round(width * scale, 2)))
        start += width * scale
    return found


def _intended(matrix: Matrix) -> str:
    wanted = matrix.intended
    return ", ".join(part for part in (wanted.release, f"CANN {wanted.cann}" if wanted.cann else "") if part)


def _data(matrix: Matrix, states: list[str]) -> dict[str, Any]:
    """Rows as lists: host, groups, state, values, numbers, columns that differ, faults, failure, why, hint, group."""
    at = {column.key: index for index, column in enumerate(COLUMNS)}
    group_of = {host: index for index, group in enumerate(matrix.groups) for host in group.hosts}
    faults_of: dict[str, list[int]] = {}
    for index, fault in enumerate(matrix.faults):
        for host in fault.hosts:
            faults_of.setdefault(host, []).append(index)
    failure_of = {host: index for index, fault in enumerate(matrix.failures) for host in fault.hosts}
    rows = []
    for row, state in zip(matrix.rows, states, strict=True):
        values = [_seen(column.text(row)) for column in COLUMNS] if row.ok else []
        numbers = [column.number(row) if row.ok and column.number else None for column in COLUMNS]
        rows.append(
            [
                _seen(row.host),
                _seen(" ".join(row.groups)),
                state,
                values,
                {index: number for index, number in enumerate(numbers) if number is not None},
                [at[item.column] for item in matrix.differs_by_host.get(row.host, ())],
                faults_of.get(row.host, []),
                failure_of.get(row.host, -1),
                _seen(f"{row.code}: {row.message}") if not row.ok else "",
                _seen(row.hint),
                group_of.get(row.host, -1),
            ]
        )
    various = [len({column.text(row) for row in matrix.asked}) > 1 for column in COLUMNS]
    return {
        "columns": [
            {
                "title": column.title,
                "shown": varies or column.key in _ALWAYS,
                "number": column.number is not None,
                "norm": _seen(matrix.norm.values.get(column.key, "")) if matrix.norm and column.uniform else None,
            }
            for column, varies in zip(COLUMNS, various, strict=True)
        ],
        "states": dict(STATES),
        "faults": [_seen(fault.text) for fault in matrix.faults],
        "rows": rows,
    }


def _embedded(data: dict[str, Any]) -> str:
    """JSON that cannot end or open an element."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
