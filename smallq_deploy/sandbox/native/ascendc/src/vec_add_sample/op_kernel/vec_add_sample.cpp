// SPDX-License-Identifier: Apache-2.0
// VecAddSample: each block adds its run of elements, tile by tile, with two buffers for each tensor.
#include "kernel_operator.h"

using namespace AscendC;

class VecAddSample {
public:
    __aicore__ inline VecAddSample() {}

    __aicore__ inline void Init(GM_ADDR x, GM_ADDR y, GM_ADDR z, uint64_t total, uint64_t perBlock, uint32_t tile,
                                TPipe* pipe) {
        const uint64_t begin = perBlock * GetBlockIdx();
        count_ = begin < total ? total - begin : 0;
        count_ = count_ < perBlock ? count_ : perBlock;
        tile_ = tile;
        x_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(x) + begin, count_);
        y_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(y) + begin, count_);
        z_.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(z) + begin, count_);
        pipe->InitBuffer(xQueue_, kDepth, tile * sizeof(half));
        pipe->InitBuffer(yQueue_, kDepth, tile * sizeof(half));
        pipe->InitBuffer(zQueue_, kDepth, tile * sizeof(half));
    }

    __aicore__ inline void Process() {
        for (uint64_t at = 0; at < count_; at += tile_) {
            const uint64_t left = count_ - at;
            const uint32_t length = static_cast<uint32_t>(left < tile_ ? left : tile_);
            CopyIn(at, length);
            Compute(length);
            CopyOut(at, length);
        }
    }

private:
    __aicore__ inline void CopyIn(uint64_t at, uint32_t length) {
        const DataCopyExtParams params{1, static_cast<uint32_t>(length * sizeof(half)), 0, 0, 0};
        const DataCopyPadExtParams<half> padding{false, 0, 0, static_cast<half>(0)};
        LocalTensor<half> x = xQueue_.AllocTensor<half>();
        LocalTensor<half> y = yQueue_.AllocTensor<half>();
        DataCopyPad(x, x_[at], params, padding);
        DataCopyPad(y, y_[at], params, padding);
        xQueue_.EnQue(x);
        yQueue_.EnQue(y);
    }

    __aicore__ inline void Compute(uint32_t length) {
        LocalTensor<half> x = xQueue_.DeQue<half>();
        LocalTensor<half> y = yQueue_.DeQue<half>();
        LocalTensor<half> z = zQueue_.AllocTensor<half>();
        Add(z, x, y, static_cast<int32_t>(length));
        zQueue_.EnQue(z);
        xQueue_.FreeTensor(x);
        yQueue_.FreeTensor(y);
    }

    __aicore__ inline void CopyOut(uint64_t at, uint32_t length) {
        const DataCopyExtParams params{1, static_cast<uint32_t>(length * sizeof(half)), 0, 0, 0};
        LocalTensor<half> z = zQueue_.DeQue<half>();
        DataCopyPad(z_[at], z, params);
        zQueue_.FreeTensor(z);
    }

    static constexpr int32_t kDepth = 2;

    GlobalTensor<half> x_, y_, z_;
    TQue<QuePosition::VECIN, kDepth> xQueue_, yQueue_;
    TQue<QuePosition::VECOUT, kDepth> zQueue_;
    uint64_t count_ = 0;
    uint32_t tile_ = 0;
};

extern "C" __global__ __aicore__ void vec_add_sample(GM_ADDR x, GM_ADDR y, GM_ADDR z, GM_ADDR workspace,
                                                     GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    GET_TILING_DATA(tilingData, tiling);
    (void)workspace;
    TPipe pipe;
    VecAddSample op;
    op.Init(x, y, z, tilingData.total, tilingData.perBlock, tilingData.tile, &pipe);
    op.Process();
}
