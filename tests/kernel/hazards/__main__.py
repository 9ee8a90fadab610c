"""``python -m tests.kernel.hazards``: the table of hazards, caught or not caught."""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.kernel.hazards.faults import FAULTS, LEGAL, Fault, run, verdict
from tests.support.operator_kernel import Planner


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        planner = Planner(Path(name))

        def judge(numbered: tuple[int, Fault]) -> tuple[str, str]:
            directory = Path(name) / str(numbered[0])
            directory.mkdir()
            outcome = run(planner, directory, numbered[1])
            wrong = verdict(numbered[1], outcome)
            codes = ", ".join(sorted(outcome.codes)) or "-"
            legal = numbered[1].codes == LEGAL
            return (wrong or ("silent, as it must be" if legal else "caught")), codes

        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(judge, enumerate(FAULTS)))
    bad = 0
    print(f"{'row':4}{'change to the kernel':72}{'result':24}found")
    for fault, (result, codes) in zip(FAULTS, results, strict=True):
        bad += result not in ("caught", "silent, as it must be")
        print(f"{fault.row:4}{fault.name:72}{result:24}{codes}")
    print(f"{len(FAULTS)} rows, {bad} wrong")
    return 1 if bad else 0


sys.exit(main())
