// SPDX-License-Identifier: Apache-2.0
// The normal path (keys 1 and 2): a row of K and a row of V fit UB whole. Item loop, queues and prefetch.
#ifndef SMALLQ_FLASH_ATTENTION_IMPL_H_
#define SMALLQ_FLASH_ATTENTION_IMPL_H_

#include "kernel_tiling/kernel_tiling.h"
#include "smallq_flash_attention_buffers.h"
#include "smallq_flash_attention_common.h"
#include "smallq_flash_attention_finish.h"
#include "smallq_flash_attention_items.h"
#include "smallq_flash_attention_load.h"
#include "smallq_flash_attention_pv.h"
#include "smallq_flash_attention_qk.h"
#include "smallq_flash_attention_softmax.h"
#include "smallq_flash_attention_split.h"

namespace SmallqFlashAttention {

// Addresses of a launch in global memory.
struct KernelArguments {
    GM_ADDR q;
    GM_ADDR k;
    GM_ADDR v;
    GM_ADDR lengths;
    GM_ADDR o;
    GM_ADDR workspace;
};

// T is half or bfloat16_t. With kSplit an item sees one part of its head's keys and stores a partial result.
template <typename T, bool kSplit>
class NormalPath {
public:
    __aicore__ inline NormalPath() {}

    // q [numHeads][qLen][hdK], k [numHeads][kvLen][hdK], v [numHeads][kvLen][hdV], o [numHeads][qLen][hdV], all dense
    // in global memory; numHeads counts K/V heads. tiling and pipe must outlive this object.
    __aicore__ inline void Init(const KernelArguments& gm, const SmallqFlashAttentionTilingData* tiling,
                                AscendC::TPipe* pipe) {
        tiling_ = tiling;
        const uint64_t heads = tiling->numHeads;
        qGm_.SetGlobalBuffer((__gm__ T*)gm.q, heads * tiling->qLen * tiling->hdK);
        kGm_.SetGlobalBuffer((__gm__ T*)gm.k, heads * tiling->kvLen * tiling->hdK);
        vGm_.SetGlobalBuffer((__gm__ T*)gm.v, heads * tiling->kvLen * tiling->hdV);
        oGm_.SetGlobalBuffer((__gm__ T*)gm.o, heads * tiling->qLen * tiling->hdV);
        if (tiling->l2Hint != 0) {
            kGm_.SetL2CacheHint(AscendC::CacheMode::CACHE_MODE_DISABLE);
            vGm_.SetL2CacheHint(AscendC::CacheMode::CACHE_MODE_DISABLE);
        }
        if (kSplit) {
            partials_.Init(tiling, gm.workspace);
        }
        items_.Init(tiling, gm.lengths);
        shape_ = TileShapes::Make(tiling, false, sizeof(typename QkScores<T>::Operand) != sizeof(T));
        const UbLayout ub = MakeUbLayout(shape_.plan);
        pipe->InitBuffer(kQue_, kDepth, ub.k);
        pipe->InitBuffer(vQue_, kDepth, ub.v);
        pipe->InitBuffer(qQue_, 1, ub.q);
        ub_ = scratch_.Init(pipe, ub);
        pipe->InitBuffer(outQue_, 1, ub.out);
    }

    // Works off this core's run of items.
    __aicore__ inline void Process() {
        nextK_ = nextV_ = Ahead();
        loadingK_ = loadingV_ = 0;
        for (uint64_t i = 0; i < items_.Count(); ++i) {
            ProcessItem(items_.Get(i));
        }
    }

private:
    // The next block a queue loads. It runs ahead of the vector pipe, across items: the first blocks of an item load
    // while the item before is finished and stored.
    struct Ahead {
        uint64_t item = 0;  // how many items are begun
        uint64_t row = 0;   // in K and V, of the block's first key; 64 bits, a large cache passes 2^32 elements
        uint32_t keys = 0;  // of the item, from that row on
    };

    __aicore__ inline void ProcessItem(const Item& item) {
        TileShapes::Set(shape_, item);
        keys_ = item.keys;
        blocks_ = CeilDiv(item.keys, shape_.plan.blockK);

        LocalTensor<T> qLoad = qQue_.template AllocTensor<T>();
        LoadRows::Run(qLoad, qGm_[item.row * tiling_->hdK], item.rows, tiling_->hdK, tiling_->hdKPad, tiling_->hdK);
        qQue_.EnQue(qLoad);
        Pump();
        FinishRows::ResetStats(shape_, ub_);
        FinishRows::ClearSums(shape_, ub_, tiling_->hdVPad);
        LocalTensor<T> q = qQue_.template DeQue<T>();
        const auto operand = QkScores<T>::Prepare(ub_, q, item.rows * tiling_->hdKPad);
        for (uint32_t block = 0; block < blocks_; block += shape_.plan.stepBlocks) {
            ProcessStep(operand, block, Min(shape_.plan.stepBlocks, blocks_ - block));
        }
        qQue_.FreeTensor(q);

        FinishRows::AddPartRows(shape_, ub_, tiling_->hdVPad);
        if (kSplit) {
            StorePartial(item);
        } else {
            StoreResult(item);
        }
    }

