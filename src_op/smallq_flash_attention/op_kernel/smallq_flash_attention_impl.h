// SPDX-License-Identifier: Apache-2.0
// The normal path: one item is one tile of q rows of one head against all its keys. Item loop, queues and prefetch.
#ifndef SMALLQ_FLASH_ATTENTION_IMPL_H_
#define SMALLQ_FLASH_ATTENTION_IMPL_H_

#include "kernel_tiling/kernel_tiling.h"
#include "smallq_flash_attention_common.h"
#include "smallq_flash_attention_finish.h"
#include "smallq_flash_attention_load.h"
#include "smallq_flash_attention_pv.h"
#include "smallq_flash_attention_qk.h"
#include "smallq_flash_attention_softmax.h"

namespace SmallqFlashAttention {

constexpr uint32_t kDepth = 2;  // buffers of the K and V queues, loading ahead of the vector pipe

class NormalPath {
public:
    __aicore__ inline NormalPath() {}

    // q [numHeads][qLen][hdK], k [numHeads][kvLen][hdK], v [numHeads][kvLen][hdV], o [numHeads][qLen][hdV], all dense
    // fp16 in global memory. tiling and pipe must outlive this object.
    __aicore__ inline void Init(GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR o,
                                const SmallqFlashAttentionTilingData* tiling, AscendC::TPipe* pipe) {
        tiling_ = tiling;
        const uint64_t heads = tiling->numHeads;
        qGm_.SetGlobalBuffer((__gm__ half*)q, heads * tiling->qLen * tiling->hdK);
        kGm_.SetGlobalBuffer((__gm__ half*)k, heads * tiling->kvLen * tiling->hdK);
        vGm_.SetGlobalBuffer((__gm__ half*)v, heads * tiling->kvLen * tiling->hdV);
        oGm_.SetGlobalBuffer((__gm__ half*)o, heads * tiling->qLen * tiling->hdV);
        if (tiling->l2Hint != 0) {
            kGm_.SetL2CacheHint(AscendC::CacheMode::CACHE_MODE_DISABLE);
            vGm_.SetL2CacheHint(AscendC::CacheMode::CACHE_MODE_DISABLE);
        }
        shape_.plan.qTile = tiling->qTile;
        shape_.plan.blockK = tiling->blockK;
        shape_.plan.stepBlocks = tiling->stepBlocks;
        shape_.plan.partRows = tiling->partRows;
        shape_.plan.castRows = tiling->castRows;
        shape_.plan.qGroup = tiling->qGroup;
        shape_.plan.hdKPad = tiling->hdKPad;
        shape_.plan.hdVPad = tiling->hdVPad;
        shape_.plan.kPitch = tiling->kPitch;
        shape_.columns = BlockColumns(shape_.plan);
        shape_.scorePitch = ScorePitch(shape_.plan);
        shape_.rows = 0;
        shape_.scale = tiling->scale;
        blocks_ = CeilDiv(tiling->kvLen, tiling->blockK);
        InitBuffers(pipe);
    }

    // Works off this core's run of items.
    __aicore__ inline void Process() {
        const uint64_t core = AscendC::GetBlockIdx();
        const uint64_t extra = tiling_->itemsTail;
        const uint64_t first = core * tiling_->itemsPerCore + (core < extra ? core : extra);
        const uint64_t count = tiling_->itemsPerCore + (core < extra ? 1 : 0);
        for (uint64_t item = first; item < first + count; ++item) {
            ProcessItem(item / tiling_->numQTile, static_cast<uint32_t>(item % tiling_->numQTile));
        }
    }

private:
    using Buffer = AscendC::TBuf<AscendC::QuePosition::VECCALC>;

    // Same order and sizes as UbLayout, so that the planner's sum is the end address.
    __aicore__ inline void InitBuffers(AscendC::TPipe* pipe) {
        const UbLayout ub = MakeUbLayout(shape_.plan);
        pipe->InitBuffer(kQue_, kDepth, ub.k);
        pipe->InitBuffer(vQue_, kDepth, ub.v);
        pipe->InitBuffer(qQue_, 1, ub.q);
        ub_.dots = Take(pipe, dots_, ub.dots);
        ub_.score = Take(pipe, score_, ub.score);
        ub_.probBlocks = Take(pipe, probBlocks_, ub.probBlocks);
        ub_.v32 = Take(pipe, v32_, ub.v32);
        ub_.pvAcc = Take(pipe, pvAcc_, ub.pvAcc);
        pipe->InitBuffer(outQue_, 1, ub.out);
        ub_.reduced = Take(pipe, reduced_, ub.reduced);
        ub_.rowMaxOld = Take(pipe, stat_[0], ub.stat);
        ub_.rowMaxNew = Take(pipe, stat_[1], ub.stat);
        ub_.rowSum = Take(pipe, stat_[2], ub.stat);
        ub_.alpha = Take(pipe, stat_[3], ub.stat);
        ub_.stepMax = Take(pipe, stat_[4], ub.stat);
        ub_.stepSum = Take(pipe, stat_[5], ub.stat);
        ub_.difference = Take(pipe, stat_[6], ub.stat);
        ub_.maxBlocks = Take(pipe, statBlocks_[0], ub.statBlocks);
        ub_.sumBlocks = Take(pipe, statBlocks_[1], ub.statBlocks);
        ub_.alphaBlocks = Take(pipe, statBlocks_[2], ub.statBlocks);
    }

    __aicore__ inline LocalTensor<float> Take(AscendC::TPipe* pipe, Buffer& buffer, uint32_t bytes) {
        pipe->InitBuffer(buffer, bytes);
        return buffer.Get<float>();
    }

