"""Attention cases: where they come from, their inputs, the float64 reference and the comparison. Needs numpy.

A matrix file (manifests/matrices/*.yaml, or the same as JSON) lists shapes. Cases that differ only in the query length
share one set of keys and values and, unless they are causal, one reference.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MATRICES = Path(__file__).resolve().parent.parent.parent / "manifests" / "matrices"
DTYPES = ("float16", "bfloat16")
# An output in bf16 has 8 bits: rounding costs at most 2^-8 of the value, about 2^-9 / 1.7 in the 2-norm.
BFLOAT16_TOLERANCE = {"abs": 1e-3, "rel": 4e-3, "rel_l2": 3e-3}

Raw = NDArray[Any]
Double = NDArray[np.float64]


class MatrixError(Exception):
    """A matrix that cannot be used; the text names the file."""


@dataclass(frozen=True)
class Case:
    """One call: q [heads, q_len, head_dim], k [kv_heads, kv_len, head_dim], v [kv_heads, kv_len, head_dim_v].

    ``model`` is the group it is counted under; with ``causal`` query row i sees keys up to kv_len - q_len + i.
    """

    name: str
    model: str
    heads: int
    kv_heads: int
    q_len: int
    kv_len: int
    head_dim: int
    head_dim_v: int
    dtype: str = "float16"
    causal: bool = False
    distribution: str = "normal"
    seed: int = 1

    @property
    def multiply_adds(self) -> int:
        """Of both matrix products."""
        return self.heads * self.q_len * self.kv_len * (self.head_dim + self.head_dim_v)

    @property
    def kv_bytes(self) -> int:
        """Keys and values together."""
        return 2 * self.kv_heads * self.kv_len * (self.head_dim + self.head_dim_v)

    @property
    def cost(self) -> float:
        """Relative time of the case, for the order and the estimate of what is left; fitted to a simulated toolkit."""
        return self.multiply_adds + 2.7 * self.kv_bytes + 1.7e8

    @property
    def key(self) -> str:
        """Everything that decides what is computed; the name alone is not enough to resume by."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def shared(self) -> tuple[object, ...]:
        """What cases with the same keys and values have in common."""
        sizes = (self.heads, self.kv_heads, self.kv_len, self.head_dim, self.head_dim_v)
        return (self.model, *sizes, self.dtype, self.causal, self.distribution, self.seed)

    def environment(self, device: int, folder: Path, repeat: int) -> dict[str, str]:
        """How the one-case programs are told what to do."""
        values = {
            "NUM_HEADS": self.heads,
            "KV_HEADS": self.kv_heads,
            "Q_LEN": self.q_len,
            "KV_LEN": self.kv_len,
            "HEAD_DIM": self.head_dim,
            "HEAD_DIM_V": self.head_dim_v,
            "CAUSAL": int(self.causal),
            "DTYPE": self.dtype,
            "DEVICE_ID": device,
            "REPEAT": repeat,
            "IO_DIR": folder,
        }
        return {name: str(value) for name, value in values.items()}


@dataclass(frozen=True)
class Tolerance:
    """``|e| <= abs + rel * |reference|`` for every element, and ``||e|| / ||reference|| <= rel_l2``."""

    abs: float
    rel: float
    rel_l2: float


@dataclass(frozen=True)
class Matrix:
    """Cases and the tolerance that holds for fp16 ones."""

    name: str
    tolerance: Tolerance
    cases: tuple[Case, ...]


# ---- matrix files ---------------------------------------------------------------------------------------------------


def read_matrix(source: str) -> Matrix:
    """A matrix by name (``models``) or path; raises MatrixError. YAML files need PyYAML, JSON files nothing."""
    path = Path(source)
    if re.fullmatch(r"[a-z0-9._-]+", source) and path.suffix not in (".yaml", ".json"):
        path = MATRICES / f"{source}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in MATRICES.glob("*.yaml"))) or "none"
        raise MatrixError(f"cannot read the matrix {path}: {error.strerror}; matrices by name: {known}") from error
    try:
        if path.suffix == ".json":
            found = json.loads(text)
        else:
            import yaml

            found = yaml.safe_load(text)
    except ImportError:
        raise MatrixError(f"{path} is YAML and this Python has no PyYAML: install it, or give a JSON file") from None
    except Exception as error:
        raise MatrixError(f"{path}: {error}") from error
    try:
        cases = [_row(row, number) for number, row in enumerate(found.get("cases", []), 1)]
        for grid in found.get("grids", []):
            cases += _grid(grid)
        matrix = Matrix(str(found["name"]), Tolerance(**found["tolerance"]), tuple(cases))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MatrixError(f"{path} is no matrix: {type(error).__name__}: {error}") from error
    if not cases:
        raise MatrixError(f"{path} has no cases")
    for case in cases:
        _check(case, path)
    return matrix