    // Scores of count blocks from first on, one softmax update for all of them, then their P * V.
    __aicore__ inline void ProcessStep(const LocalTensor<typename QkScores<T>::Operand>& q, uint32_t first,
                                       uint32_t count) {
        for (uint32_t b = 0; b < count; ++b) {
            Pump();
            LocalTensor<T> k = kQue_.template DeQue<T>();
            Score(q, k, KeysOf(first + b), b * shape_.columns);
            kQue_.FreeTensor(k);
            --loadingK_;
        }
        SoftmaxStep::Run(shape_, ub_, Step{first, count, KeysOf(first + count - 1)});
        if (first > 0) {
            FinishRows::Rescale(shape_, ub_, tiling_->hdVPad);
        }
        for (uint32_t b = 0; b < count; ++b) {
            Pump();
            LocalTensor<T> v = vQue_.template DeQue<T>();
            PvAccumulate::Run(shape_, ub_, v, KeysOf(first + b), b * shape_.columns, tiling_->hdVPad);
            vQue_.FreeTensor(v);
            --loadingV_;
        }
    }

    __aicore__ inline void Score(const LocalTensor<typename QkScores<T>::Operand>& q, const LocalTensor<T>& k,
                                 uint32_t keys, uint32_t column) {
        const uint32_t pitch = tiling_->hdKPad;
        for (uint32_t row = 0; row < shape_.rows; row += shape_.plan.qGroup) {
            const uint32_t group = Min(shape_.plan.qGroup, shape_.rows - row);
            QkScores<T>::Clear(ub_, group, keys);
            QkScores<T>::AddColumns(shape_, ub_, q[row * pitch], pitch, k, pitch, group, keys);
            QkScores<T>::Reduce(shape_, ub_, row, group, keys, column);
        }
    }

    __aicore__ inline void StoreResult(const Item& item) {
        FinishRows::SpreadDivisors(shape_, ub_);
        LocalTensor<T> out = outQue_.template AllocTensor<T>();
        FinishRows::Divide(shape_, ub_, out, tiling_->hdVPad);
        outQue_.EnQue(out);
        LocalTensor<T> stored = outQue_.template DeQue<T>();
        StoreRows::Run(oGm_[item.row * tiling_->hdV], stored, item.rows, tiling_->hdV, tiling_->hdVPad, tiling_->hdV);
        outQue_.FreeTensor(stored);
    }

    __aicore__ inline void StorePartial(const Item& item) {
        FinishRows::SpreadStats(shape_, ub_);
        const uint32_t stats = tiling_->qTile * tiling_->hdVPad;
        LocalTensor<float> out = outQue_.template AllocTensor<float>();
        FinishRows::Copy(shape_, ub_, out, tiling_->hdVPad);
        Partials::CopyStats(shape_, ub_, out[stats]);
        outQue_.EnQue(out);
        LocalTensor<float> stored = outQue_.template DeQue<float>();
        StoreRows::Run(partials_.Output(item, 0), stored, item.rows, tiling_->hdV, tiling_->hdVPad,
                       partials_.RowPitch());
        partials_.StoreStats(item, tiling_->qTile, stored[stats]);
        outQue_.FreeTensor(stored);
    }

    // Keeps every free K and V buffer loading the next block.
    __aicore__ inline void Pump() {
        while (loadingK_ < kDepth && FindKeys(nextK_)) {
            Load(kQue_, kGm_, nextK_, tiling_->hdK, tiling_->kPitch);
            ++loadingK_;
        }
        while (loadingV_ < kDepth && FindKeys(nextV_)) {
            Load(vQue_, vGm_, nextV_, tiling_->hdV, tiling_->hdVPad);
            ++loadingV_;
        }
    }

    // Moves on to the next item that has keys; false after the last one.
    __aicore__ inline bool FindKeys(Ahead& next) const {
        while (next.keys == 0 && next.item < items_.Count()) {
            const Item item = items_.Get(next.item++);
            next.row = item.head * tiling_->kvLen + item.firstKey;
            next.keys = item.keys;
        }
        return next.keys != 0;
    }

    template <typename Queue>
    __aicore__ inline void Load(Queue& queue, const GlobalTensor<T>& src, Ahead& next, uint32_t width,
                                uint32_t pitch) const {
        const uint32_t keys = Min(shape_.plan.blockK, next.keys);
        LocalTensor<T> block = queue.template AllocTensor<T>();
        LoadRows::Run(block, src[next.row * width], keys, width, pitch, width);
        queue.EnQue(block);
        next.row += keys;
        next.keys -= keys;
    }

    // Keys of a block; the last one may be short.
    __aicore__ inline uint32_t KeysOf(uint32_t block) const {
        return Min(shape_.plan.blockK, keys_ - block * shape_.plan.blockK);
    }

    const SmallqFlashAttentionTilingData* tiling_ = nullptr;
    GlobalTensor<T> qGm_;
    GlobalTensor<T> kGm_;
    GlobalTensor<T> vGm_;
    GlobalTensor<T> oGm_;
    Partials partials_;
    ItemList items_;
    AscendC::TQue<AscendC::QuePosition::VECIN, kDepth> kQue_;
    AscendC::TQue<AscendC::QuePosition::VECIN, kDepth> vQue_;
    AscendC::TQue<AscendC::QuePosition::VECIN, 1> qQue_;
    AscendC::TQue<AscendC::QuePosition::VECOUT, 1> outQue_;
    ScratchBuffers scratch_;
    Scratch ub_;
    TileShape shape_;
    uint32_t keys_ = 0;    // of the item
    uint32_t blocks_ = 0;  // of the item
    Ahead nextK_;
    Ahead nextV_;
    uint32_t loadingK_ = 0;  // blocks in the queue: a copy was started, the buffer not given back
    uint32_t loadingV_ = 0;
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_IMPL_H_
