"""Strict launches of random and edge shapes over all paths and extensions, against float64; long, not in ``make test``.

``make kernel-full`` runs it. SMALLQ_FULL_CASES sets how many shapes (default 320), SMALLQ_FULL_SEED which.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from tests.kernel.operator.test_paths import call_of
from tests.support import emulator
from tests.support.attention_cases import AttentionCase, compare, reference_of
from tests.support.operator_kernel import UB_LIMIT, Force, Operator

CASES = int(os.environ.get("SMALLQ_FULL_CASES", "320"))
SEED = int(os.environ.get("SMALLQ_FULL_SEED", "1"))
PARTS = 8
EDGE_EVERY = 4  # every fourth case takes an end of one range

MOST_BYTES = 64 << 20  # of K and V together
MOST_PRODUCTS = 1 << 28

RANGES = {"kv_heads": (1, 130), "q_len": (1, 17), "head_dim": (1, 4096), "head_dim_v": (1, 4096), "kv_len": (1, 16384)}
RATIOS = (1, 2, 4, 8, 16)
LIMITS = (UB_LIMIT, UB_LIMIT, UB_LIMIT, 64 << 10, 32 << 10, 24 << 10, 16 << 10)
INPUTS = ("normal", "normal", "peaky", "offset")


@dataclass(frozen=True)
class Shape:
    """One launch: the case, what is forced, the bytes of UB."""

    case: AttentionCase
    force: Force
    limit: int


def _log_uniform(rng: np.random.Generator, least: int, most: int) -> int:
    return int(np.clip(round(np.exp(rng.uniform(np.log(least), np.log(most + 0.49)))), least, most))


def _fits(sizes: dict[str, int], ratio: int) -> bool:
    per_head = sizes["kv_len"] * (sizes["head_dim"] + sizes["head_dim_v"])
    products = sizes["kv_heads"] * ratio * sizes["q_len"] * per_head
    return 2 * sizes["kv_heads"] * per_head <= MOST_BYTES and products <= MOST_PRODUCTS


def make_shapes(count: int, seed: int) -> list[Shape]:
    """The same shapes for the same seed. The ends of every range take turns."""
    rng = np.random.default_rng(seed)
    ends = [(name, end) for name, pair in RANGES.items() for end in pair]
    shapes: list[Shape] = []
    while len(shapes) < count:
        index = len(shapes)
        sizes = {name: _log_uniform(rng, *pair) for name, pair in RANGES.items()}
        if index % EDGE_EVERY == 0:
            name, end = ends[index // EDGE_EVERY % len(ends)]
            sizes[name] = end
        if rng.random() < 0.5:
            sizes["head_dim_v"] = sizes["head_dim"] if index % EDGE_EVERY else sizes["head_dim_v"]
        ratio = RATIOS[index % len(RATIOS)] if rng.random() < 0.5 else 1
        if not _fits(sizes, ratio):
            continue
        causal = bool(rng.random() < 0.3) and sizes["kv_len"] >= sizes["q_len"]
        lengths: tuple[int, ...] = ()
        if rng.random() < 0.15:
            lengths = tuple(int(n) for n in rng.integers(0, sizes["kv_len"] + 1, sizes["kv_heads"]))
        case = AttentionCase(
            sizes["kv_heads"] * ratio,
            sizes["q_len"],
            sizes["kv_len"],
            sizes["head_dim"],
            sizes["head_dim_v"],
            inputs=INPUTS[int(rng.integers(len(INPUTS)))],
            kv_heads=sizes["kv_heads"],
            causal=causal,
            lengths=lengths,
            bf16=index % 3 == 2,
        )
        parts = int(rng.integers(1, 6)) if rng.random() < 0.5 else 0
        force = Force(parts, large=bool(rng.random() < 0.3))
        shapes.append(Shape(case, force, LIMITS[int(rng.integers(len(LIMITS)))]))
    return shapes


SHAPES = make_shapes(CASES, SEED)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_random_shapes(
    operator: Operator, bf16_operator: Operator, part: int, record_property: Callable[[str, object], None]
) -> None:
    worst = {False: (0.0, 0.0, ""), True: (0.0, 0.0, "")}
    keys: Counter[int] = Counter()
    started = time.monotonic()
    for shape in SHAPES[part::PARTS]:
        case = shape.case
        call = call_of(case)
        chosen = bf16_operator if case.bf16 else operator
        rows = case.heads // case.kv_heads * case.q_len
        launch = chosen.planner.launch(
            case.kv_heads,
            rows,
            case.kv_len,
            case.head_dim,
            case.head_dim_v,
            limit=shape.limit,
            wide=case.bf16,
            force=shape.force,
        )
        keys[launch.key] += 1
        ub_bytes = emulator.UB_BYTES if shape.limit == UB_LIMIT else shape.limit
        outcome = chosen.call(call, force=shape.force, limit=shape.limit, ub_bytes=ub_bytes)
        assert (outcome.status, outcome.message) == (emulator.SIM_OK, ""), shape
        comparison = compare(outcome.output, reference_of(case, (call.q, call.k, call.v)))
        assert comparison.passed, f"{shape}: {comparison}"
        worst[case.bf16] = max(worst[case.bf16], (comparison.bound, comparison.relative_l2, case.name))
    half, wide = worst[False], worst[True]
    record_property(
        "measured",
        f"kernel, random shapes {part + 1} of {PARTS}: keys {dict(sorted(keys.items()))}, worst {half[0]:.3f} of the "
        f"tolerance ({half[2]}), bf16 {wide[0]:.3f} ({wide[2]}), {time.monotonic() - started:.0f} s",
    )


def test_the_shapes_cover_what_they_claim() -> None:
    if CASES < 320:
        pytest.skip("fewer cases than the table is made for")
    for name, pair in RANGES.items():
        for end in pair:
            assert sum(getattr(shape.case, name) == end for shape in SHAPES) >= 5, (name, end)
    assert {shape.case.heads // shape.case.kv_heads for shape in SHAPES} == set(RATIOS)
    assert sum(shape.case.causal for shape in SHAPES) >= 40
    assert sum(shape.case.bf16 for shape in SHAPES) >= 100
    assert sum(shape.limit == 16 << 10 for shape in SHAPES) >= 20
