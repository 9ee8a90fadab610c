// SPDX-License-Identifier: Apache-2.0
// From partial sums to the fp16 output rows of an item (kernel design, steps 10 to 12).
#ifndef SMALLQ_FLASH_ATTENTION_FINISH_H_
#define SMALLQ_FLASH_ATTENTION_FINISH_H_

#include "smallq_flash_attention_common.h"

namespace SmallqFlashAttention {

// Reads and overwrites pvAcc [row][R][hdVPad] float; reads l; uses sumBlocks. Writes out [row][hdVPad] half.
// Barriers left to the caller: one before anything writes pvAcc or l again; out belongs to a queue.
struct FinishRows {
    __aicore__ static inline void Run(const TileShape& shape, const Scratch& ub, const LocalTensor<half>& out) {
        const uint32_t hdVPad = shape.plan.hdVPad;
        const uint32_t rowFloats = shape.plan.partRows * hdVPad;
        AscendC::PipeBarrier<PIPE_V>();
        for (uint32_t width = shape.plan.partRows / 2; width > 0; width /= 2) {
            const uint32_t floats = width * hdVPad;
            for (uint32_t t = 0; t < shape.rows; ++t) {
                const LocalTensor<float> row = ub.pvAcc[t * rowFloats];
                AscendC::Add<float>(row, row, row[floats], static_cast<int32_t>(floats));
            }
            AscendC::PipeBarrier<PIPE_V>();
        }
        // The column of the largest score adds exp(0) = 1, so l >= 1 for finite inputs and needs no guard.
        SpreadToBlocks(ub.sumBlocks, ub.rowSum, shape.rows);
        AscendC::PipeBarrier<PIPE_V>();
        const uint32_t whole = hdVPad / kRepeatFloats;
        const uint32_t rest = hdVPad % kRepeatFloats;
        for (uint32_t t = 0; t < shape.rows; ++t) {
            const LocalTensor<float> row = ub.pvAcc[t * rowFloats];
            const LocalTensor<float> divisor = ub.sumBlocks[t * kBlockFloats];
            if (whole > 0) {
                AscendC::Div<float>(row, row, divisor, kRepeatFloats, Repeats(whole), ByBlock());
            }
            if (rest > 0) {
                const LocalTensor<float> tail = row[whole * kRepeatFloats];
                AscendC::Div<float>(tail, tail, divisor, rest, 1, ByBlock());
            }
        }
        AscendC::PipeBarrier<PIPE_V>();
        for (uint32_t t = 0; t < shape.rows; ++t) {
            AscendC::Cast<half, float>(out[t * hdVPad], ub.pvAcc[t * rowFloats], AscendC::RoundMode::CAST_RINT, hdVPad);
        }
    }
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_FINISH_H_
