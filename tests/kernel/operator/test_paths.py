"""All four paths of the kernel, forced and chosen, and what the operator does beyond plain attention; strict."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support import emulator
from tests.support.attention_cases import (
    AttentionCase,
    compare,
    make_inputs,
    reference,
    reference_of,
    to_bf16,
    to_double,
)
from tests.support.operator_kernel import UB_LIMIT, Call, Force, Operator, Outcome

NORMAL, SPLIT, LARGE, LARGE_SPLIT = 1, 2, 3, 4
CHOSEN = Force()  # the planner chooses


def call_of(case: AttentionCase) -> Call:
    q, k, v = make_inputs(case)
    lengths = np.array(case.lengths, np.int64) if case.lengths else None
    return Call(q, k, v, scale=case.scale, causal=case.causal, lengths=lengths)


def check(operator: Operator, case: AttentionCase, key: int, force: Force = CHOSEN, limit: int = UB_LIMIT) -> float:
    """A clean launch by that tiling key and a right result; the worst error as a part of the tolerance."""
    call = call_of(case)
    kv_heads = case.kv_heads or case.heads
    rows = case.heads // kv_heads * case.q_len
    launch = operator.planner.launch(
        kv_heads, rows, case.kv_len, case.head_dim, case.head_dim_v, limit=limit, wide=case.bf16, force=force
    )
    assert launch.key == key, case.name
    outcome = operator.call(call, force=force, limit=limit, ub_bytes=emulator.UB_BYTES if limit == UB_LIMIT else limit)
    assert (outcome.status, outcome.message) == (emulator.SIM_OK, ""), case.name
    comparison = compare(outcome.output, reference_of(case, (call.q, call.k, call.v)))
    assert comparison.passed, f"{case.name}: {comparison}"
    return comparison.bound


def check_all(
    operator: Operator, rows: list[tuple[AttentionCase, int, Force, int]], record: Callable[[str, object], None]
) -> None:
    worst, name = max((check(operator, *row), row[0].name) for row in rows)
    record("measured", f"kernel: {len(rows)} cases, worst error {worst:.3f} of the tolerance ({name})")


# (heads, q_len, kv_len, head_dim, head_dim_v), parts. With hdV % 16 in 1 .. 8 and several q rows the rows of a partial
# result have a gap in UB but not in memory.
SPLIT_SHAPES = [
    ((1, 1, 300, 128, 128), 2), ((2, 2, 257, 100, 100), 3), ((2, 3, 200, 17, 17), 2), ((1, 8, 513, 128, 128), 3),
    ((2, 1, 200, 1, 1), 4), ((1, 4, 130, 72, 40), 2), ((1, 13, 150, 33, 33), 2), ((3, 2, 260, 24, 24), 3),
    ((1, 4, 4096, 1, 40), 64), ((41, 2, 129, 16, 8), 3), ((1, 1, 65, 1008, 1024), 2), ((2, 5, 64 * 7 + 1, 3, 5), 8),
]  # fmt: skip


def test_split(operator: Operator, record_property: Callable[[str, object], None]) -> None:
    rows = [(AttentionCase(*shape), SPLIT, Force(parts), UB_LIMIT) for shape, parts in SPLIT_SHAPES]
    rows += [
        (AttentionCase(2, 4, 300, 64, 40, inputs), SPLIT, Force(3), UB_LIMIT) for inputs in ("peaky", "offset", "v100")
    ]
    rows += [(AttentionCase(2, 4, 300, 64, 40), SPLIT, Force(5), limit) for limit in (12 * 1024 + 4096, 24 * 1024)]
    check_all(operator, rows, record_property)


LARGE_SHAPES = [
    (1, 2, 40, 1040, 1040), (1, 3, 40, 1041, 40), (2, 5, 40, 1040, 1100), (1, 4, 30, 64, 1040), (2, 1, 1, 1009, 1),
    (1, 1, 17, 4096, 2048), (42, 2, 20, 1009, 1025), (1, 9, 600, 1010, 17),
]  # fmt: skip


def test_large(operator: Operator, record_property: Callable[[str, object], None]) -> None:
    rows = [(AttentionCase(*shape), LARGE, Force(1, large=True), UB_LIMIT) for shape in LARGE_SHAPES]
    # Several steps, with the output in one chunk and in several; two items a core.
    rows += [
        (AttentionCase(*shape), LARGE, Force(1, large=True), limit)
        for shape, limit in [
            ((1, 4, 1100, 100, 72), 16 * 1024), ((2, 1, 2100, 40, 40), UB_LIMIT), ((45, 2, 600, 40, 40), 24 * 1024),
            ((1, 3, 300, 200, 130), 16 * 1024), ((1, 4, 90, 640, 640), 16 * 1024), ((1, 2, 1030, 40, 520), UB_LIMIT),
        ]
    ]  # fmt: skip
    rows += [(AttentionCase(1, 4, 1100, 40, 40, inputs), LARGE, Force(1, large=True), UB_LIMIT)
             for inputs in ("peaky", "offset")]  # fmt: skip
    check_all(operator, rows, record_property)


def test_large_split(operator: Operator, record_property: Callable[[str, object], None]) -> None:
    rows = [
        (AttentionCase(*shape), LARGE_SPLIT, Force(parts, large=True), limit)
        for shape, parts, limit in [
            ((1, 2, 1200, 1040, 1033), 2, UB_LIMIT), ((2, 4, 700, 100, 77), 2, UB_LIMIT),
            ((2, 4, 700, 100, 77), 3, 16 * 1024), ((1, 3, 1300, 30, 600), 2, UB_LIMIT),
            ((1, 1, 130, 8, 1500), 3, UB_LIMIT),
        ]
    ]  # fmt: skip
    check_all(operator, rows, record_property)


def test_paths_the_planner_chooses(operator: Operator) -> None:
    check(operator, AttentionCase(1, 1, 2048, 64, 64), SPLIT)
    check(operator, AttentionCase(1, 2, 40, 1009, 8), LARGE)
    check(operator, AttentionCase(1, 4, 1030, 1030, 1030), LARGE_SPLIT)
    check(operator, AttentionCase(1, 1, 200, 512, 512), LARGE, limit=24 * 1024)


@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (8, 2), (16, 2), (16, 1)])
def test_grouped_heads(operator: Operator, heads: int, kv_heads: int) -> None:
    """The result is that of K and V repeated for every q head, bit by bit when a tile holds the same rows."""
    case = AttentionCase(heads, 3, 200, 64, 40, kv_heads=kv_heads)
    for force, key in ((Force(1), NORMAL), (Force(3), SPLIT), (Force(1, large=True), LARGE)):
        check(operator, case, key, force)


def test_scale(operator: Operator) -> None:
    for scale in (0.5, 0.02, -0.3):
        check(operator, AttentionCase(2, 3, 130, 40, 40, scale=scale), NORMAL, Force(1))


CAUSAL = [(2, 2), (1, 1), (5, 200), (13, 131), (70, 80), (8, 520), (4, 66), (80, 300)]


@pytest.mark.parametrize("force", [Force(1), Force(2), Force(3), Force(1, True), Force(2, True)], ids=str)
def test_causal(operator: Operator, force: Force) -> None:
    """Tails across blocks, steps, 64 lanes and parts; parts that some rows do not see at all."""
    for q_len, kv_len in CAUSAL:
        if force.parts > 1 and kv_len <= 64 * (force.parts - 1):
            continue
        key = 1 + 2 * force.large + (force.parts > 1)
        check(operator, AttentionCase(4, q_len, kv_len, 32, 24, kv_heads=2, causal=True), key, force)


def test_causal_with_blocks_of_four_keys(operator: Operator) -> None:
    check(operator, AttentionCase(2, 9, 77, 64, 64, causal=True), NORMAL, Force(1), 12 * 1024)


@pytest.mark.parametrize("force", [Force(1), Force(3), Force(1, True), Force(3, True)], ids=str)
def test_actual_lengths(operator: Operator, force: Force) -> None:
    """One for all heads, one for two heads, one each; none, too many and a negative number of keys."""
    key = 1 + 2 * force.large + (force.parts > 1)
    for lengths in ((211,), (5, 260), (0, 1, 300, 1000), (-4, 64, 65, 128)):
        check(operator, AttentionCase(8, 3, 300, 40, 24, kv_heads=4, lengths=lengths), key, force)
        check(operator, AttentionCase(8, 3, 300, 40, 24, kv_heads=4, lengths=lengths, causal=True), key, force)


def test_rows_beyond_the_actual_length_do_not_matter(operator: Operator) -> None:
    """Not-finite K and V behind the actual length stay out of the result."""
    q, k, v = make_inputs(AttentionCase(2, 2, 200, 40, 40))
    k[:, 70:], v[:, 70:] = np.nan, np.inf
    lengths = np.array([70], np.int64)
    for force in (Force(1), Force(2), Force(1, True)):
        outcome = operator.call(Call(q, k, v, lengths=lengths), force=force)
        assert outcome.status == emulator.SIM_OK
        plain = operator.run(q, np.ascontiguousarray(k[:, :70]), np.ascontiguousarray(v[:, :70]), force=force)
        if force.parts == 1:
            np.testing.assert_array_equal(outcome.output, plain.output)
        assert np.isfinite(outcome.output).all()


@pytest.mark.parametrize("force", [Force(1), Force(3), Force(1, True), Force(3, True)], ids=str)
def test_bits_do_not_depend_on_the_schedule(operator: Operator, force: Force) -> None:
    call = call_of(AttentionCase(8, 5, 300, 100, 72, kv_heads=4, causal=True))
    expected = operator.call(call, force=force).output
    launches: list[Callable[[], Outcome]] = [
        *(lambda: operator.call(call, force=force) for _ in range(20)),
        lambda: operator.call(call, force=force, threads=1),
        lambda: operator.call(call, force=force, threads=3),
        lambda: operator.call(call, force=force, strict=False),
        lambda: operator.call(call, force=force, cores=3),
    ]
    for launch in launches:
        np.testing.assert_array_equal(launch().output, expected)


@pytest.mark.parametrize("large", [False, True])
def test_takes_the_bytes_the_planner_counts(operator: Operator, large: bool) -> None:
    call = call_of(AttentionCase(1, 4, 70, 100, 40))
    plan = operator.planner.plan(100, 40, 4, 70, large=large)
    assert plan is not None
    force = Force(1, large)
    assert operator.call(call, force=force, ub_bytes=plan.ub_bytes).status == emulator.SIM_OK
    assert operator.call(call, force=force, ub_bytes=plan.ub_bytes - 32).codes == {"UB_OVERFLOW"}


def test_combination_fits_any_buffer(operator: Operator) -> None:
    assert operator.planner.combine_ub_bytes() <= 16 * 1024
    check(operator, AttentionCase(1, 1, 64 * 64, 1, 600), SPLIT, Force(64), 24 * 1024)


# ---- bfloat16


BF16_SHAPES = [
    (2, 1, 65, 64, 64), (3, 2, 130, 128, 128), (1, 8, 300, 128, 128), (2, 4, 257, 100, 100), (2, 3, 17, 17, 33),
    (1, 8, 50, 1008, 1008), (2, 1, 5, 1, 3), (41, 2, 70, 192, 128), (1, 13, 66, 40, 72),
]  # fmt: skip


def test_bf16(bf16_operator: Operator, record_property: Callable[[str, object], None]) -> None:
    rows = [(AttentionCase(*shape, bf16=True), NORMAL, Force(1), UB_LIMIT) for shape in BF16_SHAPES]
    rows += [(AttentionCase(1, 4, 77, 64, 64, bf16=True), NORMAL, Force(1), limit) for limit in (16384, 32768)]
    rows += [(AttentionCase(2, 4, 300, 64, 40, inputs, bf16=True), NORMAL, Force(1), UB_LIMIT)
             for inputs in ("peaky", "offset", "v100")]  # fmt: skip
    for parts, large in ((2, False), (1, True), (2, True)):
        key = 1 + 2 * large + (parts > 1)
        rows += [(AttentionCase(*shape, bf16=True), key, Force(parts, large), UB_LIMIT)
                 for shape in [(2, 1, 700, 64, 64), (2, 4, 257, 100, 100), (2, 3, 170, 17, 33), (1, 4, 100, 1008, 40)]
                 ]  # fmt: skip
        case = AttentionCase(4, 9, 177, 64, 40, bf16=True, causal=True, kv_heads=2, lengths=(100, 177), scale=0.2)
        rows.append((case, key, Force(parts, large), 20 * 1024))
    check_all(bf16_operator, rows, record_property)


def test_bf16_takes_numbers_fp16_cannot_hold(bf16_operator: Operator) -> None:
    """Logits and values beyond 65504, and subnormal fp16 values."""
    q, k, v = (to_bf16(factor * to_double(x)) for factor, x in zip(
        (1e6, 1e-6, 1e20), make_inputs(AttentionCase(2, 3, 100, 40, 40, bf16=True)), strict=True))  # fmt: skip
    outcome = bf16_operator.call(Call(q, k, v))
    assert (outcome.status, outcome.message) == (emulator.SIM_OK, "")
    assert compare(outcome.output, reference(q, k, v)).passed


def test_bf16_takes_the_bytes_the_planner_counts(bf16_operator: Operator) -> None:
    call = call_of(AttentionCase(1, 4, 70, 100, 40, bf16=True))
    for large in (False, True):
        plan = bf16_operator.planner.plan(100, 40, 4, 70, large=large, wide=True)
        assert plan is not None
        force = Force(1, large)
        assert bf16_operator.call(call, force=force, ub_bytes=plan.ub_bytes).status == emulator.SIM_OK
        assert bf16_operator.call(call, force=force, ub_bytes=plan.ub_bytes - 32).codes == {"UB_OVERFLOW"}
