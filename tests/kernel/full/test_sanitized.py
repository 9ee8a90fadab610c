"""The operator under the sanitizers over edge and random shapes, both types; long, not in ``make test``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.sanitizers.cases import QUICK, QUICK_BF16, check, random_rows
from tests.support.operator_kernel import Planner
from tests.support.sanitized import build_sanitized

RANDOM_SHAPES = 120  # of each type


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dtype", ["half", "bfloat16_t"])
def test_sanitized(
    planner: Planner, tmp_path: Path, dtype: str, record_property: Callable[[str, object], None]
) -> None:
    bf16 = dtype == "bfloat16_t"
    operator = build_sanitized(planner, tmp_path / "kernel", dtype)
    rows = [*(QUICK_BF16 if bf16 else QUICK), *random_rows(2 if bf16 else 1, RANDOM_SHAPES, bf16=bf16)]
    worst, name = max((check(operator, row).bound, row.name) for row in rows)
    record_property(
        "measured",
        f"sanitized kernel, {dtype}: {len(rows)} cases, no report, worst error {worst:.3f} of tolerance ({name})",
    )
