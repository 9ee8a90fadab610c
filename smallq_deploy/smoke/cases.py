"""Inputs of a smoke case, the same for everybody: seeded, rounded to fp16. Standard library only."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_MULTIPLY_ADDS = 2_000_000  # keeps the float64 reference in plain Python below a second
# Element value from a generator and the name of the tensor; "peaky" makes softmax rows with one dominant key.
DISTRIBUTIONS: Mapping[str, Callable[[random.Random, str], float]] = {
    "normal": lambda rng, name: rng.gauss(0.0, 1.0),
    "uniform": lambda rng, name: rng.uniform(-1.0, 1.0),
    "peaky": lambda rng, name: rng.gauss(0.0, 6.0 if name == "q" else 1.0),
    "offset": lambda rng, name: rng.gauss(2.0 if name in "qk" else 0.0, 1.0),
}


def to_half(values: list[float]) -> bytes:
    """fp16 little-endian, rounded to nearest even."""
    return struct.pack(f"<{len(values)}e", *values)


def from_half(raw: bytes) -> list[float]:
    """The exact values of fp16 data."""
    return list(struct.unpack(f"<{len(raw) // 2}e", raw))


@dataclass(frozen=True)
class Case:
    """One shape: q [num_heads, q_len, head_dim], k [num_heads, kv_len, head_dim], v [num_heads, kv_len, v_head_dim]."""

    name: str
    num_heads: int
    q_len: int
    kv_len: int
    head_dim: int
    v_head_dim: int
    seed: int
    distribution: str

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Case:
        """From the request of the runner; raises KeyError, TypeError or ValueError."""
        numbers = {key: int(record[key]) for key in ("num_heads", "q_len", "kv_len", "head_dim", "v_head_dim", "seed")}
        case = Case(name=str(record["name"]), distribution=str(record["distribution"]), **numbers)
        if case.distribution not in DISTRIBUTIONS:
            raise ValueError(f"case {case.name}: unknown distribution {case.distribution!r}")
        return case

    @property
    def multiply_adds(self) -> int:
        """Of both matrix products."""
        return self.num_heads * self.q_len * self.kv_len * (self.head_dim + self.v_head_dim)

    @property
    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """Shapes of q, k, v and the output o."""
        return {
            "q": (self.num_heads, self.q_len, self.head_dim),
            "k": (self.num_heads, self.kv_len, self.head_dim),
            "v": (self.num_heads, self.kv_len, self.v_head_dim),
            "o": (self.num_heads, self.q_len, self.v_head_dim),
        }

    def inputs(self) -> dict[str, bytes]:
        """fp16 data of q, k and v."""
        rng = random.Random(self.seed)  # noqa: S311 - test data, no secret
        draw = DISTRIBUTIONS[self.distribution]
        return {
            name: to_half([draw(rng, name) for _ in range(shape[0] * shape[1] * shape[2])])
            for name, shape in self.shapes.items()
            if name != "o"
        }
