// SPDX-License-Identifier: Apache-2.0
// One step of the online softmax over the scores of up to G blocks (kernel design, steps 5 to 7).
#ifndef SMALLQ_FLASH_ATTENTION_SOFTMAX_H_
#define SMALLQ_FLASH_ATTENTION_SOFTMAX_H_

#include "smallq_flash_attention_common.h"
#include "smallq_flash_attention_mask.h"

namespace SmallqFlashAttention {

// Reads and writes: score[row][0 .. used) float, scores in, probabilities exp(score - m) out; m, l of each row;
// alphaBlocks, exp(m old - m new) of each row, by which the caller scales what it summed before this step.
// Uses reduced and the other stat vectors. step is not empty.
// Barriers left to the caller: one between this and whatever next touches l; none for the rest.
struct SoftmaxStep {
    __aicore__ static inline void Run(const TileShape& shape, Scratch& ub, const Step& step) {
        const uint32_t valid = (step.count - 1) * shape.columns + step.lastKeys;
        const uint32_t used = RoundUp(step.count * shape.columns, kRepeatFloats);
        const uint32_t chunks = used / kRepeatFloats;  // repeats a row
        ForScores(shape, ub, used, Op::Scale);
        AscendC::PipeBarrier<PIPE_V>();
        MaskScores::Run(shape, ub, step, valid, used);
        ForScores(shape, ub, used, Op::BlockMax);
        AscendC::PipeBarrier<PIPE_V>();
        const int32_t reducedLanes = static_cast<int32_t>(used / kBlockFloats);
        const int32_t reducedPitch = static_cast<int32_t>(shape.scorePitch / kRepeatFloats);  // blocks
        const int32_t rows = static_cast<int32_t>(shape.rows);
        AscendC::WholeReduceMax<float>(ub.stepMax, ub.reduced, reducedLanes, rows, 1, 1, reducedPitch,
                                       AscendC::ReduceOrder::ORDER_ONLY_VALUE);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Max<float>(ub.rowMaxNew, ub.rowMaxOld, ub.stepMax, shape.rows, 1, Dense());
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Sub<float>(ub.difference, ub.rowMaxOld, ub.rowMaxNew, shape.rows, 1, Dense());
        SpreadToBlocks(ub.maxBlocks, ub.rowMaxNew, shape.rows);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Exp<float>(ub.alpha, ub.difference, shape.rows, 1, DenseUnary());
        for (uint32_t t = 0; t < shape.rows; ++t) {
            const LocalTensor<float> row = ub.score[t * shape.scorePitch];
            AscendC::Sub<float>(row, row, ub.maxBlocks[t * kBlockFloats], kRepeatFloats, Repeats(chunks), ByBlock());
        }
        AscendC::PipeBarrier<PIPE_V>();
        ForScores(shape, ub, used, Op::Exponential);
        AscendC::PipeBarrier<PIPE_V>();
        ForScores(shape, ub, used, Op::BlockSum);
        AscendC::Mul<float>(ub.rowSum, ub.rowSum, ub.alpha, shape.rows, 1, Dense());
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::WholeReduceSum<float>(ub.stepSum, ub.reduced, reducedLanes, rows, 1, 1, reducedPitch);
        SpreadToBlocks(ub.alphaBlocks, ub.alpha, shape.rows);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Add<float>(ub.rowSum, ub.rowSum, ub.stepSum, shape.rows, 1, Dense());
        const LocalTensor<float> previous = ub.rowMaxOld;
        ub.rowMaxOld = ub.rowMaxNew;
        ub.rowMaxNew = previous;
    }

private:
    enum class Op { Scale, BlockMax, Exponential, BlockSum };

    // Applies op to the used columns of every row: all rows in one instruction when they follow each other.
    __aicore__ static inline void ForScores(const TileShape& shape, const Scratch& ub, uint32_t used, Op op) {
        const uint32_t chunks = used / kRepeatFloats;
        if (used == shape.scorePitch) {
            Apply(shape, ub, 0, shape.rows * chunks, op);
            return;
        }
        for (uint32_t t = 0; t < shape.rows; ++t) {
            Apply(shape, ub, t, chunks, op);
        }
    }

    __aicore__ static inline void Apply(const TileShape& shape, const Scratch& ub, uint32_t row, uint32_t repeats,
                                        Op op) {
        const LocalTensor<float> score = ub.score[row * shape.scorePitch];
        const LocalTensor<float> reduced = ub.reduced[row * shape.scorePitch / kBlockFloats];
        const int32_t lanes = static_cast<int32_t>(kRepeatFloats);
        if (op == Op::Scale) {
            AscendC::Muls<float>(score, score, shape.scale, kRepeatFloats, Repeats(repeats), DenseUnary());
        } else if (op == Op::BlockMax) {
            AscendC::BlockReduceMax<float>(reduced, score, static_cast<int32_t>(repeats), lanes, 1, 1, kRepeatBlocks);
        } else if (op == Op::Exponential) {
            AscendC::Exp<float>(score, score, kRepeatFloats, Repeats(repeats), DenseUnary());
        } else {
            AscendC::BlockReduceSum<float>(reduced, score, static_cast<int32_t>(repeats), lanes, 1, 1, kRepeatBlocks);
        }
    }
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_SOFTMAX_H_
