"""The table of a mutmut run: mutants, killed and survived of each file. ``python -m tests.support.mutation_score 85``

Ends with 1 when any file's share of killed mutants is below the given percentage. mutmut keeps the exit status of
the tests of each mutant in ``mutants/<file>.meta``: 0 and 5 (no test ran) are survivors; a timeout counts as killed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

_SURVIVED = {0, 5, 33}


def score(record: dict[str, int | None]) -> tuple[int, int, int]:
    """(mutants, killed, not run) of one file's exit statuses."""
    unknown = sum(status is None for status in record.values())
    killed = sum(status is not None and status not in _SURVIVED for status in record.values())
    return len(record), killed, unknown


def main(arguments: list[str]) -> int:
    bar, good = float(arguments[0]), True
    print(f"{'file':<40} {'mutants':>8} {'killed':>7} {'share':>7}")
    for path in sorted(Path("mutants").rglob("*.py.meta")):
        record = json.loads(path.read_text())["exit_code_by_key"]
        if not record:
            continue
        total, killed, unknown = score(record)
        share = 100 * killed / total
        good = good and share >= bar and not unknown
        name = str(path.relative_to("mutants")).removesuffix(".meta")
        print(f"{name:<40} {total:>8} {killed:>7} {share:>6.1f}%" + (f"  {unknown} not run" if unknown else ""))
    print(f"bar {bar:g}%: {'met' if good else 'MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
