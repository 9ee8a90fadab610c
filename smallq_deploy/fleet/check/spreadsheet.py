"""The matrix as CSV, one line a host."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from smallq_deploy.fleet.check.columns import COLUMNS
from smallq_deploy.fleet.check.matrix import Matrix
from smallq_deploy.fleet.check.saved import write_report

# A spreadsheet takes a cell that begins so for a formula, also after blanks.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def csv_text(matrix: Matrix) -> str:
    """UTF-8 text with a header line; lines end as RFC 4180 has them. Texts that a spreadsheet would compute begin with
    an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        ["host", "groups", "asked", "code", "message", "differs", "wrong"]
        + [column.key for column in COLUMNS]
        + ["smoke_age_seconds", "clock_skew_seconds", "free_bytes"]
    )
    for row in matrix.rows:
        differs = "; ".join(map(str, matrix.differs_by_host.get(row.host, ())))
        wrong = "; ".join(matrix.faults_by_host.get(row.host, ()))
        texts = [row.host, ", ".join(row.groups), "yes" if row.ok else "no", row.code, row.message, differs, wrong]
        texts += [column.text(row) if row.ok else "" for column in COLUMNS]
        numbers = [row.smoke_age, row.skew, row.free] if row.ok else [None] * 3
        writer.writerow([*map(_harmless, texts), *("" if item is None else item for item in numbers)])
    return out.getvalue()


def write_csv(matrix: Matrix, path: Path) -> None:
    """Replace ``path`` as a whole. Raises the typed form of an OSError."""
    write_report(path, csv_text(matrix))


def _harmless(text: str) -> str:
    return "'" + text if text.lstrip(" ").startswith(_FORMULA) else text
