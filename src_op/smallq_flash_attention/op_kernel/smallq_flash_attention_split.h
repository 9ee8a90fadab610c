// SPDX-License-Identifier: Apache-2.0
// A head's keys split over cores: partial results in workspace, and the phase that combines them.
#ifndef SMALLQ_FLASH_ATTENTION_SPLIT_H_
#define SMALLQ_FLASH_ATTENTION_SPLIT_H_

#include "kernel_tiling/kernel_tiling.h"
#include "smallq_flash_attention_common.h"
#include "smallq_flash_attention_items.h"
#include "smallq_flash_attention_load.h"

namespace SmallqFlashAttention {

// Workspace, fp32: acc [rows][numSplit][hdV rounded up to 8], not divided; m and l [rows][numSplit][2][8], each value
// over one block. rows are the q rows of all heads.
class Partials {
public:
    __aicore__ inline void Init(const SmallqFlashAttentionTilingData* tiling, GM_ADDR workspace) {
        numSplit_ = tiling->numSplit;
        pitch_ = RoundUp(tiling->hdV, kBlockFloats);
        const uint64_t parts = static_cast<uint64_t>(tiling->numHeads) * tiling->qLen * numSplit_;
        acc_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->wsPartOffset), parts * pitch_);
        stat_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->wsStatOffset), parts * kStatFloats);
    }

    // Column of the partial result of an item's first row.
    __aicore__ inline GlobalTensor<float> Output(const Item& item, uint32_t column) const {
        return Output(item.row, item.split, column);
    }
    __aicore__ inline GlobalTensor<float> Output(uint64_t row, uint32_t split, uint32_t column) const {
        return acc_[(row * numSplit_ + split) * pitch_ + column];
    }
    // Floats from one row of an item to the next.
    __aicore__ inline uint64_t RowPitch() const { return static_cast<uint64_t>(numSplit_) * pitch_; }

    // The m and l blocks of all parts of a row.
    __aicore__ inline GlobalTensor<float> Stats(uint64_t row) const { return stat_[row * numSplit_ * kStatFloats]; }

    // Writes: out [2][T] blocks, maxBlocks then sumBlocks. Barriers left to the caller: out belongs to a queue.
    __aicore__ static inline void CopyStats(const TileShape& shape, const Scratch& ub, const LocalTensor<float>& out) {
        const int32_t floats = static_cast<int32_t>(shape.rows * kBlockFloats);
        AscendC::Adds<float>(out, ub.maxBlocks, 0.0f, floats);
        AscendC::Adds<float>(out[shape.plan.qTile * kBlockFloats], ub.sumBlocks, 0.0f, floats);
    }

    // Stores what CopyStats wrote.
    __aicore__ inline void StoreStats(const Item& item, uint32_t qTile, const LocalTensor<float>& stats) const {
        const uint64_t to = (item.row * numSplit_ + item.split) * kStatFloats;
        const uint64_t pitch = static_cast<uint64_t>(numSplit_) * kStatFloats;
        StoreRows::Run(stat_[to], stats, item.rows, kBlockFloats, kBlockFloats, pitch);
        StoreRows::Run(stat_[to + kBlockFloats], stats[qTile * kBlockFloats], item.rows, kBlockFloats, kBlockFloats,
                       pitch);
    }

private:
    GlobalTensor<float> acc_;
    GlobalTensor<float> stat_;
    uint32_t numSplit_ = 1;
    uint32_t pitch_ = 0;
};

// After every core stored its partial results: row by row, output = sum w acc / sum w l with w = exp(m - max m), in the
// order of the parts, so that the same bits come out every time.
template <typename T>
class CombineSplits {
public:
    __aicore__ inline CombineSplits() {}

    __aicore__ inline void Init(GM_ADDR o, GM_ADDR workspace, const SmallqFlashAttentionTilingData* tiling,
                                AscendC::TPipe* pipe) {
        tiling_ = tiling;
        rows_ = static_cast<uint64_t>(tiling->numHeads) * tiling->qLen;
        partials_.Init(tiling, workspace);
        oGm_.SetGlobalBuffer((__gm__ T*)o, rows_ * tiling->hdV);
        const uint32_t numSplit = tiling->numSplit;
        const uint32_t columns = Min(RoundUp(tiling->hdV, kBlockHalfs), kCombineColumns);
        pipe->InitBuffer(statQue_, 1, numSplit * kStatFloats * static_cast<uint32_t>(sizeof(float)));
        pipe->InitBuffer(accQue_, kDepth, columns * static_cast<uint32_t>(sizeof(float)));
        pipe->InitBuffer(outQue_, 1, columns * static_cast<uint32_t>(sizeof(T)));
        pipe->InitBuffer(sumBuffer_, columns * static_cast<uint32_t>(sizeof(float)));
        pipe->InitBuffer(weightBuffer_, numSplit * kUbBlock);
        pipe->InitBuffer(productBuffer_, numSplit * kUbBlock);
        pipe->InitBuffer(totalBuffer_, 2 * kUbBlock);
        sum_ = sumBuffer_.template Get<float>();
        weight_ = weightBuffer_.template Get<float>();
        product_ = productBuffer_.template Get<float>();
        most_ = totalBuffer_.template Get<float>();
        total_ = most_[kBlockFloats];
    }

