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
from typing import Any

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
#include "smallq_flash_attention_launch.h"
using namespace SmallqFlashAttention;
extern "C" int plan_tiles(const TileProblem* problem, uint64_t limit, int large, TilePlan* plan, UbLayout* layout,
                          uint32_t* bytes) {
    if (!(large ? MakeLargePlan(*problem, limit, plan) : MakePlan(*problem, limit, plan))) return 0;
    *layout = MakeUbLayout(*plan);
    *bytes = UbBytes(*layout);
    return 1;
}
extern "C" int plan_launch(const TileProblem* problem, uint32_t numHeads, uint32_t cores, uint64_t limit,
                           LaunchPlan* launch) {
    return PlanLaunch(*problem, numHeads, cores, limit, launch);
}
extern "C" int force_launch(const TileProblem* problem, uint32_t numHeads, uint32_t cores, const TilePlan* tiles,
                            uint32_t parts, LaunchPlan* launch) {
    launch->tiles = *tiles;
    launch->split = EvenSplit(problem->kvLen, parts);
    return FinishLaunch(*problem, numHeads, cores, launch);
}
extern "C" int deal_items(uint64_t items, uint32_t cores, LaunchPlan* launch) {
    return DealItems(items, cores, launch);
}
extern "C" float attention_scale(uint32_t hdK) { return AttentionScale(hdK); }
extern "C" uint32_t combine_ub_bytes() { return kCombineUbBytes; }
"""


def tiling_fields() -> list[tuple[str, str]]:
    """(C type, name) of every field of the tiling struct, in order."""
    text = (OPERATOR / "op_host" / "smallq_flash_attention_tiling.h").read_text()
    return re.findall(r"TILING_DATA_FIELD_DEF\((\w+), (\w+)\)", text)


class TilingData(ctypes.Structure):
    """The struct the kernel receives."""

    _fields_ = [(name, _C_TYPES[kind]) for kind, name in tiling_fields()]


def _structure(name: str, fields: Sequence[str], kind: Any = ctypes.c_uint32) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": [(field, kind) for field in fields]})


PLAN_FIELDS = (
    "qTile", "blockK", "stepBlocks", "partRows", "castRows", "qGroup", "hdKPad", "hdVPad", "kPitch", "chunked", "wide",
)  # fmt: skip
LAYOUT_FIELDS = (
    "k", "v", "q", "dots", "score", "probBlocks", "v32", "pvAcc", "out", "run", "q32", "k32", "reduced", "stat",
    "statBlocks",
)  # fmt: skip
_LAUNCH_FIELDS = (
    "numSplit", "splitLen", "tilingKey", "numQTile", "usedCores", "itemsPerCore", "itemsTail",
)  # fmt: skip
_OFFSET_FIELDS = ("partOffset", "statOffset", "runOffset", "workspaceBytes")

_TilePlan = _structure("TilePlan", PLAN_FIELDS)
_UbLayout = _structure("UbLayout", LAYOUT_FIELDS)
_TileProblem = _structure("TileProblem", ("hdK", "hdV", "qLen", "kvLen", "wide"))


class _LaunchPlan(ctypes.Structure):
    _fields_ = [
        ("tiles", _TilePlan),
        *((name, ctypes.c_uint32) for name in _LAUNCH_FIELDS),
        *((name, ctypes.c_uint64) for name in _OFFSET_FIELDS),
    ]


@dataclass(frozen=True)
class Plan:
    """What the planner chose: elements and rows in ``tiles``, bytes of each buffer in ``layout``."""

    tiles: dict[str, int]
    layout: dict[str, int]
    ub_bytes: int


@dataclass(frozen=True)
class Launch:
    """Everything that follows from a shape: tiles as in Plan, and how the work is dealt."""

    tiles: dict[str, int]
    values: dict[str, int]

    @property
    def key(self) -> int:
        """The tiling key."""
        return self.values["tilingKey"]

    @property
    def parts(self) -> int:
        """Into how many parts the keys of a head are split."""
        return self.values["numSplit"]


@dataclass(frozen=True)
class Force:
    """What a test takes out of the planner's hands: the number of parts of the keys, the largeD path."""

    parts: int = 0
    large: bool = False


