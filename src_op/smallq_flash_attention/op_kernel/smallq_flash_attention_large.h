// SPDX-License-Identifier: Apache-2.0
// The largeD path (keys 3 and 4): rows of K and V come in chunks of columns, so head sizes have no limit but a copy's.
// The output of an item is carried from one softmax step to the next in global memory.
#ifndef SMALLQ_FLASH_ATTENTION_LARGE_H_
#define SMALLQ_FLASH_ATTENTION_LARGE_H_

#include "smallq_flash_attention_impl.h"

namespace SmallqFlashAttention {

// As NormalPath. With kSplit the running output of an item is its partial result.
template <typename T, bool kSplit>
class LargePath {
public:
    __aicore__ inline LargePath() {}

    __aicore__ inline void Init(const KernelArguments& gm, const SmallqFlashAttentionTilingData* tiling,
                                AscendC::TPipe* pipe) {
        tiling_ = tiling;
        pipe_ = pipe;
        const uint64_t heads = tiling->numHeads;
        qGm_.SetGlobalBuffer((__gm__ T*)gm.q, heads * tiling->qLen * tiling->hdK);
        kGm_.SetGlobalBuffer((__gm__ T*)gm.k, heads * tiling->kvLen * tiling->hdK);
        vGm_.SetGlobalBuffer((__gm__ T*)gm.v, heads * tiling->kvLen * tiling->hdV);
        oGm_.SetGlobalBuffer((__gm__ T*)gm.o, heads * tiling->qLen * tiling->hdV);
        if (kSplit) {
            partials_.Init(tiling, gm.workspace);
        } else {
            const uint64_t floats = static_cast<uint64_t>(tiling->qTile) * RoundUp(tiling->hdV, kBlockFloats);
            __gm__ float* run = (__gm__ float*)(gm.workspace + tiling->wsRunOffset);
            runGm_.SetGlobalBuffer(run + AscendC::GetBlockIdx() * floats, floats);
        }
        items_.Init(tiling, gm.lengths);
        shape_ = TileShapes::Make(tiling, true, sizeof(typename QkScores<T>::Operand) != sizeof(T));
        chunksK_ = CeilDiv(tiling->hdK, tiling->hdKPad);
        chunksV_ = CeilDiv(tiling->hdV, tiling->hdVPad);
        const UbLayout ub = MakeUbLayout(shape_.plan);
        pipe->InitBuffer(kQue_, kDepth, ub.k);
        pipe->InitBuffer(vQue_, kDepth, ub.v);
        ub_ = scratch_.Init(pipe, ub);
        pipe->InitBuffer(outQue_, 1, ub.out);
        pipe->InitBuffer(runQue_, 1, ub.run);
        stored_ = pipe->AllocEventID<AscendC::HardEvent::MTE3_MTE2>();
    }

    // Works off this core's run of items.
    __aicore__ inline void Process() {
        for (uint64_t i = 0; i < items_.Count(); ++i) {
            ProcessItem(items_.Get(i));
        }
        pipe_->ReleaseEventID<AscendC::HardEvent::MTE3_MTE2>(stored_);
    }

private:
    __aicore__ inline void ProcessItem(const Item& item) {
        item_ = item;
        TileShapes::Set(shape_, item);
        blocks_ = CeilDiv(item.keys, shape_.plan.blockK);
        issuedK_ = freedK_ = issuedV_ = freedV_ = 0;
        FinishRows::ResetStats(shape_, ub_);
        // An item without keys still has an output: one step of no block.
        uint32_t block = 0;
        do {
            const uint32_t count = Min(shape_.plan.stepBlocks, blocks_ - block);
            const bool last = block + count == blocks_;
            if (count > 0) {
                ScoreStep(block, count);
                SoftmaxStep::Run(shape_, ub_, Step{block, count, KeysOf(block + count - 1)});
            }
            if (last && !kSplit) {
                FinishRows::SpreadDivisors(shape_, ub_);
            }
            ValueStep(block, count, last);
            block += count;
        } while (block < blocks_);
        if (kSplit) {
            StoreStats();
        }
    }

    __aicore__ inline void ScoreStep(uint32_t first, uint32_t count) {
        for (uint32_t b = 0; b < count; ++b) {
            const uint32_t keys = KeysOf(first + b);
            QkScores<T>::Clear(ub_, shape_.rows, keys);
            for (uint32_t chunk = 0; chunk < chunksK_; ++chunk) {
                Pump();
                const uint32_t width = RoundUp(WidthK(chunk), kBlockHalfs);
                LocalTensor<T> k = kQue_.template DeQue<T>();
                const auto q = QkScores<T>::Prepare(ub_, k[shape_.plan.blockK * tiling_->kPitch], shape_.rows * width);
                QkScores<T>::AddColumns(shape_, ub_, q, width, k, width, shape_.rows, keys);
                kQue_.FreeTensor(k);
                ++freedK_;
            }
            QkScores<T>::Reduce(shape_, ub_, 0, shape_.rows, keys, b * shape_.columns);
        }
    }

