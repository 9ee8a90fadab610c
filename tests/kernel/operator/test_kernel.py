"""The kernel source in the emulator, strict, against float64 attention."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support import emulator
from tests.support.attention_cases import (
    EXTREME_CASES,
    HEAD_DIMS,
    HEADS,
    KV_LENGTHS,
    NORMAL_CASES,
    Q_LENGTHS,
    AttentionCase,
    compare,
    make_inputs,
    reference,
)
from tests.support.operator_kernel import UB_LIMIT, Operator

PARTS = 6  # the table is worked off in parts, so that two test processes share it


def check(operator: Operator, case: AttentionCase, limit: int = UB_LIMIT, ub_bytes: int = emulator.UB_BYTES) -> float:
    """Runs a case; asserts a clean launch and a right result; returns the worst error as a part of the tolerance."""
    q, k, v = make_inputs(case)
    outcome = operator.run(q, k, v, limit=limit, ub_bytes=ub_bytes)
    assert (outcome.status, outcome.message) == (emulator.SIM_OK, ""), case.name
    comparison = compare(outcome.output, reference(q, k, v, large=case.large))
    assert comparison.passed, f"{case.name}: {comparison}"
    return comparison.bound


def test_the_table_covers_what_it_claims() -> None:
    assert len(NORMAL_CASES) >= 120
    assert {(c.heads, c.q_len) for c in NORMAL_CASES} >= {(h, q) for h in HEADS for q in Q_LENGTHS}
    assert {(c.head_dim, c.kv_len) for c in NORMAL_CASES} >= {(d, n) for d in HEAD_DIMS for n in KV_LENGTHS}
    assert sum(c.head_dim != c.head_dim_v for c in NORMAL_CASES) >= 40


@pytest.mark.parametrize("part", range(PARTS))
def test_normal_inputs(operator: Operator, part: int, record_property: Callable[[str, object], None]) -> None:
    cases = sorted(NORMAL_CASES, key=lambda case: case.multiply_adds)[part::PARTS]
    worst, name = max((check(operator, case), case.name) for case in cases)
    text = f"kernel, part {part + 1} of {PARTS}: {len(cases)} cases, worst error {worst:.3f} of the tolerance ({name})"
    record_property("measured", text)


@pytest.mark.parametrize("inputs", sorted({case.inputs for case in EXTREME_CASES}))
def test_extreme_inputs(operator: Operator, inputs: str, record_property: Callable[[str, object], None]) -> None:
    cases = [case for case in EXTREME_CASES if case.inputs == inputs]
    worst, name = max((check(operator, case), case.name) for case in cases)
    text = f"kernel, {inputs}: {len(cases)} cases, worst error {worst:.3f} of the tolerance ({name})"
    record_property("measured", text)


def test_one_key_gives_the_value_row_back(operator: Operator) -> None:
    q, k, v = make_inputs(AttentionCase(5, 3, 1, 33, 20))
    outcome = operator.run(q, k, v)
    np.testing.assert_array_equal(outcome.output, np.broadcast_to(v, outcome.output.shape))


SMALL_UB = [  # case, bytes of UB the planner may use: blocks of 32 down to 4 keys, several q tiles, one partial row
    (AttentionCase(2, 1, 300, 128, 128), 128 * 1024, 32),
    (AttentionCase(2, 1, 300, 128, 128), 64 * 1024, 16),
    (AttentionCase(2, 1, 77, 128, 128), 16 * 1024, 4),
    (AttentionCase(1, 2, 131, 512, 512), 64 * 1024, 4),
    (AttentionCase(2, 4, 203, 64, 64), 12 * 1024, 4),
    (AttentionCase(3, 8, 61, 100, 40), 10240, 4),
    (AttentionCase(3, 3, 67, 64, 48), 10752, 8),
    (AttentionCase(2, 1, 301, 64, 48), 11264, 8),
    (AttentionCase(2, 8, 100, 100, 40), 33792, 16),
    (AttentionCase(2, 8, 90, 64, 48), 14336, 16),
    (AttentionCase(1, 4, 65, 64, 64, "offset"), 12 * 1024, 4),
]


@pytest.mark.parametrize(("case", "limit", "block"), SMALL_UB, ids=lambda value: getattr(value, "name", str(value)))
def test_blocks_shrink_with_ub(operator: Operator, case: AttentionCase, limit: int, block: int) -> None:
    plan = operator.planner.plan(case.head_dim, case.head_dim_v, case.q_len, case.kv_len, limit)
    assert plan is not None
    assert plan.tiles["blockK"] == block
    check(operator, case, limit=limit, ub_bytes=limit)


@pytest.mark.parametrize("shape", [(1, 1), (17, 40), (100, 100), (128, 128), (256, 192), (1008, 1008)], ids=str)
def test_kernel_takes_the_bytes_the_planner_counts(operator: Operator, shape: tuple[int, int]) -> None:
    case = AttentionCase(1, 4, 70, *shape)
    plan = operator.planner.plan(case.head_dim, case.head_dim_v, case.q_len, case.kv_len)
    assert plan is not None
    check(operator, case, ub_bytes=plan.ub_bytes)
    q, k, v = make_inputs(case)
    assert operator.run(q, k, v, ub_bytes=plan.ub_bytes - 32).codes == {"UB_OVERFLOW"}


def test_bits_depend_on_nothing_but_the_inputs(operator: Operator) -> None:
    """Threads, strictness and the number of cores change the schedule, not one bit of the result."""
    q, k, v = make_inputs(AttentionCase(41, 5, 130, 100, 72))
    expected = operator.run(q, k, v).output
    np.testing.assert_array_equal(operator.run(q, k, v, threads=1).output, expected)
    np.testing.assert_array_equal(operator.run(q, k, v, strict=False).output, expected)
    for cores in (1, 7, 48):
        np.testing.assert_array_equal(operator.run(q, k, v, cores=cores).output, expected)


def test_not_finite_inputs_stay_in_their_head(operator: Operator) -> None:
    """NaN in K of head 0, infinity in V of head 1 and NaN in one q row of head 2, all on one core."""
    q, k, v = make_inputs(AttentionCase(4, 3, 70, 40, 40))
    expected = reference(q, k, v)
    k[0, 5], v[1, 69], q[2, 1] = np.nan, np.inf, np.nan
    output = operator.run(q, k, v, cores=1).output
    kept = [(2, 0), (2, 2), (3, 0), (3, 1), (3, 2)]
    for head, row in kept:
        error = np.abs(output[head, row] - expected.values[head, row])
        assert (error <= expected.tolerance[head, row]).all(), (head, row)
    assert not np.isfinite(output[2, 1]).any()