class Planner:
    """The planner headers compiled as C++11 into a shared library."""

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

    def plan(
        self,
        head_dim: int,
        head_dim_v: int,
        q_len: int,
        kv_len: int,
        limit: int = UB_LIMIT,
        *,
        large: bool = False,
        wide: bool = False,
    ) -> Plan | None:
        """The plan of the normal or the largeD path within ``limit`` bytes of UB; None where none fits."""
        problem = _TileProblem(head_dim, head_dim_v, q_len, kv_len, wide)
        tiles, layout, total = _TilePlan(), _UbLayout(), ctypes.c_uint32()
        if not self._library.plan_tiles(
            ctypes.byref(problem),
            ctypes.c_uint64(limit),
            large,
            ctypes.byref(tiles),
            ctypes.byref(layout),
            ctypes.byref(total),
        ):
            return None
        return Plan(
            {name: getattr(tiles, name) for name in PLAN_FIELDS},
            {name: getattr(layout, name) for name in LAYOUT_FIELDS},
            total.value,
        )

    def split(self, items: int, cores: int) -> tuple[int, int, int] | None:
        """(used cores, items a core, cores with one more); None where the counts do not fit the tiling struct."""
        launch = _LaunchPlan()
        if not self._library.deal_items(ctypes.c_uint64(items), cores, ctypes.byref(launch)):
            return None
        return launch.usedCores, launch.itemsPerCore, launch.itemsTail

    def launch(
        self,
        heads: int,
        q_rows: int,
        kv_len: int,
        head_dim: int,
        head_dim_v: int,
        *,
        cores: int = emulator.VECTOR_CORES,
        limit: int = UB_LIMIT,
        wide: bool = False,
        force: Force = Force(),
    ) -> Launch:
        """The launch for ``heads`` K/V heads with ``q_rows`` rows each."""
        problem = _TileProblem(head_dim, head_dim_v, q_rows, kv_len, wide)
        launch = _LaunchPlan()
        arguments = [ctypes.byref(problem), heads, cores]
        if force == Force():
            done = self._library.plan_launch(*arguments, ctypes.c_uint64(limit), ctypes.byref(launch))
        else:
            shape = (head_dim, head_dim_v, q_rows, kv_len, limit)
            plan = None if force.large else self.plan(*shape, wide=wide)
            plan = plan or self.plan(*shape, wide=wide, large=True)
            assert plan is not None, "no plan fits"
            tiles = _TilePlan(**plan.tiles)
            done = self._library.force_launch(
                *arguments, ctypes.byref(tiles), max(force.parts, 1), ctypes.byref(launch)
            )
        assert done, "no plan fits"
        return Launch(
            {name: getattr(launch.tiles, name) for name in PLAN_FIELDS},
            {name: getattr(launch, name) for name in (*_LAUNCH_FIELDS, *_OFFSET_FIELDS)},
        )

    def scale(self, head_dim: int) -> float:
        """The factor of a dot product where a call names none."""
        return float(self._library.attention_scale(head_dim))

    def combine_ub_bytes(self) -> int:
        """Bytes of UB the combination of a KV split takes at most."""
        return int(self._library.combine_ub_bytes())


def tiling_data(planner: Planner, launch: Launch, call: Call) -> TilingData:
    """The struct the tiling function would fill."""
    kv_heads, kv_len, head_dim = call.k.shape
    heads, q_len = call.q.shape[:2]
    values = launch.values
    return TilingData(
        numHeads=kv_heads,
        qLen=heads // kv_heads * q_len,
        kvLen=kv_len,
        hdK=head_dim,
        hdV=call.v.shape[2],
        queryLen=q_len,
        causal=call.causal,
        headsPerLength=0 if call.lengths is None else kv_heads // len(call.lengths),
        scale=call.scale or planner.scale(head_dim),
        wsPartOffset=values["partOffset"],
        wsStatOffset=values["statOffset"],
        wsRunOffset=values["runOffset"],
        **{name: values[name] for name in _LAUNCH_FIELDS if name != "tilingKey"},
        **{name: value for name, value in launch.tiles.items() if name != "chunked"},
    )