def _row(row: Any, number: int) -> Case:
    if isinstance(row, dict):
        return Case(**row)
    heads, q_len, kv_len, head_dim, head_dim_v = (int(value) for value in row[:5])
    drawn = str(row[5]) if len(row) > 5 else "normal"
    suffix = "" if drawn == "normal" else f"-{drawn.replace('_', '-')}"
    name = f"h{heads}-q{q_len}-kv{kv_len}-d{head_dim}-v{head_dim_v}{suffix}"
    return Case(name, "cases", heads, heads, q_len, kv_len, head_dim, head_dim_v, distribution=drawn, seed=number)


def _grid(grid: dict[str, Any]) -> list[Case]:
    heads = int(grid["num_heads"])
    fixed: dict[str, Any] = {
        "model": str(grid["name"]),
        "heads": heads,
        "kv_heads": int(grid.get("kv_heads", heads)),
        "head_dim": int(grid["head_dim"]),
        "head_dim_v": int(grid["v_head_dim"]),
        "dtype": str(grid.get("dtype", "float16")),
        "causal": bool(grid.get("causal", False)),
        "distribution": str(grid.get("distribution", "normal")),
    }
    return [
        Case(
            name=f"{grid['name']}-q{q_len}-kv{kv_len}", q_len=int(q_len), kv_len=int(kv_len), seed=int(kv_len), **fixed
        )
        for kv_len in grid["kv_len"]
        for q_len in grid["q_len"]
        if not fixed["causal"] or kv_len >= q_len
    ]


def _check(case: Case, path: Path) -> None:
    sizes = (case.heads, case.kv_heads, case.q_len, case.kv_len, case.head_dim, case.head_dim_v)
    if min(sizes) < 1 or case.heads % case.kv_heads:
        raise MatrixError(f"{path}: case {case.name}: every size is at least 1, and kv_heads divides the heads")
    if case.dtype not in DTYPES or case.distribution not in DISTRIBUTIONS:
        raise MatrixError(f"{path}: case {case.name}: unknown dtype or distribution")
    if case.causal and case.kv_len < case.q_len:
        raise MatrixError(f"{path}: case {case.name}: a causal case needs at least as many keys as query rows")


# ---- inputs ---------------------------------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float32]]


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return rng.standard_normal(shape, dtype=np.float32)


def _scaled(factor: float, offset: float = 0.0) -> Draw:
    return lambda rng, shape: np.float32(factor) * _normal(rng, shape) + np.float32(offset)


def _within(limit: float) -> Draw:
    return lambda rng, shape: rng.uniform(-limit, limit, shape).astype(np.float32)


