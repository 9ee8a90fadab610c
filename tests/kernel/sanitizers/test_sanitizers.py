"""The sanitizers report what they should, and nothing about the operator. The long pass is tests/kernel/full."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.sanitizers.cases import QUICK, check
from tests.support import emulator
from tests.support.operator_kernel import Operator
from tests.support.sanitized import SanitizerReport, compile_sanitized

pytestmark = pytest.mark.xdist_group("sanitizers")

# What each line does wrong, chosen by the tiling key so that one compilation serves all.
BROKEN = """
#include "kernel_operator.h"
extern "C" __global__ __aicore__ void broken(GM_ADDR x, GM_ADDR o, GM_ADDR workspace, GM_ADDR tiling) {
    volatile __gm__ int32_t* in = (volatile __gm__ int32_t*)x;
    volatile __gm__ int32_t* out = (volatile __gm__ int32_t*)o;
    out[0] = in[0];
    if (TILING_KEY_IS(1)) {
        out[8] = in[0];
    } else if (TILING_KEY_IS(2)) {
        out[0] = in[8];
    } else if (TILING_KEY_IS(3)) {
        out[0] = in[0] + in[1];
    } else if (TILING_KEY_IS(4)) {
        out[0] = in[1] << in[2];
    } else if (TILING_KEY_IS(5)) {
        out[0] = *(volatile __gm__ int32_t*)(x + 2);
    } else if (TILING_KEY_IS(6)) {
        out[0] = ((volatile __gm__ int32_t*)workspace)[4];
    } else if (TILING_KEY_IS(7)) {
        out[0] = ((volatile __gm__ int32_t*)tiling)[2];
    }
}
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> emulator.Kernel:
    return compile_sanitized(BROKEN, "broken", tmp_path_factory.mktemp("broken"))


def launch(kernel: emulator.Kernel, key: int) -> tuple[emulator.Result, np.int32]:
    values = emulator.Gm(np.array([2**31 - 1, 1, 40, 0, 0, 0, 0, 0], np.int32))
    output = emulator.unwritten(8, np.int32)
    result = kernel.run(
        [values, output], tiling=bytes(8), tiling_key=key, workspace=emulator.unwritten(16, np.uint8), strict=False
    )
    return result, output.array[0]


def test_clean_kernel_is_not_reported(broken: emulator.Kernel) -> None:
    result, first = launch(broken, 0)
    assert (result.status, result.message, first) == (emulator.SIM_OK, "", 2**31 - 1)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (1, "heap-buffer-overflow"), (2, "heap-buffer-overflow"), (3, "signed integer overflow"),
        (4, "shift exponent 40 is too large"), (5, "misaligned address"), (6, "heap-buffer-overflow"),
        (7, "heap-buffer-overflow"),
    ],
    ids=["output", "input", "overflow", "shift", "misaligned", "workspace", "tiling"],
)  # fmt: skip
def test_broken_kernel_is_reported(broken: emulator.Kernel, key: int, words: str) -> None:
    with pytest.raises(SanitizerReport, match=words) as report:
        launch(broken, key)
    assert "unit.cpp" in str(report.value), "the report names the kernel's source"


def test_driver_refuses_a_file_that_is_too_short(broken: emulator.Kernel, tmp_path: Path) -> None:
    (tmp_path / "launch").write_bytes(bytes(20))
    done = subprocess.run(
        [broken.path, tmp_path / "launch", tmp_path / "result"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "driver: the launch file is too short\n")


def test_operator_is_clean(sanitized: Operator) -> None:
    """Every path, sanitized, right to float64."""
    for row in QUICK:
        check(sanitized, row)
