"""Modelled time of the operator and of its rivals, from the emulator's cost model. Nothing here is measured on an NPU.

Tensors hold zeros: no kernel's instructions depend on values, and untouched zeros cost the host no memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.rivals import RIVALS, Rival, build_rival
from tests.support import emulator
from tests.support.launch_report import ReportingKernel
from tests.support.operator_kernel import Call, Force, Operator, Planner, build_operator

# Beyond this many keys times q rows a rival runs one head on one core; the other heads take the same time.
FULL_ROWS = {"scalar_dot": 160_000, "row_dot": 600_000, "row_dot_tuned": 600_000}


@dataclass(frozen=True)
class Shape:
    """q [heads, q_len, head_dim]; K and V [kv_heads, kv_len, head_dim], kv_heads 0: as many as heads."""

    heads: int
    q_len: int
    kv_len: int
    head_dim: int = 128
    kv_heads: int = 0

    @property
    def kv_bytes(self) -> int:
        """One read of K and V, fp16."""
        return (self.kv_heads or self.heads) * self.kv_len * self.head_dim * 4

    def tensors(self) -> tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.float16]]:
        """q, k and v of zeros."""
        q = np.zeros((self.heads, self.q_len, self.head_dim), np.float16)
        k = np.zeros((self.kv_heads or self.heads, self.kv_len, self.head_dim), np.float16)
        return q, k, np.zeros_like(k)


@dataclass(frozen=True)
class Modelled:
    """One launch as the cost model sees it; times in microseconds."""

    us: float
    kernel_us: float
    launch_us: float
    roofline_us: float  # every tensor byte once at the effective HBM bandwidth, no launch
    bound: str
    parts: int  # of each head's keys
    hbm_bytes: float  # moved by HBM; a partial result that is read back comes from L2
    tensor_bytes: float  # read and written by copies, partial results left out
    extrapolated: bool = False

    @property
    def of_roofline(self) -> float:
        """Kernel time as a multiple of the roofline, launch excluded."""
        return self.kernel_us / self.roofline_us


def _modelled(report: dict[str, Any] | None, parts: int, waves: int = 1, workspace: int = 0) -> Modelled:
    assert report is not None, "the launch failed"
    return Modelled(
        us=report["kernel_us"] * waves + report["launch_us"],
        kernel_us=report["kernel_us"] * waves,
        launch_us=report["launch_us"],
        roofline_us=report["roofline_us"] * waves,
        bound=report["bound"],
        parts=parts,
        hbm_bytes=report["bytes_hbm"],
        tensor_bytes=report["bytes_read"] + report["bytes_written"] - 2 * workspace,
        extrapolated=waves > 1,
    )


class Bench:
    """All kernels, compiled once below ``directory``."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.operator = build_operator(Planner(directory), directory / "operator")
        self._kernel = ReportingKernel(self.operator.kernel.path)
        self._rivals: dict[str, tuple[Rival, ReportingKernel]] = {}
        for name in RIVALS:
            kernel = ReportingKernel(build_rival(name, directory / name).kernel.path)
            self._rivals[name] = (Rival(name, kernel), kernel)

    def this(self, shape: Shape, parts: int = 0) -> Modelled:
        """The operator as planned, or with each head's keys in ``parts`` parts."""
        q, k, v = shape.tensors()
        call = Call(q, k, v)
        force = Force(parts=parts)
        outcome = Operator(self.operator.planner, self._kernel).call(call, strict=False, force=force)
        assert outcome.status == emulator.SIM_OK, outcome.message
        heads = k.shape[0]
        rows = shape.heads // heads * shape.q_len
        launch = self.operator.planner.launch(heads, rows, shape.kv_len, shape.head_dim, shape.head_dim, force=force)
        return _modelled(self._kernel.report, launch.parts, workspace=launch.values["workspaceBytes"])

    def rival(self, name: str, shape: Shape) -> Modelled:
        """A rival on all heads; for large shapes one head on one core, times the heads of the busiest core.

        The short cut favours the rival: its one core has the chip's bandwidth to itself.
        """
        rival, kernel = self._rivals[name]
        rows = shape.heads * shape.q_len * shape.kv_len
        if rows <= FULL_ROWS[name]:
            outcome = rival.run(*shape.tensors(), strict=False)
            assert outcome.status == emulator.SIM_OK, outcome.message
            return _modelled(kernel.report, 1)
        outcome = rival.run(*Shape(1, shape.q_len, shape.kv_len, shape.head_dim).tensors(), strict=False)
        assert outcome.status == emulator.SIM_OK, outcome.message
        result = _modelled(kernel.report, 1, math.ceil(shape.heads / emulator.VECTOR_CORES))
        return replace(result, extrapolated=True)
