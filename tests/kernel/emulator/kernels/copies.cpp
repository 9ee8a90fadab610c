// SPDX-License-Identifier: Apache-2.0
// One copy a launch, described by the tiling; the whole UB image goes back to GM so that a test sees every byte of it.
// Key 1: GM -> UB padded, 2: UB -> GM padded, 3: GM -> UB in blocks, 4: UB -> GM in blocks, 5: a ring of two buffers.
#include "kernel_operator.h"

using namespace AscendC;

struct CopyRequest {
    uint32_t count, length, srcStride, dstStride;
    uint32_t isPad, left, right;
    float value;
    uint32_t gmOffset;  // elements
};

constexpr uint32_t kImage = 2048;  // halfs

extern "C" __global__ __aicore__ void copies(GM_ADDR gmIn, GM_ADDR gmOut, GM_ADDR workspace, GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    (void)workspace;
    CopyRequest r;
    SimCopyTiling(&r, tiling, sizeof(r));
    GlobalTensor<half> in, out;
    in.SetGlobalBuffer((__gm__ half*)gmIn, kImage);
    out.SetGlobalBuffer((__gm__ half*)gmOut, kImage);
    in.SetL2CacheHint(CacheMode::CACHE_MODE_DISABLE);
    const DataCopyExtParams bytes((uint16_t)r.count, r.length, r.srcStride, r.dstStride, 0);
    const DataCopyParams blocks((uint16_t)r.count, (uint16_t)r.length, (uint16_t)r.srcStride, (uint16_t)r.dstStride);
    TPipe pipe;
    if (TILING_KEY_IS(5)) {
        // Rows of 64 halfs through two buffers, the next load issued before the last one is used.
        TQue<QuePosition::VECIN, 2> que;
        pipe.InitBuffer(que, 2, 128);
        const uint32_t rows = r.count;
        for (uint32_t i = 0; i < rows + 1; ++i) {
            if (i < rows) {
                LocalTensor<half> x = que.AllocTensor<half>();
                DataCopy(x, in[i * 64], 64);
                que.EnQue(x);
            }
            if (i > 0) {
                LocalTensor<half> x = que.DeQue<half>();
                PipeBarrier<PIPE_ALL>();  // a VECIN queue orders MTE2 and V; here it feeds MTE3
                DataCopy(out[(i - 1) * 64], x, 64);
                PipeBarrier<PIPE_ALL>();
                que.FreeTensor(x);
            }
        }
        return;
    }
    TBuf<QuePosition::VECIN> buf;
    pipe.InitBuffer(buf, kImage * sizeof(half));
    LocalTensor<half> ub = buf.Get<half>();
    if (TILING_KEY_IS(1) || TILING_KEY_IS(3)) {
        Duplicate(ub, half(-1), kImage);
        PipeBarrier<PIPE_ALL>();
        if (TILING_KEY_IS(1)) {
            DataCopyPad(ub, in[r.gmOffset], bytes,
                        DataCopyPadExtParams<half>(r.isPad != 0, (uint8_t)r.left, (uint8_t)r.right, half(r.value)));
        } else {
            DataCopy(ub, in[r.gmOffset], blocks);
        }
        PipeBarrier<PIPE_ALL>();
        DataCopy(out, ub, kImage);
    } else {
        DataCopy(ub, in, kImage);
        PipeBarrier<PIPE_ALL>();
        if (TILING_KEY_IS(2)) {
            DataCopyPad(out[r.gmOffset], ub, bytes);
        } else {
            DataCopy(out[r.gmOffset], ub, blocks);
        }
    }
}
