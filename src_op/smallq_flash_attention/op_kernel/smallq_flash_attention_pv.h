// SPDX-License-Identifier: Apache-2.0
// Adds probability times V row for the keys of one block (kernel design, steps 8 and 9).
#ifndef SMALLQ_FLASH_ATTENTION_PV_H_
#define SMALLQ_FLASH_ATTENTION_PV_H_

#include "smallq_flash_attention_common.h"

namespace SmallqFlashAttention {

// Reads: v [keys][width]; score[row][column ..], probabilities. Adds to pvAcc [row][R][width] float: key i of a block
// goes to partial row i mod R, so the repeats of one instruction never touch the same row twice. width is a multiple of
// 16. Uses probBlocks [row][columns] blocks and v32 [CV][width] float. Only valid keys are touched: a leftover V row
// may hold NaN patterns, and 0 times NaN is NaN. Barriers left to the caller: none; ends with one.
struct PvAccumulate {
    template <typename T>
    __aicore__ static inline void Run(const TileShape& shape, const Scratch& ub, const LocalTensor<T>& v, uint32_t keys,
                                      uint32_t column, uint32_t width) {
        for (uint32_t t = 0; t < shape.rows; ++t) {
            SpreadToBlocks(ub.probBlocks[t * shape.columns * kBlockFloats], ub.score[t * shape.scorePitch + column],
                           keys);
        }
        const uint32_t castRows = shape.plan.castRows;
        const uint32_t partRows = shape.plan.partRows;
        for (uint32_t base = 0; base < keys; base += castRows) {
            const uint32_t castNow = Min(castRows, keys - base);
            AscendC::Cast<float, T>(ub.v32, v[base * width], AscendC::RoundMode::CAST_NONE, castNow * width);
            AscendC::PipeBarrier<PIPE_V>();
            for (uint32_t part = 0; part < castNow; part += partRows) {
                AddRows(shape, ub, base, part, Min(partRows, castNow - part), width);
                AscendC::PipeBarrier<PIPE_V>();
            }
        }
    }

private:
    // Keys base + part .. base + part + count of the block into partial rows 0 .. count.
    __aicore__ static inline void AddRows(const TileShape& shape, const Scratch& ub, uint32_t base, uint32_t part,
                                          uint32_t count, uint32_t width) {
        const uint32_t rowFloats = shape.plan.partRows * width;
        for (uint32_t t = 0; t < shape.rows; ++t) {
            const LocalTensor<float> probs = ub.probBlocks[(t * shape.columns + base + part) * kBlockFloats];
            for (uint32_t d = 0; d < width; d += kRepeatFloats) {
                AscendC::MulAddDst<float, float>(ub.pvAcc[t * rowFloats + d], ub.v32[part * width + d], probs,
                                                 Min(kRepeatFloats, width - d), Repeats(count), PvProduct(width));
            }
        }
    }
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_PV_H_
