// SPDX-License-Identifier: Apache-2.0
// Adds probability times V row for the keys of one block (kernel design, steps 8 and 9).
#ifndef SMALLQ_FLASH_ATTENTION_PV_H_
#define SMALLQ_FLASH_ATTENTION_PV_H_

#include "smallq_flash_attention_common.h"

namespace SmallqFlashAttention {

// Reads: v [keys][hdVPad] half; score[row][column ..], probabilities. Adds to pvAcc [row][R][hdVPad] float: key i of a
// block goes to partial row i mod R, so the repeats of one instruction never touch the same row twice.
// Uses probBlocks [row][columns] blocks and v32 [CV][hdVPad] float. Only valid keys are touched: a leftover V row may
// hold NaN patterns, and 0 times NaN is NaN.
// Barriers left to the caller: none; ends with one.
struct PvAccumulate {
    __aicore__ static inline void Run(const TileShape& shape, const Scratch& ub, const LocalTensor<half>& v,
                                      uint32_t keys, uint32_t column) {
        for (uint32_t t = 0; t < shape.rows; ++t) {
            SpreadToBlocks(ub.probBlocks[t * shape.columns * kBlockFloats], ub.score[t * shape.scorePitch + column],
                           keys);
        }
        const uint32_t castRows = shape.plan.castRows;
        const uint32_t partRows = shape.plan.partRows;
        const uint32_t hdVPad = shape.plan.hdVPad;
        for (uint32_t base = 0; base < keys; base += castRows) {
            const uint32_t castNow = Min(castRows, keys - base);
            AscendC::Cast<float, half>(ub.v32, v[base * hdVPad], AscendC::RoundMode::CAST_NONE, castNow * hdVPad);
            AscendC::PipeBarrier<PIPE_V>();
            for (uint32_t part = 0; part < castNow; part += partRows) {
                AddRows(shape, ub, base, part, Min(partRows, castNow - part));
                AscendC::PipeBarrier<PIPE_V>();
            }
        }
    }

private:
    // Keys base + part .. base + part + count of the block into partial rows 0 .. count.
    __aicore__ static inline void AddRows(const TileShape& shape, const Scratch& ub, uint32_t base, uint32_t part,
                                          uint32_t count) {
        const uint32_t hdVPad = shape.plan.hdVPad;
        const uint32_t rowFloats = shape.plan.partRows * hdVPad;
        for (uint32_t t = 0; t < shape.rows; ++t) {
            const LocalTensor<float> probs = ub.probBlocks[(t * shape.columns + base + part) * kBlockFloats];
            for (uint32_t d = 0; d < hdVPad; d += kRepeatFloats) {
                AscendC::MulAddDst<float, float>(ub.pvAcc[t * rowFloats + d], ub.v32[part * hdVPad + d], probs,
                                                 Min(kRepeatFloats, hdVPad - d), Repeats(count), PvProduct(hdVPad));
            }
        }
    }
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_PV_H_