    // Output columns chunk by chunk: P * V of the step's blocks, plus what the steps before left, scaled.
    __aicore__ inline void ValueStep(uint32_t first, uint32_t count, bool last) {
        if (first > 0) {
            AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(stored_);
        }
        for (uint32_t chunk = 0; chunk < chunksV_; ++chunk) {
            const uint32_t width = RoundUp(WidthV(chunk), kBlockHalfs);
            AscendC::PipeBarrier<PIPE_V>();  // the chunk before may still read the sums
            FinishRows::ClearSums(shape_, ub_, width);
            for (uint32_t b = 0; b < count; ++b) {
                Pump();
                LocalTensor<T> v = vQue_.template DeQue<T>();
                PvAccumulate::Run(shape_, ub_, v, KeysOf(first + b), b * shape_.columns, width);
                vQue_.FreeTensor(v);
                ++freedV_;
            }
            FinishRows::AddPartRows(shape_, ub_, width);
            if (first > 0) {
                AddRunning(chunk, width);
            }
            if (last && !kSplit) {
                StoreResult(chunk, width);
            } else {
                StoreRunning(chunk, width);
            }
        }
        if (!last) {
            AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(stored_);
        }
    }

    __aicore__ inline void AddRunning(uint32_t chunk, uint32_t width) {
        LocalTensor<float> load = runQue_.template AllocTensor<float>();
        LoadRows::Run(load, Running(chunk), shape_.rows, WidthV(chunk), width, static_cast<uint32_t>(RunningPitch()));
        runQue_.EnQue(load);
        LocalTensor<float> run = runQue_.template DeQue<float>();
        for (uint32_t t = 0; t < shape_.rows; ++t) {
            ByOneBlock::Multiply(run[t * width], ub_.alphaBlocks[t * kBlockFloats], width);
        }
        AscendC::PipeBarrier<PIPE_V>();
        for (uint32_t t = 0; t < shape_.rows; ++t) {
            const LocalTensor<float> row = FinishRows::Row(shape_, ub_, t, width);
            AscendC::Add<float>(row, row, run[t * width], static_cast<int32_t>(width));
        }
        AscendC::PipeBarrier<PIPE_V>();
        runQue_.FreeTensor(run);
    }

    __aicore__ inline void StoreRunning(uint32_t chunk, uint32_t width) {
        LocalTensor<float> out = outQue_.template AllocTensor<float>();
        FinishRows::Copy(shape_, ub_, out, width);
        outQue_.EnQue(out);
        LocalTensor<float> stored = outQue_.template DeQue<float>();
        StoreRows::Run(Running(chunk), stored, shape_.rows, WidthV(chunk), width, RunningPitch());
        outQue_.FreeTensor(stored);
    }

    __aicore__ inline void StoreResult(uint32_t chunk, uint32_t width) {
        LocalTensor<T> out = outQue_.template AllocTensor<T>();
        FinishRows::Divide(shape_, ub_, out, width);
        outQue_.EnQue(out);
        LocalTensor<T> stored = outQue_.template DeQue<T>();
        const uint64_t column = static_cast<uint64_t>(chunk) * tiling_->hdVPad;
        StoreRows::Run(oGm_[item_.row * tiling_->hdV + column], stored, shape_.rows, WidthV(chunk), width,
                       tiling_->hdV);
        outQue_.FreeTensor(stored);
    }

    __aicore__ inline void StoreStats() {
        AscendC::PipeBarrier<PIPE_V>();
        FinishRows::SpreadStats(shape_, ub_);
        LocalTensor<float> out = outQue_.template AllocTensor<float>();
        Partials::CopyStats(shape_, ub_, out);
        outQue_.EnQue(out);
        LocalTensor<float> stored = outQue_.template DeQue<float>();
        partials_.StoreStats(item_, tiling_->qTile, stored);
        outQue_.FreeTensor(stored);
    }

