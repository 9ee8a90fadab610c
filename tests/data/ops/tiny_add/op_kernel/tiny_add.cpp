// SPDX-License-Identifier: Apache-2.0
#include "kernel_operator.h"

using namespace AscendC;

constexpr uint32_t kTile = 1024;

class TinyAddKernel {
public:
    __aicore__ inline TinyAddKernel() {}
    __aicore__ inline void Run(GM_ADDR x, GM_ADDR y, GM_ADDR z, const TinyAddTilingData& tiling) {
        const uint64_t first = GetBlockIdx() * tiling.perBlock;
        const uint64_t left = tiling.total - first;
        const uint64_t count = left < tiling.perBlock ? left : tiling.perBlock;
        x_.SetGlobalBuffer(reinterpret_cast<__gm__ DTYPE_X*>(x) + first, count);
        y_.SetGlobalBuffer(reinterpret_cast<__gm__ DTYPE_X*>(y) + first, count);
        z_.SetGlobalBuffer(reinterpret_cast<__gm__ DTYPE_X*>(z) + first, count);
        pipe_.InitBuffer(in_, 1, 2 * kTile * sizeof(DTYPE_X));
        pipe_.InitBuffer(out_, 1, kTile * sizeof(DTYPE_X));
        for (uint64_t at = 0; at < count; at += kTile) {
            Tile(at, count - at < kTile ? static_cast<uint32_t>(count - at) : kTile, tiling.bias);
        }
    }

private:
    __aicore__ inline void Tile(uint64_t at, uint32_t count, float bias) {
        const DataCopyExtParams copy(1, count * static_cast<uint32_t>(sizeof(DTYPE_X)), 0, 0, 0);
        const DataCopyPadExtParams<DTYPE_X> pad(false, 0, 0, static_cast<DTYPE_X>(0));
        LocalTensor<DTYPE_X> in = in_.AllocTensor<DTYPE_X>();
        DataCopyPad(in, x_[at], copy, pad);
        DataCopyPad(in[kTile], y_[at], copy, pad);
        in_.EnQue(in);
        in = in_.DeQue<DTYPE_X>();
        LocalTensor<DTYPE_X> out = out_.AllocTensor<DTYPE_X>();
        Add(out, in, in[kTile], static_cast<int32_t>(count));
        PipeBarrier<PIPE_V>();
        Adds(out, out, static_cast<DTYPE_X>(bias), static_cast<int32_t>(count));
        out_.EnQue(out);
        in_.FreeTensor(in);
        out = out_.DeQue<DTYPE_X>();
        DataCopyPad(z_[at], out, copy);
        out_.FreeTensor(out);
    }

    TPipe pipe_;
    TQue<QuePosition::VECIN, 1> in_;
    TQue<QuePosition::VECOUT, 1> out_;
    GlobalTensor<DTYPE_X> x_;
    GlobalTensor<DTYPE_X> y_;
    GlobalTensor<DTYPE_X> z_;
};

extern "C" __global__ __aicore__ void tiny_add(GM_ADDR x, GM_ADDR y, GM_ADDR z, GM_ADDR workspace, GM_ADDR tiling) {
    GET_TILING_DATA(data, tiling);
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    if (TILING_KEY_IS(1)) {
        TinyAddKernel kernel;
        kernel.Run(x, y, z, data);
    }
}
