"""The operator without a toolkit: its planner as a library, its kernel compiled against the emulator and launched.

The tiling struct is read from the operator's tiling header, so this cannot drift from what the build generates.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.support import emulator

CHECKOUT = Path(__file__).resolve().parents[2]
OPERATOR = CHECKOUT / "src_op" / "smallq_flash_attention"
UB_LIMIT = 184 * 1024  # what the planner may use of UB on an Ascend 910B3

_C_TYPES: dict[str, type[ctypes.c_uint32] | type[ctypes.c_uint64] | type[ctypes.c_float]] = {
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "float": ctypes.c_float,
}

_PLANNER_SOURCE = """
#include "smallq_flash_attention_planner.h"
using namespace SmallqFlashAttention;
extern "C" int plan_tiles(uint32_t hdK, uint32_t hdV, uint32_t qLen, uint32_t kvLen, uint64_t limit, TilePlan* plan,
                          UbLayout* layout, uint32_t* bytes) {
    if (!MakePlan(hdK, hdV, qLen, kvLen, limit, plan)) return 0;
    *layout = MakeUbLayout(*plan);
    *bytes = UbBytes(*layout);
    return 1;
}
extern "C" int split_work(uint64_t items, uint32_t cores, WorkSplit* split) { return SplitWork(items, cores, split); }
extern "C" float attention_scale(uint32_t hdK) { return AttentionScale(hdK); }
"""


def tiling_fields() -> list[tuple[str, str]]:
    """(C type, name) of every field of the tiling struct, in order."""
    text = (OPERATOR / "op_host" / "smallq_flash_attention_tiling.h").read_text()
    return re.findall(r"TILING_DATA_FIELD_DEF\((\w+), (\w+)\)", text)


class TilingData(ctypes.Structure):
    """The struct the kernel receives."""

    _fields_ = [(name, _C_TYPES[kind]) for kind, name in tiling_fields()]


def _structure(name: str, fields: Sequence[str]) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": [(field, ctypes.c_uint32) for field in fields]})


PLAN_FIELDS = ("qTile", "blockK", "stepBlocks", "partRows", "castRows", "qGroup", "hdKPad", "hdVPad", "kPitch")
LAYOUT_FIELDS = ("k", "v", "q", "dots", "score", "probBlocks", "v32", "pvAcc", "out", "reduced", "stat", "statBlocks")


@dataclass(frozen=True)
class Plan:
    """What the planner chose: elements and rows in ``tiles``, bytes of each buffer in ``layout``."""

    tiles: dict[str, int]
    layout: dict[str, int]
    ub_bytes: int


class Planner:
    """The planner header compiled as C++11 into a shared library."""

    def __init__(self, directory: Path) -> None:
        source = directory / "planner.cpp"
        source.write_text(_PLANNER_SOURCE)
        library = directory / "libplanner.so"
        options = ["-std=c++11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wshadow"]
        command = ["g++", *options, f"-I{OPERATOR / 'op_host'}", str(source), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        self._library = ctypes.CDLL(str(library))
        self._library.attention_scale.restype = ctypes.c_float

    def plan(self, head_dim: int, head_dim_v: int, q_len: int, kv_len: int, limit: int = UB_LIMIT) -> Plan | None:
        """The plan within ``limit`` bytes of UB; None where none fits."""
        tiles, layout = _structure("Tiles", PLAN_FIELDS)(), _structure("Layout", LAYOUT_FIELDS)()
        total = ctypes.c_uint32()
        found = self._library.plan_tiles(
            head_dim,
            head_dim_v,
            q_len,
            kv_len,
            ctypes.c_uint64(limit),
            ctypes.byref(tiles),
            ctypes.byref(layout),
            ctypes.byref(total),
        )
        if not found:
            return None
        return Plan(
            {name: getattr(tiles, name) for name in PLAN_FIELDS},
            {name: getattr(layout, name) for name in LAYOUT_FIELDS},
            total.value,
        )

    def split(self, items: int, cores: int) -> tuple[int, int, int] | None:
        """(used cores, items a core, cores with one more); None where the counts do not fit the tiling struct."""
        split = _structure("Split", ("used", "per_core", "tail"))()
        if not self._library.split_work(ctypes.c_uint64(items), cores, ctypes.byref(split)):
            return None
        return split.used, split.per_core, split.tail

    def tiling(
        self,
        q: NDArray[np.float16],
        k: NDArray[np.float16],
        v: NDArray[np.float16],
        *,
        cores: int = emulator.VECTOR_CORES,
        limit: int = UB_LIMIT,
    ) -> TilingData:
        """The struct the tiling function would fill for these inputs."""
        heads, q_len, head_dim = q.shape
        kv_len, head_dim_v = k.shape[1], v.shape[2]
        plan = self.plan(head_dim, head_dim_v, q_len, kv_len, limit)
        assert plan is not None, "no plan fits"
        tiles_per_head = -(-q_len // plan.tiles["qTile"])
        split = self.split(heads * tiles_per_head, cores)
        assert split is not None
        return TilingData(
            numHeads=heads,
            qLen=q_len,
            kvLen=kv_len,
            hdK=head_dim,
            hdV=head_dim_v,
            numQTile=tiles_per_head,
            numSplit=1,
            splitLen=-(-kv_len // 64) * 64,
            usedCores=split[0],
            itemsPerCore=split[1],
            itemsTail=split[2],
            path=1,
            scale=self._library.attention_scale(head_dim),
            **plan.tiles,
        )


@dataclass(frozen=True)
class Outcome:
    """What a launch left: status of sim_launch.h, its message, and the output (rows never written hold NaN)."""

    status: int
    message: str
    output: NDArray[np.float16]

    @property
    def codes(self) -> set[str]:
        """Codes of the emulator's findings."""
        return {line.split(":", 1)[0] for line in self.message.splitlines()}