def _constant_rows(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    rows = rng.uniform(-2, 2, (*shape[:-1], 1)).astype(np.float32)
    return np.ascontiguousarray(np.broadcast_to(rows, shape))


# name -> how q, k and v are drawn
DISTRIBUTIONS: dict[str, tuple[Draw, Draw, Draw]] = {
    "normal": (_normal, _normal, _normal),
    "uniform": (_within(1.0), _within(1.0), _within(1.0)),
    "peaky": (_scaled(4.0), _scaled(4.0), _normal),
    "offset": (_scaled(0.05, 8.0), _scaled(0.05, 8.0), _normal),
    "large_q": (_within(100.0), _normal, _normal),
    "large_v": (_normal, _normal, _within(100.0)),
    "large_all": (_within(100.0), _within(100.0), _within(100.0)),
    "constant_rows": (_constant_rows, _constant_rows, _constant_rows),
}


def to_raw(values: NDArray[np.float32], dtype: str) -> Raw:
    """float32 to fp16, or to the bits of bf16; both rounded to nearest even."""
    if dtype == "float16":
        return values.astype(np.float16)
    bits = values.view(np.uint32)
    rounded: Raw = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded


def to_double(raw: Raw, dtype: str) -> Double:
    """The exact values."""
    if dtype == "float16":
        return raw.astype(np.float64)
    return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


@dataclass
class Inputs:
    """Inputs and references of the cases of one group; keys and values are files in ``folder``."""

    folder: Path
    q: Raw
    expected: dict[int, Double]
    slack: dict[int, Double]
    causal: bool
    bytes: int
    seconds: float = field(default=0.0)

    def write_q(self, q_len: int, target: Path) -> None:
        """The first ``q_len`` query rows of every head."""
        np.ascontiguousarray(self.q[:, :q_len]).tofile(target)

    def reference(self, q_len: int) -> tuple[Double, Double]:
        """Expected output of a case, and what its tolerance is widened by."""
        key = q_len if self.causal else max(self.expected)
        return self.expected[key][:, :q_len], self.slack[key][:, :q_len]


def make_inputs(cases: Sequence[Case], folder: Path) -> Inputs:
    """Keys and values into ``folder``/k.bin and v.bin, head by head, so that memory holds one head at a time."""
    case = cases[0]
    lengths = sorted({each.q_len for each in cases})
    rng = np.random.default_rng([case.seed, zlib.crc32(case.model.encode()), case.heads, case.kv_len])
    draw_q, draw_k, draw_v = DISTRIBUTIONS[case.distribution]
    q = to_raw(draw_q(rng, (case.heads, lengths[-1], case.head_dim)), case.dtype)
    wanted = lengths if case.causal else lengths[-1:]
    shapes = {q_len: (case.heads, q_len, case.head_dim_v) for q_len in wanted}
    inputs = Inputs(
        folder,
        q,
        {q_len: np.empty(shape) for q_len, shape in shapes.items()},
        {q_len: np.zeros(shape) for q_len, shape in shapes.items()},
        case.causal,
        case.kv_bytes,
    )
    ratio = case.heads // case.kv_heads
    with open(folder / "k.bin", "wb") as keys, open(folder / "v.bin", "wb") as values:
        for kv_head in range(case.kv_heads):
            k = _write(draw_k(rng, (case.kv_len, case.head_dim)), case.dtype, keys)
            v = _write(draw_v(rng, (case.kv_len, case.head_dim_v)), case.dtype, values)
            for head in range(kv_head * ratio, (kv_head + 1) * ratio):
                for q_len in wanted:
                    rows = to_double(q[head, :q_len], case.dtype)
                    out, slack = _attention(rows, k, v, case)
                    inputs.expected[q_len][head] = out
                    inputs.slack[q_len][head] = slack
    return inputs


def _write(values: NDArray[np.float32], dtype: str, file: IO[bytes]) -> Double:
    raw = to_raw(values, dtype)
    raw.tofile(file)
    return to_double(raw, dtype)


def _attention(q: Double, k: Double, v: Double, case: Case) -> tuple[Double, Double | float]:
    """softmax(q k^T / sqrt(head_dim)) v of one head, and how much further off a result may be.

    Where q, k and v are all large, fp32 itself loses accuracy: 4 * 2^-24 * A * S, with A = max over keys of
    sum |q * k| * scale (bounds the rounding of a logit) and S = sqrt(sum p (v - o)^2) (how the output moves with it).
    """
    scale = 1 / math.sqrt(case.head_dim)
    score = q @ k.T * scale
    if case.causal:
        last = np.arange(len(q))[:, None] + (case.kv_len - len(q))
        score = np.where(np.arange(case.kv_len)[None, :] <= last, score, -np.inf)
    weight = np.exp(score - score.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    out = weight @ v
    if case.distribution != "large_all":
        return out, 0.0
    magnitude = (np.abs(q) @ np.abs(k).T * scale).max(axis=1, keepdims=True)
    spread = np.stack([np.sqrt(weight[row] @ (v - out[row]) ** 2) for row in range(len(q))])
    return out, 4 * 2.0**-24 * magnitude * spread


# ---- comparison -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """``bound`` is the worst error as a part of its tolerance; above 1 is too far."""

    passed: bool
    worst_error: float
    bound: float
    relative_l2: float


def tolerance_of(case: Case, matrix: Matrix) -> Tolerance:
    """The matrix's own for fp16; bf16 results cannot be closer than their rounding."""
    return matrix.tolerance if case.dtype == "float16" else Tolerance(**BFLOAT16_TOLERANCE)


def compare(file: Path, case: Case, inputs: Inputs, tolerance: Tolerance) -> Comparison:
    """The output a program wrote against the reference; anything not finite or of another size fails."""
    raw = np.fromfile(file, np.float16 if case.dtype == "float16" else np.uint16)
    expected, slack = inputs.reference(case.q_len)
    if raw.size != expected.size:
        return Comparison(False, math.inf, math.inf, math.inf)
    got = to_double(raw, case.dtype).reshape(expected.shape)
    if not np.isfinite(got).all():
        return Comparison(False, math.inf, math.inf, math.inf)
    error = np.abs(got - expected)
    bound = float((error / (tolerance.abs + tolerance.rel * np.abs(expected) + slack)).max())
    norm = max(float(np.sqrt((expected**2).sum())), 1e-300)
    l2 = float(np.sqrt((error**2).sum())) / norm
    # The norm has no room for what fp32 loses on large inputs.
    near = l2 <= tolerance.rel_l2 or case.distribution == "large_all"
    return Comparison(bound <= 1 and near, float(error.max()), bound, l2)