    __aicore__ inline void ProcessItem(uint64_t head, uint32_t tile) {
        head_ = head;
        const uint32_t firstRow = tile * tiling_->qTile;
        shape_.rows = Min(tiling_->qTile, tiling_->qLen - firstRow);
        const uint64_t row = head * tiling_->qLen + firstRow;
        issuedK_ = freedK_ = issuedV_ = freedV_ = 0;

        LocalTensor<half> qLoad = qQue_.AllocTensor<half>();
        LoadRows::Run(qLoad, qGm_[row * tiling_->hdK], shape_.rows, tiling_->hdK, tiling_->hdKPad);
        qQue_.EnQue(qLoad);
        Pump();
        ResetState();
        LocalTensor<half> q = qQue_.DeQue<half>();
        for (uint32_t block = 0; block < blocks_; block += shape_.plan.stepBlocks) {
            ProcessStep(q, block, Min(shape_.plan.stepBlocks, blocks_ - block));
        }
        qQue_.FreeTensor(q);

        LocalTensor<half> out = outQue_.AllocTensor<half>();
        FinishRows::Run(shape_, ub_, out);
        outQue_.EnQue(out);
        LocalTensor<half> stored = outQue_.DeQue<half>();
        StoreRows::Run(oGm_[row * tiling_->hdV], stored, shape_.rows, tiling_->hdV);
        outQue_.FreeTensor(stored);
    }

    // m = -1e30, l = 0, partial outputs = 0. The item before may still read them: one barrier first.
    __aicore__ inline void ResetState() {
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Duplicate<float>(ub_.rowMaxOld, kMaskedScore, shape_.rows, 1, 1, kRepeatBlocks);
        AscendC::Duplicate<float>(ub_.rowSum, 0.0f, shape_.rows, 1, 1, kRepeatBlocks);
        AscendC::Duplicate<float>(ub_.pvAcc, 0.0f,
                                  static_cast<int32_t>(shape_.rows * shape_.plan.partRows * shape_.plan.hdVPad));
        AscendC::PipeBarrier<PIPE_V>();
    }

    // Scores of count blocks from first on, one softmax update for all of them, then their P * V.
    __aicore__ inline void ProcessStep(const LocalTensor<half>& q, uint32_t first, uint32_t count) {
        for (uint32_t b = 0; b < count; ++b) {
            Pump();
            LocalTensor<half> k = kQue_.DeQue<half>();
            QkScores::Run(shape_, ub_, q, k, KeysOf(first + b), b * shape_.columns);
            kQue_.FreeTensor(k);
            ++freedK_;
        }
        const uint32_t valid = (count - 1) * shape_.columns + KeysOf(first + count - 1);
        const uint32_t used = RoundUp(count * shape_.columns, kRepeatFloats);
        SoftmaxStep::Run(shape_, ub_, valid, used, first == 0);
        for (uint32_t b = 0; b < count; ++b) {
            Pump();
            LocalTensor<half> v = vQue_.DeQue<half>();
            PvAccumulate::Run(shape_, ub_, v, KeysOf(first + b), b * shape_.columns);
            vQue_.FreeTensor(v);
            ++freedV_;
        }
    }

    // Keeps every free K and V buffer loading the item's next block.
    __aicore__ inline void Pump() {
        while (issuedK_ < blocks_ && issuedK_ - freedK_ < kDepth) {
            LocalTensor<half> k = kQue_.AllocTensor<half>();
            LoadRows::Run(k, kGm_[KeyRow(issuedK_) * tiling_->hdK], KeysOf(issuedK_), tiling_->hdK, tiling_->kPitch);
            kQue_.EnQue(k);
            ++issuedK_;
        }
        while (issuedV_ < blocks_ && issuedV_ - freedV_ < kDepth) {
            LocalTensor<half> v = vQue_.AllocTensor<half>();
            LoadRows::Run(v, vGm_[KeyRow(issuedV_) * tiling_->hdV], KeysOf(issuedV_), tiling_->hdV, tiling_->hdVPad);
            vQue_.EnQue(v);
            ++issuedV_;
        }
    }

    // Row in K and V of the first key of a block; 64 bits, a large cache passes 2^32 elements.
    __aicore__ inline uint64_t KeyRow(uint32_t block) const {
        return head_ * tiling_->kvLen + static_cast<uint64_t>(block) * shape_.plan.blockK;
    }

    // Keys of a block; the last one may be short.
    __aicore__ inline uint32_t KeysOf(uint32_t block) const {
        return Min(shape_.plan.blockK, tiling_->kvLen - block * shape_.plan.blockK);
    }

    const SmallqFlashAttentionTilingData* tiling_ = nullptr;
    GlobalTensor<half> qGm_;
    GlobalTensor<half> kGm_;
    GlobalTensor<half> vGm_;
    GlobalTensor<half> oGm_;
    AscendC::TQue<AscendC::QuePosition::VECIN, kDepth> kQue_;
    AscendC::TQue<AscendC::QuePosition::VECIN, kDepth> vQue_;
    AscendC::TQue<AscendC::QuePosition::VECIN, 1> qQue_;
    AscendC::TQue<AscendC::QuePosition::VECOUT, 1> outQue_;
    Buffer dots_;
    Buffer score_;
    Buffer probBlocks_;
    Buffer v32_;
    Buffer pvAcc_;
    Buffer reduced_;
    Buffer stat_[kStatVectors];
    Buffer statBlocks_[kStatBlockVectors];
    Scratch ub_;
    TileShape shape_;
    uint32_t blocks_ = 0;  // K blocks of one head
    uint64_t head_ = 0;
    uint32_t issuedK_ = 0;  // blocks of this item whose copy was started, and whose buffer was given back
    uint32_t freedK_ = 0;
    uint32_t issuedV_ = 0;
    uint32_t freedV_ = 0;
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_IMPL_H_
