"""The operator without a toolkit: its planner as a library, its kernel compiled against the emulator and launched.

The kernel is compiled exactly as the simulated toolkit's kernel compiler does it; the tiling struct is read from the
operator's tiling header, so the two cannot drift apart.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHECKOUT = Path(__file__).resolve().parents[2]
OPERATOR = CHECKOUT / "src_op" / "smallq_flash_attention"
NATIVE = CHECKOUT / "smallq_deploy" / "sandbox" / "native"
CORES = 40  # vector cores of an Ascend 910B3
UB_BYTES = 196352  # unified buffer a kernel may use there
UB_LIMIT = 184 * 1024  # what the planner may use of it
OK, FINDING, HANG, BAD_LAUNCH = range(4)

_WARNINGS = ("-Wall", "-Wextra", "-Werror")
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

_KERNEL_SOURCE = """
#include "smallq_flash_attention.cpp"
#include "sim_kernel_entry.h"
SIM_EXPORT_KERNEL(smallq_flash_attention)
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
        _compile(source, library, ["-std=c++11", *_WARNINGS, "-Wshadow"], [OPERATOR / "op_host"])
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
        cores: int = CORES,
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


class _Region(ctypes.Structure):
    _fields_ = [("base", ctypes.c_uint64), ("size", ctypes.c_uint64), ("shadow", ctypes.c_void_p)]


class _Launch(ctypes.Structure):
    """SimLaunch of native/common/sim_launch.h."""

    _fields_ = [
        ("abi", ctypes.c_uint32),
        ("blockDim", ctypes.c_uint32),
        ("tilingKey", ctypes.c_uint64),
        ("tilingData", ctypes.c_void_p),
        ("tilingSize", ctypes.c_uint64),
        ("gmArgs", ctypes.POINTER(ctypes.c_uint64)),
        ("gmArgCount", ctypes.c_uint32),
        ("workspace", ctypes.c_uint64),
        ("regions", ctypes.POINTER(_Region)),
        ("regionCount", ctypes.c_uint32),
        ("coreNumAiv", ctypes.c_uint32),
        ("ubSize", ctypes.c_uint64),
        ("threads", ctypes.c_uint32),
        ("strict", ctypes.c_uint32),
        ("message", ctypes.c_char_p),
        ("messageCapacity", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("report", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class Outcome:
    """What a launch left: status of sim_launch.h, its message, and the output (not written rows hold NaN)."""

    status: int
    message: str
    output: NDArray[np.float16]


class Kernel:
    """A compiled kernel object."""

    def __init__(self, path: Path) -> None:
        self._launch = ctypes.CDLL(str(path)).smallq_sim_kernel_launch

    def run(
        self,
        planner: Planner,
        q: NDArray[np.float16],
        k: NDArray[np.float16],
        v: NDArray[np.float16],
        *,
        cores: int = CORES,
        limit: int = UB_LIMIT,
        strict: bool = True,
        threads: int = 0,
        change: Callable[[TilingData], None] = lambda tiling: None,
    ) -> Outcome:
        """One launch on q, k and v, each in an allocation of exactly its size; ``change`` may alter the tiling."""
        tiling = planner.tiling(q, k, v, cores=cores, limit=limit)
        change(tiling)
        output = np.full((q.shape[0], q.shape[1], v.shape[2]), np.nan, np.float16)
        arrays = [np.ascontiguousarray(q), np.ascontiguousarray(k), np.ascontiguousarray(v), output]
        shadows = [np.full(array.nbytes, int(array is not output), np.uint8) for array in arrays]
        order = sorted(range(4), key=lambda i: arrays[i].ctypes.data)
        regions = (_Region * 4)(
            *[_Region(arrays[i].ctypes.data, arrays[i].nbytes, shadows[i].ctypes.data) for i in order]
        )
        message = ctypes.create_string_buffer(1 << 16)
        launch = _Launch(
            abi=1,
            blockDim=tiling.usedCores,
            tilingKey=1,
            tilingData=ctypes.addressof(tiling),
            tilingSize=ctypes.sizeof(tiling),
            gmArgs=(ctypes.c_uint64 * 4)(*[array.ctypes.data for array in arrays]),
            gmArgCount=4,
            regions=regions,
            regionCount=4,
            coreNumAiv=cores,
            ubSize=UB_BYTES,
            threads=threads,
            strict=int(strict),
            message=ctypes.cast(message, ctypes.c_char_p),
            messageCapacity=len(message),
        )
        status = self._launch(ctypes.byref(launch))
        return Outcome(status, message.value.decode(errors="replace"), output)


def _compile(source: Path, target: Path, options: Sequence[str], includes: Sequence[Path]) -> None:
    command = ["g++", "-O2", "-fPIC", "-shared", *options, *[f"-I{path}" for path in includes]]
    command += [str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-4000:]}"


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


def build_kernel(directory: Path, changes: Sequence[tuple[str, str, str]] = ()) -> Path:
    """Compile op_kernel below ``directory`` and return the object.

    ``changes`` are (file, old text, new text); the old text must occur exactly once.
    """
    sources = directory / "sources"
    shutil.copytree(OPERATOR / "op_kernel", sources)
    for name, old, new in changes:
        text = (sources / name).read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}"
        (sources / name).write_text(text.replace(old, new))
    generated = directory / "generated" / "kernel_tiling"
    generated.mkdir(parents=True)
    (generated / "kernel_tiling.h").write_text(kernel_tiling_header())
    unit = directory / "unit.cpp"
    unit.write_text(_KERNEL_SOURCE)
    target = directory / "kernel.o"
    options = ["-std=c++17", "-fno-fast-math", "-ffp-contract=off", "-fvisibility=hidden", *_WARNINGS]
    includes = [sources, generated.parent, NATIVE / "emulator" / "include", NATIVE / "common"]
    _compile(unit, target, options, includes)
    return target
