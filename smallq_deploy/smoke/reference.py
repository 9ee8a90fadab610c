"""Attention in float64 with exact sums, and the comparison with what the device computed. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

from smallq_deploy.smoke.cases import Case, from_half


def attention(case: Case, q: bytes, k: bytes, v: bytes) -> list[float]:
    """softmax(q k^T / sqrt(head_dim)) v of each head in float64, from fp16 data.

    Returns the rows of [num_heads, q_len, v_head_dim] one after the other. Sums by math.fsum, so that the reference's
    own error is that of one rounding a sum.
    """
    scale = 1.0 / math.sqrt(case.head_dim)
    q_rows, k_rows, v_rows = _rows(q, case.head_dim), _rows(k, case.head_dim), _rows(v, case.v_head_dim)
    result: list[float] = []
    for head in range(case.num_heads):
        keys = k_rows[head * case.kv_len : (head + 1) * case.kv_len]
        columns = list(zip(*v_rows[head * case.kv_len : (head + 1) * case.kv_len], strict=True))
        for query in q_rows[head * case.q_len : (head + 1) * case.q_len]:
            logits = [math.fsum(map(mul, query, key)) * scale for key in keys]
            top = max(logits)
            weights = [math.exp(logit - top) for logit in logits]
            total = math.fsum(weights)
            result.extend(math.fsum(map(mul, weights, column)) / total for column in columns)
    return result


def _rows(raw: bytes, width: int) -> list[list[float]]:
    values = from_half(raw)
    return [values[start : start + width] for start in range(0, len(values), width)]


@dataclass(frozen=True)
class Comparison:
    """How far a result is from the reference. ``bound`` is the worst |e| / (abs + rel |ref|); above 1 is too far."""

    passed: bool
    max_abs: float
    bound: float
    rel_l2: float
    detail: str


def compare(
    actual: Sequence[float], expected: Sequence[float], *, abs_: float, rel: float, rel_l2: float
) -> Comparison:
    """Every element within ``abs_ + rel * |expected|``, and the whole within ``rel_l2`` in the 2-norm; NaN never is."""
    errors = [abs(got - want) for got, want in zip(actual, expected, strict=True)]
    bounds = [error / (abs_ + rel * abs(want)) for error, want in zip(errors, expected, strict=True)]
    bad = [index for index, bound in enumerate(bounds) if not bound <= 1.0]
    not_numbers = sum(1 for got in actual if not math.isfinite(got))
    if not_numbers:
        detail = f"{not_numbers} of {len(errors)} values not finite"
        return Comparison(False, math.inf, math.inf, math.inf, detail)
    norm = math.sqrt(math.fsum(want * want for want in expected))
    far = math.sqrt(math.fsum(error * error for error in errors))
    ratio = far / norm if norm else (math.inf if far else 0.0)
    worst = max(range(len(bounds)), key=bounds.__getitem__)
    detail = ""
    if bad:
        detail = (
            f"{len(bad)} of {len(errors)} values too far off; the worst, at {worst}, is {actual[worst]:.6g} "
            f"instead of {expected[worst]:.6g}"
        )
    elif not ratio <= rel_l2:
        detail = f"relative 2-norm error {ratio:.3g} is above {rel_l2:.3g}"
    return Comparison(not detail, max(errors), bounds[worst], ratio, detail)
