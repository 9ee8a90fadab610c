"""The rival kernels: compiled against the emulator and launched with the operator's tensors."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support import emulator
from tests.support.operator_kernel import UB_LIMIT, Outcome

SOURCES = Path(__file__).resolve().parent / "kernels"
# name -> (source, entry, what is defined for it)
RIVALS = {
    "scalar_dot": ("scalar_dot.cpp", "scalar_dot", ""),
    "row_dot": ("row_dot.cpp", "row_dot", ""),
    "row_dot_tuned": ("row_dot.cpp", "row_dot", "#define ROW_DOT_TUNED\n"),
}
MAX_ROWS = 16  # kMaxRows of rival.h

_FIELDS = ("numHeads", "qLen", "kvLen", "hdK", "hdV", "blockK")


class RivalTiling(ctypes.Structure):
    """The struct a rival receives."""

    _fields_ = [*((name, ctypes.c_uint32) for name in _FIELDS), ("scale", ctypes.c_float)]


def tiling_header() -> str:
    """The kernel's view of RivalTiling, as a build would generate it."""
    fields = "".join(f"    uint32_t {name} = 0;\n" for name in _FIELDS)
    return (
        "#pragma once\n"
        '#include "kernel_operator.h"\n'
        f"struct RivalTilingData {{\n{fields}    float scale = 0;\n}};\n"
        "#define GET_TILING_DATA(data, argument) \\\n"
        "    RivalTilingData data; \\\n"
        "    AscendC::SimCopyTiling(&data, argument, sizeof(data))\n"
    )


def block_keys(q_len: int, head_dim: int, head_dim_v: int) -> int:
    """Keys of one K/V block: 64, halved until two blocks of each and a rival's other buffers fit UB."""
    k_pitch, v_pitch = (-(-size // 16) * 16 for size in (head_dim, head_dim_v))
    rows = q_len * (4 * (k_pitch + 64) * 2 + (2 + 2 + 4) * (k_pitch + v_pitch)) + 8 * (k_pitch + v_pitch) + 1024
    keys = 64
    while keys > 1 and keys * 4 * (k_pitch + v_pitch) + rows + q_len * (keys + 8) * 4 > UB_LIMIT:
        keys //= 2
    return keys


class Rival:
    """One compiled rival."""

    def __init__(self, name: str, kernel: emulator.Kernel) -> None:
        self.name, self.kernel = name, kernel

    def tiling(self, heads: int, q_len: int, kv_len: int, head_dim: int, head_dim_v: int) -> RivalTiling:
        """What a tiling function would fill in."""
        assert q_len <= MAX_ROWS, f"a rival takes at most {MAX_ROWS} q rows"
        return RivalTiling(
            numHeads=heads,
            qLen=q_len,
            kvLen=kv_len,
            hdK=head_dim,
            hdV=head_dim_v,
            blockK=block_keys(q_len, head_dim, head_dim_v),
            scale=1 / head_dim**0.5,
        )

    def run(
        self,
        q: NDArray[np.float16],
        k: NDArray[np.float16],
        v: NDArray[np.float16],
        *,
        strict: bool = True,
        threads: int = 0,
    ) -> Outcome:
        """One launch with one block a head, at most one a vector core."""
        heads, q_len, head_dim = q.shape
        tiling = self.tiling(heads, q_len, k.shape[1], head_dim, v.shape[2])
        output: NDArray[Any] = np.full((heads, q_len, v.shape[2]), np.nan, np.float16)
        result = self.kernel.run(
            [*(emulator.Gm(np.ascontiguousarray(array)) for array in (q, k, v)), emulator.Gm(output, written=False)],
            block_dim=min(heads, emulator.VECTOR_CORES),
            tiling=bytes(tiling),
            strict=strict,
            threads=threads,
        )
        return Outcome(result.status, result.message, output)


def build_rival(name: str, directory: Path) -> Rival:
    """Compile a rival below ``directory``."""
    generated = directory / "generated" / "kernel_tiling"
    generated.mkdir(parents=True, exist_ok=True)
    (generated / "kernel_tiling.h").write_text(tiling_header())
    source, entry, defined = RIVALS[name]
    unit = f'{defined}#include "{source}"'
    return Rival(name, emulator.compile_kernel(unit, entry, directory, include=[SOURCES, generated.parent]))