@dataclass(frozen=True)
class Call:
    """The arguments of the operator: tensors of [heads, length, head size], float16 or bfloat16 as uint16 bits."""

    q: NDArray[Any]
    k: NDArray[Any]
    v: NDArray[Any]
    scale: float = 0.0
    causal: bool = False
    lengths: NDArray[np.int64] | None = None

    @property
    def wide(self) -> bool:
        """Whether the tensors are bfloat16."""
        return self.q.dtype == np.uint16


@dataclass(frozen=True)
class Outcome:
    """What a launch left: status of sim_launch.h, its message, and the output (rows never written hold NaN)."""

    status: int
    message: str
    output: NDArray[Any]

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
        **options: Any,
    ) -> Outcome:
        """One plain launch; options as of ``call``."""
        return self.call(Call(q, k, v), **options)

    def call(
        self,
        call: Call,
        *,
        cores: int = emulator.VECTOR_CORES,
        limit: int = UB_LIMIT,
        ub_bytes: int = emulator.UB_BYTES,
        strict: bool = True,
        threads: int = 0,
        force: Force = Force(),
    ) -> Outcome:
        """One launch, every tensor in an allocation of exactly its size.

        ``limit`` is what the planner may use of UB, ``ub_bytes`` what the emulated core has.
        """
        heads, q_len = call.q.shape[:2]
        kv_heads, kv_len, head_dim = call.k.shape
        launch = self.planner.launch(
            kv_heads,
            heads // kv_heads * q_len,
            kv_len,
            head_dim,
            call.v.shape[2],
            cores=cores,
            limit=limit,
            wide=call.wide,
            force=force,
        )
        tiling = tiling_data(self.planner, launch, call)
        output = np.full((heads, q_len, call.v.shape[2]), 0xFFFF, np.uint16).view(call.q.dtype)
        arrays = [np.ascontiguousarray(array) for array in (call.q, call.k, call.v)]
        inputs: list[emulator.Gm | None] = [emulator.Gm(array) for array in arrays]
        inputs.append(None if call.lengths is None else emulator.Gm(np.ascontiguousarray(call.lengths)))
        size = launch.values["workspaceBytes"]
        result = self.kernel.run(
            [*inputs, emulator.Gm(output, written=False)],
            block_dim=tiling.usedCores,
            tiling=bytes(tiling),
            tiling_key=launch.key,
            workspace=emulator.unwritten(size, np.uint8) if size else None,
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


# For kernels that run one small case: a change may leave names unused.
FAST_COMPILE = ("-O0", "-Wno-unused", "-Wno-unused-parameter")


def build_operator(
    planner: Planner,
    directory: Path,
    changes: Sequence[tuple[str, str, str]] = (),
    dtype: str = "half",
    extra: Sequence[str] = (),
    only_key: int = 0,
) -> Operator:
    """Compile op_kernel below ``directory`` for one type of q.

    ``changes`` are (file, old text, new text); the old text must occur exactly once. With ``only_key`` the other
    tiling keys are left out, which compiles faster.
    """
    sources = directory / "sources"
    shutil.copytree(OPERATOR / "op_kernel", sources)
    for name, old, new in changes:
        text = (sources / name).read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}"
        (sources / name).write_text(text.replace(old, new))
    if only_key:
        entry = sources / "smallq_flash_attention.cpp"
        branches = re.compile(r"(TILING_KEY_IS\((\d)\)\) \{\n)(.*?;\n)", re.DOTALL)
        kept = branches.sub(lambda m: m[0] if int(m[2]) == only_key else m[1], entry.read_text())
        assert kept.count("&tilingData") == 1
        entry.write_text(kept)
    generated = directory / "generated"
    (generated / "kernel_tiling").mkdir(parents=True)
    (generated / "kernel_tiling" / "kernel_tiling.h").write_text(kernel_tiling_header())
    unit = f'#define DTYPE_Q {dtype}\n#include "smallq_flash_attention.cpp"'
    return Operator(
        planner,
        emulator.compile_kernel(unit, "smallq_flash_attention", directory, include=[sources, generated], extra=extra),
    )