    // Rows are dealt evenly to all cores.
    __aicore__ inline void Process() {
        const uint64_t core = AscendC::GetBlockIdx();
        const uint64_t cores = tiling_->usedCores;
        const uint64_t each = rows_ / cores;
        const uint64_t extra = rows_ % cores;
        const uint64_t first = core * each + (core < extra ? core : extra);
        const uint64_t count = each + (core < extra ? 1 : 0);
        for (uint64_t row = first; row < first + count; ++row) {
            Weigh(row);
            for (uint32_t column = 0; column < tiling_->hdV; column += kCombineColumns) {
                Combine(row, column, Min(kCombineColumns, tiling_->hdV - column));
            }
        }
    }

private:
    using Buffer = AscendC::TBuf<AscendC::QuePosition::VECCALC>;

    // weight [part] blocks = exp(m - max m), total = sum weight * l.
    __aicore__ inline void Weigh(uint64_t row) {
        const uint8_t parts = Repeats(tiling_->numSplit);
        LocalTensor<float> load = statQue_.template AllocTensor<float>();
        AscendC::DataCopy(load, partials_.Stats(row), tiling_->numSplit * kStatFloats);
        statQue_.EnQue(load);
        LocalTensor<float> stat = statQue_.template DeQue<float>();
        AscendC::PipeBarrier<PIPE_V>();  // the row before may still read weight and total
        AscendC::Duplicate<float>(most_, kNoMaximum, kBlockFloats, 1, 1, kRepeatBlocks);
        AscendC::Duplicate<float>(total_, 0.0f, kBlockFloats, 1, 1, kRepeatBlocks);
        AscendC::PipeBarrier<PIPE_V>();
        // Repeat stride 0 with dst equal to src1 accumulates over the repeats; 2 steps over the l blocks.
        AscendC::Max<float>(most_, stat, most_, kBlockFloats, parts, BinaryRepeatParams(1, 1, 1, 0, 2, 0));
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Sub<float>(weight_, stat, most_, kBlockFloats, parts, BinaryRepeatParams(1, 1, 1, 1, 2, 0));
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Exp<float>(weight_, weight_, static_cast<int32_t>(tiling_->numSplit * kBlockFloats));
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Mul<float>(product_, weight_, stat[kBlockFloats], kBlockFloats, parts,
                            BinaryRepeatParams(1, 1, 1, 1, 1, 2));
        AscendC::PipeBarrier<PIPE_V>();
        statQue_.FreeTensor(stat);
        AscendC::Add<float>(total_, product_, total_, kBlockFloats, parts, BinaryRepeatParams(1, 1, 1, 0, 1, 0));
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Maxs<float>(total_, total_, kLeastSum, kBlockFloats, 1, DenseUnary());
    }

    // width columns of a row's output from column on.
    __aicore__ inline void Combine(uint64_t row, uint32_t column, uint32_t width) {
        const uint32_t padded = RoundUp(width, kBlockFloats);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Duplicate<float>(sum_, 0.0f, static_cast<int32_t>(padded));
        AscendC::PipeBarrier<PIPE_V>();
        Load(row, 0, column, width);
        for (uint32_t part = 0; part < tiling_->numSplit; ++part) {
            if (part + 1 < tiling_->numSplit) {
                Load(row, part + 1, column, width);
            }
            LocalTensor<float> acc = accQue_.template DeQue<float>();
            ByOneBlock::MultiplyAdd(sum_, acc, weight_[part * kBlockFloats], padded);
            AscendC::PipeBarrier<PIPE_V>();
            accQue_.FreeTensor(acc);
        }
        ByOneBlock::Divide(sum_, total_, padded);
        AscendC::PipeBarrier<PIPE_V>();
        LocalTensor<T> out = outQue_.template AllocTensor<T>();
        AscendC::Cast<T, float>(out, sum_, AscendC::RoundMode::CAST_RINT, padded);
        outQue_.EnQue(out);
        LocalTensor<T> stored = outQue_.template DeQue<T>();
        StoreRows::Run(oGm_[row * tiling_->hdV + column], stored, 1, width, RoundUp(width, kBlockHalfs), width);
        outQue_.FreeTensor(stored);
    }

    __aicore__ inline void Load(uint64_t row, uint32_t part, uint32_t column, uint32_t width) {
        LocalTensor<float> acc = accQue_.template AllocTensor<float>();
        LoadRows::Run(acc, partials_.Output(row, part, column), 1, width, RoundUp(width, kBlockFloats), width);
        accQue_.EnQue(acc);
    }

    const SmallqFlashAttentionTilingData* tiling_ = nullptr;
    Partials partials_;
    GlobalTensor<T> oGm_;
    AscendC::TQue<AscendC::QuePosition::VECIN, 1> statQue_;
    AscendC::TQue<AscendC::QuePosition::VECIN, kDepth> accQue_;
    AscendC::TQue<AscendC::QuePosition::VECOUT, 1> outQue_;
    Buffer sumBuffer_;
    Buffer weightBuffer_;
    Buffer productBuffer_;
    Buffer totalBuffer_;
    LocalTensor<float> sum_;
    LocalTensor<float> weight_;
    LocalTensor<float> product_;
    LocalTensor<float> most_;
    LocalTensor<float> total_;
    uint64_t rows_ = 0;
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_SPLIT_H_
