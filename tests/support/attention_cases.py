"""Attention cases, their float64 reference and the tolerance: one table for every way of running the operator.

Tolerances and the error model are those of the operator's numerics: an fp32 algorithm with one rounding to fp16.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Half = NDArray[np.float16]
Bits = NDArray[np.uint16]  # bfloat16
Double = NDArray[np.float64]

ABSOLUTE = 1e-3
RELATIVE = 1e-3
RELATIVE_L2 = 5e-4
# bfloat16 has 8 significant bits: rounding the output alone moves it by up to 2^-8 of its value, about 1.6e-3 on
# average, which hides what fp32 loses before it.
BF16_RELATIVE = 2.0**-8
BF16_RELATIVE_L2 = 2.0**-8

HEADS = (1, 3, 8, 32, 41)
Q_LENGTHS = (1, 2, 4, 8, 13)
HEAD_DIMS = (1, 3, 16, 17, 64, 100, 128, 192, 256)
KV_LENGTHS = (1, 2, 63, 64, 65, 1023, 1025, 1500)


@dataclass(frozen=True)
class AttentionCase:
    """One call: q [heads, q_len, head_dim], k [heads, kv_len, head_dim], v [heads, kv_len, head_dim_v].

    ``inputs`` names a row of DISTRIBUTIONS. ``large`` widens the tolerance by what fp32 itself loses when q, k and v
    are all large.
    """

    heads: int
    q_len: int
    kv_len: int
    head_dim: int
    head_dim_v: int
    inputs: str = "normal"
    large: bool = False
    kv_heads: int = 0
    scale: float = 0.0
    causal: bool = False
    lengths: tuple[int, ...] = ()
    bf16: bool = False

    @property
    def name(self) -> str:
        """Readable and unique in the tables below."""
        size = f"{self.head_dim}" if self.head_dim == self.head_dim_v else f"{self.head_dim}/{self.head_dim_v}"
        heads = f"{self.heads}" if self.kv_heads in (0, self.heads) else f"{self.heads}/{self.kv_heads}"
        shape = f"h{heads}-q{self.q_len}-kv{self.kv_len}-d{size}"
        shape += f"-x{self.scale:g}" if self.scale else ""
        shape += "-causal" if self.causal else ""
        shape += f"-n{'.'.join(map(str, self.lengths))}" if self.lengths else ""
        shape += "-bf16" if self.bf16 else ""
        return shape if self.inputs == "normal" else f"{shape}-{self.inputs}"

    @property
    def multiply_adds(self) -> int:
        """Products of both matrix multiplications."""
        return self.heads * self.q_len * self.kv_len * (self.head_dim + self.head_dim_v)

    @property
    def seed(self) -> int:
        """Fixed by the case."""
        return zlib.crc32(self.name.encode())


@dataclass(frozen=True)
class Reference:
    """Exact output [heads, q_len, head_dim_v] and the error each element may have."""

    values: Double
    tolerance: Double


@dataclass(frozen=True)
class Comparison:
    """How a result compares with the reference; bound is the worst error as a part of its tolerance."""

    passed: bool
    worst_error: float
    bound: float
    relative_l2: float

    def __str__(self) -> str:
        return f"worst error {self.worst_error:.2e}, {self.bound:.3f} of tolerance, relative L2 {self.relative_l2:.2e}"


Distribution = Callable[[np.random.Generator, tuple[int, ...]], Double]


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Double:
    return rng.standard_normal(shape)


def _peaky(rng: np.random.Generator, shape: tuple[int, ...]) -> Double:
    return 4 * rng.standard_normal(shape)


def _offset(rng: np.random.Generator, shape: tuple[int, ...]) -> Double:
    return 8 + 0.05 * rng.standard_normal(shape)


def _hundred(rng: np.random.Generator, shape: tuple[int, ...]) -> Double:
    return rng.uniform(-100, 100, shape)


def _constant_rows(rng: np.random.Generator, shape: tuple[int, ...]) -> Double:
    return np.broadcast_to(rng.uniform(-2, 2, (*shape[:-1], 1)), shape)


def _ones(rng: np.random.Generator, shape: tuple[int, ...]) -> Double:
    del rng
    return np.ones(shape)


# name -> how q, k and v are drawn
DISTRIBUTIONS: dict[str, tuple[Distribution, Distribution, Distribution]] = {
    "normal": (_normal, _normal, _normal),
    "peaky": (_peaky, _peaky, _normal),
    "offset": (_offset, _offset, _normal),  # all logits large and nearly equal
    "v100": (_normal, _normal, _hundred),
    "q100": (_hundred, _normal, _normal),
    "constant-rows": (_constant_rows, _constant_rows, _constant_rows),
    "equal-logits": (_ones, _ones, _normal),
    "all100": (_hundred, _hundred, _hundred),
}


def to_bf16(values: NDArray[Any]) -> Bits:
    """Finite values rounded to the nearest bfloat16, ties to even, as bits."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def to_double(values: NDArray[Any]) -> Double:
    """float16, or bfloat16 as bits, as it is."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return values.astype(np.float64)


def make_inputs(case: AttentionCase) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """q, k and v of a case, the same in every run; bfloat16 as bits."""
    rng = np.random.default_rng(case.seed)
    q, k, v = DISTRIBUTIONS[case.inputs]
    kv_heads = case.kv_heads or case.heads
    drawn = (
        q(rng, (case.heads, case.q_len, case.head_dim)),
        k(rng, (kv_heads, case.kv_len, case.head_dim)),
        v(rng, (kv_heads, case.kv_len, case.head_dim_v)),
    )
    first, second, third = (to_bf16(x) if case.bf16 else x.astype(np.float16) for x in drawn)
    return first, second, third


def reference(
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    *,
    large: bool = False,
    scale: float = 0.0,
    causal: bool = False,
    lengths: Sequence[int] = (),
) -> Reference:
    """softmax(q k^T scale) v in float64 on the inputs as they are, head by head; a row that sees no key gives 0.

    With ``large`` an element's tolerance grows by 4 * 2^-24 * A * S: A = max over keys of sum |q * k| * scale bounds
    the rounding of a logit, S = sqrt(sum p (v - o)^2) says how much the output moves with the logits.
    """
    values = np.zeros((q.shape[0], q.shape[1], v.shape[2]))
    slack = np.zeros_like(values)
    factor = scale or 1 / math.sqrt(q.shape[2])
    group, q_len = q.shape[0] // k.shape[0], q.shape[1]
    for head in range(q.shape[0]):
        kv_head = head // group
        length = lengths[kv_head * len(lengths) // k.shape[0]] if len(lengths) else k.shape[1]
        length = min(max(int(length), 0), k.shape[1])
        q64, k64, v64 = to_double(q[head]), to_double(k[kv_head, :length]), to_double(v[kv_head, :length])
        for row, seen in enumerate(length - q_len + i + 1 if causal else length for i in range(q_len)):
            if seen <= 0:
                continue
            score = k64[:seen] @ q64[row] * factor
            weight = np.exp(score - score.max())
            weight /= weight.sum()
            values[head, row] = weight @ v64[:seen]
            if large:
                magnitude = (np.abs(k64[:seen]) @ np.abs(q64[row]) * factor).max()
                spread = np.sqrt(weight @ (v64[:seen] - values[head, row]) ** 2)
                slack[head, row] = 4 * 2.0**-24 * magnitude * spread
    relative = BF16_RELATIVE if q.dtype == np.uint16 else RELATIVE
    return Reference(values, ABSOLUTE + relative * np.abs(values) + slack)


def reference_of(case: AttentionCase, inputs: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]) -> Reference:
    """The reference of a case for its inputs."""
    return reference(*inputs, large=case.large, scale=case.scale, causal=case.causal, lengths=case.lengths)


def compare(got: NDArray[Any], expected: Reference) -> Comparison:
    """Element by element and in the L2 norm; anything not finite fails."""
    result = to_double(got)
    most_l2 = BF16_RELATIVE_L2 if got.dtype == np.uint16 else RELATIVE_L2
    if not np.isfinite(result).all():
        return Comparison(False, math.inf, math.inf, math.inf)
    error = np.abs(result - expected.values)
    bound = float((error / expected.tolerance).max())
    norm = float(np.sqrt((expected.values**2).sum()))
    relative_l2 = float(np.sqrt((error**2).sum())) / max(norm, 1e-300)
    return Comparison(bound <= 1 and relative_l2 <= most_l2, float(error.max()), bound, relative_l2)


def _grid() -> list[AttentionCase]:
    """Every (head_dim, kv_len), with heads and q_len rotating so that every pair of those occurs too."""
    pairs = list(itertools.product(HEADS, Q_LENGTHS))
    cases = []
    for index, (head_dim, kv_len) in enumerate(itertools.product(HEAD_DIMS, KV_LENGTHS)):
        heads, q_len = pairs[index * 7 % len(pairs)]
        cases.append(AttentionCase(heads, q_len, kv_len, head_dim, head_dim))
    return cases


def _pairs() -> list[AttentionCase]:
    """Every (heads, q_len) on cheap shapes that change with it: unaligned head sizes, short and odd kv_len."""
    cases = []
    for index, (heads, q_len) in enumerate(itertools.product(HEADS, Q_LENGTHS)):
        head_dim = (17, 100, 3, 64, 1)[index % 5]
        cases.append(AttentionCase(heads, q_len, (65, 2, 63, 64, 1)[(index + index // 5) % 5], head_dim, head_dim))
    return cases


def _unequal() -> list[AttentionCase]:
    """V head size different from K's, some with head_dim_v % 16 in 1 .. 8 and several q rows."""
    sizes = ((1, 3), (3, 17), (17, 1), (16, 256), (64, 100), (100, 64), (72, 40), (128, 17), (192, 128), (256, 192))
    cases = []
    for index, (head_dim, head_dim_v) in enumerate(sizes):
        for turn, kv_len in enumerate((64, 1, 65, 1025)):
            heads = (3, 41, 1, 8)[(index + turn) % 4] if kv_len < 1000 else (1, 3)[index % 2]
            q_len = (4, 8, 2, 13, 1)[(index + 2 * turn) % 5]
            cases.append(AttentionCase(heads, q_len, kv_len, head_dim, head_dim_v))
    return cases


