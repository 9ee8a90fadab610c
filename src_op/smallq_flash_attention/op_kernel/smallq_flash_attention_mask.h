// SPDX-License-Identifier: Apache-2.0
// Score columns that must not count: those without a key, and keys a row does not see (kernel design, step 6).
#ifndef SMALLQ_FLASH_ATTENTION_MASK_H_
#define SMALLQ_FLASH_ATTENTION_MASK_H_

#include "smallq_flash_attention_common.h"

namespace SmallqFlashAttention {

// Writes -1e30 to columns of score[row][0 .. used). Barriers left to the caller: one before; ends with one.
struct MaskScores {
    // valid is the number of columns up to and including the step's last key.
    __aicore__ static inline void Run(const TileShape& shape, const Scratch& ub, const Step& step, uint32_t valid,
                                      uint32_t used) {
        DeadColumns(shape, ub, valid, used);
        if (shape.tail.on) {
            HiddenKeys(shape, ub, step, used);
        }
    }

private:
    // The block width divides 64, so the columns after the last key all lie in the last 64.
    __aicore__ static inline void DeadColumns(const TileShape& shape, const Scratch& ub, uint32_t valid,
                                              uint32_t used) {
        if (valid < used) {
            const uint32_t chunk = valid / kRepeatFloats * kRepeatFloats;
            uint64_t lanes[2] = {~0ULL << (valid - chunk), 0};
            AscendC::Duplicate<float>(ub.score[chunk], kMaskedScore, lanes, Repeats(shape.rows), 1,
                                      static_cast<uint8_t>(shape.scorePitch / kBlockFloats));
            AscendC::PipeBarrier<PIPE_V>();
        }
        if (shape.plan.blockK < kBlockFloats) {
            // A block of 4 keys fills the first half of its 8 columns.
            uint64_t lanes[2] = {0xF0F0F0F0F0F0F0F0ULL, 0};
            for (uint32_t t = 0; t < shape.rows; ++t) {
                AscendC::Duplicate<float>(ub.score[t * shape.scorePitch], kMaskedScore, lanes,
                                          Repeats(used / kRepeatFloats), 1, kRepeatBlocks);
            }
            AscendC::PipeBarrier<PIPE_V>();
        }
    }

    __aicore__ static inline void HiddenKeys(const TileShape& shape, const Scratch& ub, const Step& step,
                                             uint32_t used) {
        const uint32_t blockK = shape.plan.blockK;
        const int64_t firstKey = static_cast<int64_t>(shape.tail.firstKey) + static_cast<int64_t>(step.first) * blockK;
        const int64_t keys = static_cast<int64_t>(step.count - 1) * blockK + step.lastKeys;
        const int64_t before = static_cast<int64_t>(shape.tail.length) - shape.tail.queryLen - firstKey;
        if (before + 1 >= keys) {
            return;  // the row that sees least sees all keys of this step
        }
        for (uint32_t t = 0; t < shape.rows; ++t) {
            const int64_t seen = before + (shape.tail.firstRow + t) % shape.tail.queryLen + 1;
            if (seen < keys) {
                const uint32_t key = seen > 0 ? static_cast<uint32_t>(seen) : 0;
                FromColumn(ub.score[t * shape.scorePitch], key / blockK * shape.columns + key % blockK, used);
            }
        }
        AscendC::PipeBarrier<PIPE_V>();
    }

    __aicore__ static inline void FromColumn(const LocalTensor<float>& row, uint32_t column, uint32_t used) {
        const uint32_t chunk = column / kRepeatFloats * kRepeatFloats;
        uint64_t lanes[2] = {~0ULL << (column - chunk), 0};
        AscendC::Duplicate<float>(row[chunk], kMaskedScore, lanes, 1, 1, kRepeatBlocks);
        const uint32_t rest = chunk + kRepeatFloats;
        if (rest < used) {
            AscendC::Duplicate<float>(row[rest], kMaskedScore, kRepeatFloats, Repeats((used - rest) / kRepeatFloats), 1,
                                      kRepeatBlocks);
        }
    }
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_MASK_H_