    // Keeps every free buffer loading: K by block, then chunk; V by step, then chunk, then block of the step.
    __aicore__ inline void Pump() {
        const uint64_t allK = static_cast<uint64_t>(blocks_) * chunksK_;
        while (issuedK_ < allK && issuedK_ - freedK_ < kDepth) {
            LoadK(static_cast<uint32_t>(issuedK_ / chunksK_), static_cast<uint32_t>(issuedK_ % chunksK_));
            ++issuedK_;
        }
        const uint64_t allV = static_cast<uint64_t>(blocks_) * chunksV_;
        while (issuedV_ < allV && issuedV_ - freedV_ < kDepth) {
            const uint64_t perStep = static_cast<uint64_t>(shape_.plan.stepBlocks) * chunksV_;
            const uint32_t first = static_cast<uint32_t>(issuedV_ / perStep) * shape_.plan.stepBlocks;
            const uint32_t count = Min(shape_.plan.stepBlocks, blocks_ - first);
            const uint32_t inStep = static_cast<uint32_t>(issuedV_ % perStep);
            LoadV(first + inStep % count, inStep / count);
            ++issuedV_;
        }
    }

    __aicore__ inline void LoadK(uint32_t block, uint32_t chunk) {
        const uint32_t width = WidthK(chunk);
        const uint64_t column = static_cast<uint64_t>(chunk) * tiling_->hdKPad;
        LocalTensor<T> k = kQue_.template AllocTensor<T>();
        LoadRows::Run(k, kGm_[KeyRow(block) * tiling_->hdK + column], KeysOf(block), width, tiling_->kPitch,
                      tiling_->hdK);
        LoadRows::Run(k[shape_.plan.blockK * tiling_->kPitch], qGm_[item_.row * tiling_->hdK + column], shape_.rows,
                      width, RoundUp(width, kBlockHalfs), tiling_->hdK);
        kQue_.EnQue(k);
    }

    __aicore__ inline void LoadV(uint32_t block, uint32_t chunk) {
        const uint32_t width = WidthV(chunk);
        const uint64_t column = static_cast<uint64_t>(chunk) * tiling_->hdVPad;
        LocalTensor<T> v = vQue_.template AllocTensor<T>();
        LoadRows::Run(v, vGm_[KeyRow(block) * tiling_->hdV + column], KeysOf(block), width, RoundUp(width, kBlockHalfs),
                      tiling_->hdV);
        vQue_.EnQue(v);
    }

    // Where a chunk of the running output of the item's first row lies, and the floats to its next row.
    __aicore__ inline GlobalTensor<float> Running(uint32_t chunk) const {
        const uint32_t column = chunk * tiling_->hdVPad;
        return kSplit ? partials_.Output(item_, column) : runGm_[column];
    }
    __aicore__ inline uint64_t RunningPitch() const {
        return kSplit ? partials_.RowPitch() : RoundUp(tiling_->hdV, kBlockFloats);
    }

    __aicore__ inline uint32_t WidthK(uint32_t chunk) const {
        return Min(tiling_->hdKPad, tiling_->hdK - chunk * tiling_->hdKPad);
    }
    __aicore__ inline uint32_t WidthV(uint32_t chunk) const {
        return Min(tiling_->hdVPad, tiling_->hdV - chunk * tiling_->hdVPad);
    }
    __aicore__ inline uint64_t KeyRow(uint32_t block) const {
        return item_.head * tiling_->kvLen + item_.firstKey + static_cast<uint64_t>(block) * shape_.plan.blockK;
    }
    __aicore__ inline uint32_t KeysOf(uint32_t block) const {
        return Min(shape_.plan.blockK, item_.keys - block * shape_.plan.blockK);
    }

    const SmallqFlashAttentionTilingData* tiling_ = nullptr;
    AscendC::TPipe* pipe_ = nullptr;
    GlobalTensor<T> qGm_;
    GlobalTensor<T> kGm_;
    GlobalTensor<T> vGm_;
    GlobalTensor<T> oGm_;
    GlobalTensor<float> runGm_;  // this core's, [T][hdV rounded up to 8]
    Partials partials_;
    ItemList items_;
    AscendC::TQue<AscendC::QuePosition::VECIN, kDepth> kQue_;
    AscendC::TQue<AscendC::QuePosition::VECIN, kDepth> vQue_;
    AscendC::TQue<AscendC::QuePosition::VECIN, 1> runQue_;
    AscendC::TQue<AscendC::QuePosition::VECOUT, 1> outQue_;
    ScratchBuffers scratch_;
    Scratch ub_;
    TileShape shape_;
    Item item_;
    AscendC::TEventID stored_ = 0;  // the running output of a step is in global memory
    uint32_t blocks_ = 0;           // of the item
    uint32_t chunksK_ = 0;
    uint32_t chunksV_ = 0;
    uint64_t issuedK_ = 0;  // copies of this item started, and buffers given back
    uint64_t freedK_ = 0;
    uint64_t issuedV_ = 0;
    uint64_t freedV_ = 0;
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_LARGE_H_