def _corners() -> list[AttentionCase]:
    """The largest shape of the grid, more heads than vector cores, and wide heads, where blocks shrink."""
    return [
        AttentionCase(41, 13, 1500, 256, 256),
        AttentionCase(41, 8, 1025, 64, 64),
        AttentionCase(41, 1, 1500, 256, 256),
        AttentionCase(32, 1, 1500, 128, 128),
        AttentionCase(8, 4, 1500, 128, 128),
        AttentionCase(2, 3, 130, 512, 512),
        AttentionCase(2, 4, 77, 576, 512),
        AttentionCase(1, 8, 50, 1008, 1008),
        AttentionCase(1, 2, 33, 896, 1024),
    ]


def _extreme() -> list[AttentionCase]:
    """Inputs that stress the softmax, at the plain tolerance; all q, k, v large at the widened one."""
    shapes = ((2, 1, 1023, 128, 128), (1, 4, 300, 64, 64), (3, 8, 65, 100, 100), (1, 13, 200, 17, 40))
    cases = [
        AttentionCase(*shape, inputs=inputs)
        for inputs in ("peaky", "offset", "v100", "q100", "constant-rows", "equal-logits")
        for shape in shapes
    ]
    cases += [AttentionCase(1, 2, 1500, 256, 256, "offset"), AttentionCase(2, 8, 64, 16, 16, "offset")]
    # Most rows have one winning key; with many rows and few columns some have two that nearly tie.
    close = ((41, 13, 200, 17, 17), (8, 8, 1500, 100, 64))
    return cases + [AttentionCase(*shape, inputs="all100", large=True) for shape in shapes + close]


NORMAL_CASES: tuple[AttentionCase, ...] = tuple(dict.fromkeys(_grid() + _pairs() + _unequal() + _corners()))
EXTREME_CASES: tuple[AttentionCase, ...] = tuple(_extreme())
