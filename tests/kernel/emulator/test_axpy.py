"""Axpy: dst += src * scalar in its three pairs of types, by element count and by repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support import emulator

# One worker compiles for all of them.
pytestmark = pytest.mark.xdist_group("axpy")

SOURCE = """
#include "kernel_operator.h"
using namespace AscendC;
template <typename D, typename S>
__aicore__ inline void Run(GM_ADDR x, GM_ADDR y, bool counted) {
    constexpr uint32_t count = 200, repeats = 3, lanes = 50;
    GlobalTensor<D> yGm;
    GlobalTensor<S> xGm;
    xGm.SetGlobalBuffer((__gm__ S*)x, 256);
    yGm.SetGlobalBuffer((__gm__ D*)y, 256);
    TPipe pipe;
    TQue<TPosition::VECIN, 1> xQue, yQue;
    TQue<TPosition::VECOUT, 1> outQue;
    pipe.InitBuffer(xQue, 1, 1024);
    pipe.InitBuffer(yQue, 1, 1024);
    pipe.InitBuffer(outQue, 1, 1024);
    LocalTensor<S> xs = xQue.AllocTensor<S>();
    DataCopy(xs, xGm, 256);
    xQue.EnQue(xs);
    LocalTensor<D> ys = yQue.AllocTensor<D>();
    DataCopy(ys, yGm, 256);
    yQue.EnQue(ys);
    xs = xQue.DeQue<S>();
    ys = yQue.DeQue<D>();
    LocalTensor<D> out = outQue.AllocTensor<D>();
    const S scalar = static_cast<S>(1.5f);
    if (counted) {
        Axpy<D, S>(ys, xs, scalar, static_cast<int32_t>(count));
    } else {
        const uint8_t step = sizeof(D) > sizeof(S) ? 4 : 8;
        Axpy<D, S>(ys, xs, scalar, lanes, repeats, UnaryRepeatParams(1, 1, 8, step));
    }
    PipeBarrier<PIPE_V>();
    Adds<D>(out, ys, static_cast<D>(0.0f), 256);
    outQue.EnQue(out);
    out = outQue.DeQue<D>();
    DataCopy(yGm, out, 256);
    outQue.FreeTensor(out);
    xQue.FreeTensor(xs);
    yQue.FreeTensor(ys);
}
extern "C" __global__ __aicore__ void axpy(GM_ADDR x, GM_ADDR y, GM_ADDR workspace, GM_ADDR tiling) {
    (void)workspace;
    (void)tiling;
    if (TILING_KEY_IS(0)) Run<float, float>(x, y, true);
    if (TILING_KEY_IS(1)) Run<float, half>(x, y, true);
    if (TILING_KEY_IS(2)) Run<half, half>(x, y, true);
    if (TILING_KEY_IS(3)) Run<float, float>(x, y, false);
    if (TILING_KEY_IS(4)) Run<float, half>(x, y, false);
}
"""


@pytest.fixture(scope="module")
def axpy(tmp_path_factory: pytest.TempPathFactory) -> emulator.Kernel:
    return emulator.compile_kernel(SOURCE, "axpy", tmp_path_factory.mktemp("axpy"))


@pytest.mark.parametrize(
    ("key", "dst", "src", "touched"),
    [
        (0, np.float32, np.float32, range(200)),
        (1, np.float32, np.float16, range(200)),
        (2, np.float16, np.float16, range(200)),
        (3, np.float32, np.float32, [64 * repeat + lane for repeat in range(3) for lane in range(50)]),
        (4, np.float32, np.float16, [64 * repeat + lane for repeat in range(3) for lane in range(50)]),
    ],
)
def test_adds_the_scaled_source(axpy: emulator.Kernel, key: int, dst: Any, src: Any, touched: Any) -> None:
    rng = np.random.default_rng(key)
    x, y = rng.standard_normal(256).astype(src), rng.standard_normal(256).astype(dst)
    expected = y.astype(np.float32)
    # float * 1.5 and the sum each round once; half results round once more
    expected[touched] = (x.astype(np.float32) * np.float32(1.5) + expected)[touched]
    result = axpy.run([emulator.Gm(x), emulator.Gm(y)], tiling_key=key)
    assert (result.status, result.message) == (emulator.SIM_OK, "")
    np.testing.assert_array_equal(y, expected.astype(dst))
