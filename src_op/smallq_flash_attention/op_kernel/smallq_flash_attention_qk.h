// SPDX-License-Identifier: Apache-2.0
// Dot products of every q row with the keys of one block (kernel design, steps 1 to 4).
#ifndef SMALLQ_FLASH_ATTENTION_QK_H_
#define SMALLQ_FLASH_ATTENTION_QK_H_

#include "smallq_flash_attention_common.h"

namespace SmallqFlashAttention {

// Reads: q [rows][hdKPad] half; k [keys][kPitch] half; keys is 1 .. BK.
// Writes: score[row][column .. column + keys rounded up to 8) float, unscaled; uses dots [qg][keys][16] float.
// Barriers left to the caller: none; ends with one. Columns beyond keys hold leftovers and are masked later.
struct QkScores {
    __aicore__ static inline void Run(const TileShape& shape, const Scratch& ub, const LocalTensor<half>& q,
                                      const LocalTensor<half>& k, uint32_t keys, uint32_t column) {
        const uint32_t keys4 = RoundUp(keys, 4);
        const uint32_t keys8 = RoundUp(keys, kBlockFloats);
        const uint32_t accFloats = keys8 * kBlockHalfs;  // partial sums of one q row
        for (uint32_t first = 0; first < shape.rows; first += shape.plan.qGroup) {
            const uint32_t group = Min(shape.plan.qGroup, shape.rows - first);
            AscendC::Duplicate<float>(ub.dots, 0.0f, kRepeatFloats, Repeats(group * accFloats / kRepeatFloats), 1,
                                      kRepeatBlocks);
            AscendC::PipeBarrier<PIPE_V>();
            for (uint32_t d = 0; d < shape.plan.hdKPad; d += kBlockHalfs) {
                for (uint32_t t = 0; t < group; ++t) {
                    // Products of two fp16 values are exact in fp32; 16 lanes of partial sums a key.
                    AscendC::MulAddDst<float, half>(ub.dots[t * accFloats], q[(first + t) * shape.plan.hdKPad + d],
                                                    k[d], kRepeatFloats, Repeats(keys4 / 4),
                                                    QkProduct(shape.plan.kPitch));
                }
                AscendC::PipeBarrier<PIPE_V>();
            }
            AscendC::Add<float>(ub.dots, ub.dots, ub.dots[kBlockFloats], kRepeatFloats,
                                Repeats(group * keys8 / kBlockFloats), FoldHalves());
            AscendC::PipeBarrier<PIPE_V>();
            for (uint32_t t = 0; t < group; ++t) {
                // One result a key: the block at the start of each 16-float row.
                AscendC::BlockReduceSum<float>(ub.score[(first + t) * shape.scorePitch + column],
                                               ub.dots[t * accFloats], static_cast<int32_t>(keys8 / kBlockFloats),
                                               static_cast<int32_t>(kRepeatFloats), 1, 2, 2 * kRepeatBlocks);
            }
            AscendC::PipeBarrier<PIPE_V>();
        }
    }
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_QK_H_
