"""Shapes for the sanitizers: the four paths and the extensions, each small enough for an instrumented kernel.

``check`` of a row asserts a clean launch by the expected tiling key and a right result.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np

from tests.support import emulator
from tests.support.attention_cases import AttentionCase, Comparison, compare, make_inputs, reference_of
from tests.support.operator_kernel import UB_LIMIT, Call, Force, Operator
from tests.support.sanitized import MOST_MULTIPLY_ADDS

NORMAL, SPLIT, LARGE, LARGE_SPLIT = 1, 2, 3, 4


@dataclass(frozen=True)
class Row:
    """A call, the path it is forced onto, and what the planner may use of UB."""

    case: AttentionCase
    key: int = NORMAL
    parts: int = 1
    limit: int = UB_LIMIT

    @property
    def name(self) -> str:
        """Readable; names the path."""
        limit = "" if self.limit == UB_LIMIT else f"-ub{self.limit // 1024}K"
        return f"key{self.key}-p{self.parts}{limit}-{self.case.name}"


def check(operator: Operator, row: Row) -> Comparison:
    """Launch a row; raises SanitizerReport for a report, AssertionError for a finding or a wrong result."""
    case = row.case
    assert case.multiply_adds <= MOST_MULTIPLY_ADDS, row.name
    q, k, v = make_inputs(case)
    lengths = np.array(case.lengths, np.int64) if case.lengths else None
    force = Force(row.parts, large=row.key in (LARGE, LARGE_SPLIT))
    kv_heads = case.kv_heads or case.heads
    launch = operator.planner.launch(
        kv_heads, case.heads // kv_heads * case.q_len, case.kv_len, case.head_dim, case.head_dim_v,
        limit=row.limit, wide=case.bf16, force=force,
    )  # fmt: skip
    assert launch.key == row.key, row.name
    outcome = operator.call(
        Call(q, k, v, scale=case.scale, causal=case.causal, lengths=lengths),
        force=force, limit=row.limit, ub_bytes=emulator.UB_BYTES if row.limit == UB_LIMIT else row.limit,
    )  # fmt: skip
    assert (outcome.status, outcome.message) == (emulator.SIM_OK, ""), row.name
    comparison = compare(outcome.output, reference_of(case, (q, k, v)))
    assert comparison.passed, f"{row.name}: {comparison}"
    return comparison


# What a path does differently at an edge: one element, unaligned heads, tails of blocks of keys, more items than cores.
QUICK: tuple[Row, ...] = (
    Row(AttentionCase(1, 1, 1, 1, 1)),
    Row(AttentionCase(2, 3, 65, 17, 33)),
    Row(AttentionCase(41, 2, 66, 100, 40)),
    Row(AttentionCase(2, 9, 77, 64, 64), limit=16 * 1024),
    Row(AttentionCase(8, 5, 130, 40, 24, kv_heads=2, causal=True, lengths=(5, 130), scale=0.2)),
    Row(AttentionCase(2, 3, 257, 17, 17), SPLIT, 3),
    Row(AttentionCase(4, 5, 200, 33, 40, kv_heads=2, causal=True, lengths=(70,)), SPLIT, 3, 24 * 1024),
    Row(AttentionCase(1, 2, 30, 1041, 1025), LARGE),
    Row(AttentionCase(4, 3, 150, 100, 72, kv_heads=2, causal=True, lengths=(0, 400)), LARGE, limit=16 * 1024),
    Row(AttentionCase(2, 3, 200, 100, 77), LARGE_SPLIT, 3, 16 * 1024),
    Row(AttentionCase(4, 2, 200, 40, 24, kv_heads=1, causal=True, lengths=(150,)), LARGE_SPLIT, 3),
)

# The same for every path of bfloat16.
QUICK_BF16: tuple[Row, ...] = (
    *(replace(row, case=replace(row.case, bf16=True)) for row in QUICK if row.case.head_dim < 1000),
    Row(AttentionCase(1, 2, 20, 1041, 1040, bf16=True), LARGE),
)


def random_rows(seed: int, count: int, *, bf16: bool) -> list[Row]:
    """``count`` shapes over all paths, head sizes, groups, masks and UB limits; the same for the same seed."""
    rng = random.Random(seed)
    rows: list[Row] = []
    while len(rows) < count:
        key = 1 + len(rows) % 4
        large, split = key in (LARGE, LARGE_SPLIT), key in (SPLIT, LARGE_SPLIT)
        group = rng.choice((1, 1, 2, 4, 8, 16))
        kv_heads = rng.choice((1, 2, 3, 5, 45)) if group <= 2 else rng.choice((1, 2, 3))
        most = rng.choice((2000, 300, 40)) if large else rng.choice((256, 64, 17))
        parts = rng.randint(2, 6) if split else 1
        kv_len = rng.randint(64 * parts, 64 * parts + 700) if split else int(2 ** rng.uniform(0, 11))
        causal = rng.random() < 0.4
        q_len = rng.choice((1, 1, 2, 3, 4, 8, 17))
        lengths: tuple[int, ...] = ()
        if rng.random() < 0.3:
            lengths = tuple(rng.randint(-1, kv_len + 3) for _ in range(rng.choice((1, kv_heads))))
        case = AttentionCase(
            kv_heads * group, q_len, kv_len, rng.randint(1, most), rng.randint(1, most),
            inputs=rng.choice(("normal", "normal", "normal", "peaky", "offset", "v100")), kv_heads=kv_heads,
            causal=causal and kv_len >= q_len, lengths=lengths, bf16=bf16,
        )  # fmt: skip
        if case.multiply_adds <= MOST_MULTIPLY_ADDS:
            rows.append(Row(case, key, parts, rng.choice((UB_LIMIT, UB_LIMIT, 64 * 1024, 24 * 1024, 16 * 1024))))
    return rows