class Operator:
    """A compiled kernel with the planner that feeds it."""

    def __init__(self, planner: Planner, kernel: emulator.Kernel) -> None:
        self.planner, self.kernel = planner, kernel

    def run(
        self,
        q: NDArray[np.float16],
        k: NDArray[np.float16],
        v: NDArray[np.float16],
        *,
        cores: int = emulator.VECTOR_CORES,
        limit: int = UB_LIMIT,
        ub_bytes: int = emulator.UB_BYTES,
        strict: bool = True,
        threads: int = 0,
    ) -> Outcome:
        """One launch, every tensor in an allocation of exactly its size.

        ``limit`` is what the planner may use of UB, ``ub_bytes`` what the emulated core has.
        """
        tiling = self.planner.tiling(q, k, v, cores=cores, limit=limit)
        output = np.full((q.shape[0], q.shape[1], v.shape[2]), np.nan, np.float16)
        inputs = [emulator.Gm(np.ascontiguousarray(array)) for array in (q, k, v)]
        result = self.kernel.run(
            [*inputs, emulator.Gm(output, written=False)],
            block_dim=tiling.usedCores,
            tiling=bytes(tiling),
            tiling_key=1,
            strict=strict,
            threads=threads,
            cores=cores,
            ub_bytes=ub_bytes,
        )
        return Outcome(result.status, result.message, output)


def kernel_tiling_header() -> str:
    """What the build generates from the tiling struct: the plain struct and GET_TILING_DATA."""
    fields = "".join(f"    {kind} {name} = 0;\n" for kind, name in tiling_fields())
    return (
        "#pragma once\n"
        '#include "kernel_operator.h"\n'
        f"struct SmallqFlashAttentionTilingData {{\n{fields}}};\n"
        "#define GET_TILING_DATA(data, argument) \\\n"
        "    SmallqFlashAttentionTilingData data; \\\n"
        "    AscendC::SimCopyTiling(&data, argument, sizeof(data))\n"
    )


def build_operator(planner: Planner, directory: Path, changes: Sequence[tuple[str, str, str]] = ()) -> Operator:
    """Compile op_kernel below ``directory``.

    ``changes`` are (file, old text, new text); the old text must occur exactly once.
    """
    sources = directory / "sources"
    shutil.copytree(OPERATOR / "op_kernel", sources)
    for name, old, new in changes:
        text = (sources / name).read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}"
        (sources / name).write_text(text.replace(old, new))
    generated = directory / "generated"
    (generated / "kernel_tiling").mkdir(parents=True)
    (generated / "kernel_tiling" / "kernel_tiling.h").write_text(kernel_tiling_header())
    unit = '#include "smallq_flash_attention.cpp"'
    return Operator(
        planner, emulator.compile_kernel(unit, "smallq_flash_attention", directory, include=[sources, generated])
    )
