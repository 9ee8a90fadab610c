"""The cost model: known amounts of work, against the published figures its constants were derived from."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.emulator import SIM_OK, Gm, Kernel
from tests.support.launch_report import ReportingKernel

# One worker compiles for all of them.
pytestmark = pytest.mark.xdist_group("emulator-cost")

ADD, CONFLICT, ONE_BUFFER, TWO_BUFFERS, SYNC, SCALAR = range(1, 7)
HBM, CORE = 729.0, 67.0  # bytes a cycle: of the chip, of one core


@pytest.fixture(scope="module")
def costs(kernel: Callable[[str], Kernel]) -> ReportingKernel:
    return ReportingKernel(kernel("costs").path)


def report(costs: ReportingKernel, kind: int, times: int, **options: Any) -> dict[str, Any]:
    """One launch; bytes of a copy, distance of the blocks' inputs in halfs and passes over them as options."""
    size, apart, passes = (options.pop(name, default) for name, default in (("size", 256), ("apart", 0), ("passes", 1)))
    blocks = options.get("block_dim", 1)
    data = Gm(np.zeros((blocks - 1) * apart + max(times * size // 2, 1), np.float16))
    tiling = struct.pack("<IIII", times, size, apart, passes)
    result = costs.run([data], tiling=tiling, tiling_key=kind, strict=False, **options)
    assert result.status == SIM_OK, result.message
    assert costs.report is not None
    return costs.report


@pytest.mark.parametrize(("kind", "published"), [(ADD, 149.6), (CONFLICT, 278.5)])
def test_add_of_127_repeats(costs: ReportingKernel, kind: int, published: float) -> None:
    """Measured by the vendor on a 910B; the model may be 2 % off."""
    cycles = (report(costs, kind, 30)["cycles"] - report(costs, kind, 10)["cycles"]) / 20
    assert cycles == pytest.approx(published, rel=0.02)


def test_scalar_accumulation(costs: ReportingKernel) -> None:
    """Two loads, an addition and a store: 34 cycles."""
    more, less = report(costs, SCALAR, 300), report(costs, SCALAR, 100)
    assert (more["cycles"] - less["cycles"]) / 200 == pytest.approx(34)
    assert more["bound"] == "scalar"


def test_copies_that_nothing_hides(costs: ReportingKernel) -> None:
    """A published sample moves 43 GB/s a core with copies of 8 KiB and no overlap (kernel time, at 1.8 GHz)."""
    cycles = (
        report(costs, ONE_BUFFER, 60, size=8192)["cycles"] - report(costs, ONE_BUFFER, 20, size=8192)["cycles"]
    ) / 40
    assert cycles > 230 + 8192 / CORE
    assert 8192 / cycles * 1.8 == pytest.approx(43, rel=0.15)  # GB/s


def test_two_buffers_hide_what_one_does_not(costs: ReportingKernel) -> None:
    one = report(costs, ONE_BUFFER, 100, size=16384)["cycles"]
    two = report(costs, TWO_BUFFERS, 100, size=16384)["cycles"]
    assert 100 * 16384 / CORE < two < 0.7 * one


@pytest.mark.parametrize("blocks", [1, 5, 11, 20, 40])
def test_all_cores_share_the_memory(costs: ReportingKernel, blocks: int) -> None:
    """A stream cannot be faster than the roofline or than its cores, and comes within 6 % of it."""
    size, times = 32768, 20
    got = report(costs, TWO_BUFFERS, times, size=size, apart=size // 2 * times, block_dim=blocks)
    total = blocks * size * times
    least = max(total / HBM, size * times / CORE)
    assert least <= got["cycles"] <= 1.06 * least
    assert got["bytes_read"] == got["bytes_hbm"] == got["roofline_bytes"] == total
    assert got["bound"] == ("HBM" if blocks > 10 else "copy in of one core")
    assert got["ratio_to_roofline"] >= 1


def test_bytes_read_again_come_from_l2(costs: ReportingKernel) -> None:
    size, times = 16384, 20
    options: dict[str, Any] = {"size": size, "apart": size // 2 * times, "block_dim": 40}
    once = report(costs, TWO_BUFFERS, times, passes=1, **options)
    twice = report(costs, TWO_BUFFERS, times, passes=2, **options)
    assert twice["bytes_l2"] == twice["bytes_hbm"] == once["bytes_hbm"]
    assert twice["cycles"] < 1.5 * once["cycles"]
    shared = report(costs, TWO_BUFFERS, times, size=size, block_dim=40)
    assert shared["roofline_bytes"] == size * times and shared["bytes_l2"] == 39 * size * times


def test_syncall_and_launch(costs: ReportingKernel) -> None:
    two, none = report(costs, SYNC, 2, block_dim=40), report(costs, SYNC, 0, block_dim=40)
    assert two["kernel_us"] - none["kernel_us"] == pytest.approx(4.0)
    assert two["us"] == pytest.approx(two["kernel_us"] + 6.0)
    assert len(two["phases"]) == 3


def test_more_blocks_than_cores_take_turns(costs: ReportingKernel) -> None:
    once = report(costs, ADD, 50, block_dim=4, cores=4)["cycles"]
    assert report(costs, ADD, 50, block_dim=9, cores=4)["cycles"] == pytest.approx(3 * once)


def test_nothing_depends_on_host_threads(costs: ReportingKernel) -> None:
    options: dict[str, Any] = {"size": 12288, "apart": 100_000, "passes": 2, "block_dim": 40}
    reports = [report(costs, TWO_BUFFERS, 9, threads=threads, **options) for threads in (1, 2, 7)]
    assert reports[0] == reports[1] == reports[2]
    assert reports[0]["label"] == "modelled, not measured"


def test_a_failed_launch_has_no_report(costs: ReportingKernel) -> None:
    result = costs.run([Gm(np.zeros(8, np.float16))], tiling=struct.pack("<IIII", 1, 256, 0, 1), tiling_key=ONE_BUFFER)
    assert result.status != SIM_OK and costs.report is None
