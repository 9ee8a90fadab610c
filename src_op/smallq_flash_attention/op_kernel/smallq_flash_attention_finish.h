// SPDX-License-Identifier: Apache-2.0
// From the partial sums of an item to rows that can be stored (kernel design, steps 10 to 12).
#ifndef SMALLQ_FLASH_ATTENTION_FINISH_H_
#define SMALLQ_FLASH_ATTENTION_FINISH_H_

#include "smallq_flash_attention_common.h"

namespace SmallqFlashAttention {

// All work on pvAcc [row][R][width] float; width is a multiple of 16. Barriers: each begins where everything before it
// is visible and ends with a barrier, except the two that write to out, a buffer of a queue.
struct FinishRows {
    // m = -1e29, l = 0. The item before may still read them: one barrier first.
    __aicore__ static inline void ResetStats(const TileShape& shape, const Scratch& ub) {
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Duplicate<float>(ub.rowMaxOld, kNoMaximum, shape.rows, 1, 1, kRepeatBlocks);
        AscendC::Duplicate<float>(ub.rowSum, 0.0f, shape.rows, 1, 1, kRepeatBlocks);
    }

    // pvAcc = 0.
    __aicore__ static inline void ClearSums(const TileShape& shape, const Scratch& ub, uint32_t width) {
        AscendC::Duplicate<float>(ub.pvAcc, 0.0f, static_cast<int32_t>(shape.rows * shape.plan.partRows * width));
        AscendC::PipeBarrier<PIPE_V>();
    }

    // What was summed before this step, times exp(m old - m new). No barrier at the end: the next block's is enough.
    __aicore__ static inline void Rescale(const TileShape& shape, const Scratch& ub, uint32_t width) {
        const uint32_t rowFloats = shape.plan.partRows * width;
        for (uint32_t t = 0; t < shape.rows; ++t) {
            ByOneBlock::Multiply(ub.pvAcc[t * rowFloats], ub.alphaBlocks[t * kBlockFloats], rowFloats);
        }
    }

    // The R partial rows of each q row into the first of them.
    __aicore__ static inline void AddPartRows(const TileShape& shape, const Scratch& ub, uint32_t width) {
        AscendC::PipeBarrier<PIPE_V>();
        for (uint32_t half = shape.plan.partRows / 2; half > 0; half /= 2) {
            const uint32_t floats = half * width;
            for (uint32_t t = 0; t < shape.rows; ++t) {
                const LocalTensor<float> row = Row(shape, ub, t, width);
                AscendC::Add<float>(row, row, row[floats], static_cast<int32_t>(floats));
            }
            AscendC::PipeBarrier<PIPE_V>();
        }
    }

    // m and l of each row over one block each, in maxBlocks and sumBlocks.
    __aicore__ static inline void SpreadStats(const TileShape& shape, const Scratch& ub) {
        SpreadToBlocks(ub.maxBlocks, ub.rowMaxOld, shape.rows);
        SpreadToBlocks(ub.sumBlocks, ub.rowSum, shape.rows);
        AscendC::PipeBarrier<PIPE_V>();
    }

    // The divisor of each row over one block, in sumBlocks.
    __aicore__ static inline void SpreadDivisors(const TileShape& shape, const Scratch& ub) {
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Maxs<float>(ub.rowSum, ub.rowSum, kLeastSum, shape.rows, 1, DenseUnary());
        AscendC::PipeBarrier<PIPE_V>();
        SpreadToBlocks(ub.sumBlocks, ub.rowSum, shape.rows);
        AscendC::PipeBarrier<PIPE_V>();
    }

    // out [row][width] = first partial row / l, rounded to the output type. Overwrites that row of pvAcc.
    template <typename T>
    __aicore__ static inline void Divide(const TileShape& shape, const Scratch& ub, const LocalTensor<T>& out,
                                         uint32_t width) {
        for (uint32_t t = 0; t < shape.rows; ++t) {
            ByOneBlock::Divide(Row(shape, ub, t, width), ub.sumBlocks[t * kBlockFloats], width);
        }
        AscendC::PipeBarrier<PIPE_V>();
        for (uint32_t t = 0; t < shape.rows; ++t) {
            AscendC::Cast<T, float>(out[t * width], Row(shape, ub, t, width), AscendC::RoundMode::CAST_RINT, width);
        }
    }

    // out [row][width] float = first partial row.
    __aicore__ static inline void Copy(const TileShape& shape, const Scratch& ub, const LocalTensor<float>& out,
                                       uint32_t width) {
        for (uint32_t t = 0; t < shape.rows; ++t) {
            AscendC::Adds<float>(out[t * width], Row(shape, ub, t, width), 0.0f, static_cast<int32_t>(width));
        }
    }

    __aicore__ static inline LocalTensor<float> Row(const TileShape& shape, const Scratch& ub, uint32_t t,
                                                    uint32_t width) {
        return ub.pvAcc[t * shape.plan.partRows * width];
    }
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_FINISH_H_
