// SPDX-License-Identifier: Apache-2.0
// Dot products of a group of q rows with the keys of one block (kernel design, steps 1 to 4).
#ifndef SMALLQ_FLASH_ATTENTION_QK_H_
#define SMALLQ_FLASH_ATTENTION_QK_H_

#include "smallq_flash_attention_common.h"

namespace SmallqFlashAttention {

// What q looks like while it is multiplied: as it came for fp16, fp32 for bf16.
template <typename T>
struct QkOperand {
    using Type = float;
};
template <>
struct QkOperand<half> {
    using Type = half;
};

// Order of calls for one block: Clear, AddColumns for every chunk of columns, Reduce. Uses dots [group][keys rounded up
// to 8][lanes] float. Each ends with a barrier; none is left to the caller.
template <typename T>
struct QkScores {
    using Operand = typename QkOperand<T>::Type;

    // q as AddColumns wants it: elements of it, rows at the pitch they came with.
    __aicore__ static inline LocalTensor<Operand> Prepare(const Scratch& ub, const LocalTensor<T>& q,
                                                          uint32_t elements) {
        if constexpr (sizeof(Operand) == sizeof(T)) {
            (void)ub;
            (void)elements;
            return q;
        } else {
            AscendC::Cast<float, T>(ub.q32, q, AscendC::RoundMode::CAST_NONE, elements);
            AscendC::PipeBarrier<PIPE_V>();
            return ub.q32;
        }
    }

    __aicore__ static inline void Clear(const Scratch& ub, uint32_t group, uint32_t keys) {
        const uint32_t floats = group * RoundUp(keys, kBlockFloats) * kLanes;
        AscendC::Duplicate<float>(ub.dots, 0.0f, kRepeatFloats, Repeats(floats / kRepeatFloats), 1, kRepeatBlocks);
        AscendC::PipeBarrier<PIPE_V>();
    }

    // Reads: q [group][qPitch]; k [keys][kPitch]; width columns, a multiple of 16. Adds to dots; what it adds to the
    // rows after the last key is leftovers, whose scores are masked later.
    __aicore__ static inline void AddColumns(const TileShape& shape, const Scratch& ub, const LocalTensor<Operand>& q,
                                             uint32_t qPitch, const LocalTensor<T>& k, uint32_t width, uint32_t group,
                                             uint32_t keys) {
        const uint32_t accFloats = RoundUp(keys, kBlockFloats) * kLanes;  // partial sums of one q row
        if constexpr (sizeof(Operand) == sizeof(T)) {
            const uint32_t keys4 = RoundUp(keys, 4);
            for (uint32_t d = 0; d < width; d += kBlockHalfs) {
                for (uint32_t t = 0; t < group; ++t) {
                    // Products of two fp16 values are exact in fp32; 16 lanes of partial sums a key.
                    AscendC::MulAddDst<float, T>(ub.dots[t * accFloats], q[t * qPitch + d], k[d], kRepeatFloats,
                                                 Repeats(keys4 / 4), QkProduct(shape.plan.kPitch));
                }
                AscendC::PipeBarrier<PIPE_V>();
            }
        } else {
            const uint32_t keys8 = RoundUp(keys, kBlockFloats);
            const UnaryRepeatParams rows(1, 1, kWidePitch / kBlockFloats,
                                         static_cast<uint8_t>(shape.plan.kPitch / kBlockHalfs));
            for (uint32_t first = 0; first < width; first += kWideColumns) {
                const uint32_t columns = Min(kWideColumns, width - first);
                AscendC::Cast<float, T>(ub.k32, k[first], AscendC::RoundMode::CAST_NONE, columns, Repeats(keys), rows);
                AscendC::PipeBarrier<PIPE_V>();
                for (uint32_t d = 0; d < columns; d += kBlockFloats) {
                    for (uint32_t t = 0; t < group; ++t) {
                        AscendC::MulAddDst<float, float>(ub.dots[t * accFloats], q[t * qPitch + first + d], ub.k32[d],
                                                         kRepeatFloats, Repeats(keys8 / kBlockFloats), WideQkProduct());
                    }
                    AscendC::PipeBarrier<PIPE_V>();
                }
            }
        }
    }

    // Writes: score[firstRow + t][column .. column + keys rounded up to 8) float, unscaled, for t below group.
    __aicore__ static inline void Reduce(const TileShape& shape, const Scratch& ub, uint32_t firstRow, uint32_t group,
                                         uint32_t keys, uint32_t column) {
        const uint32_t keys8 = RoundUp(keys, kBlockFloats);
        constexpr bool halves = sizeof(Operand) == sizeof(T);
        if constexpr (halves) {
            AscendC::Add<float>(ub.dots, ub.dots, ub.dots[kBlockFloats], kRepeatFloats,
                                Repeats(group * keys8 / kBlockFloats), FoldHalves());
            AscendC::PipeBarrier<PIPE_V>();
        }
        constexpr int32_t rowBlocks = static_cast<int32_t>(kLanes / kBlockFloats);
        for (uint32_t t = 0; t < group; ++t) {
            // One result a key: the block at the start of each row of partial sums.
            AscendC::BlockReduceSum<float>(ub.score[(firstRow + t) * shape.scorePitch + column],
                                           ub.dots[t * keys8 * kLanes], static_cast<int32_t>(keys8 / kBlockFloats),
                                           static_cast<int32_t>(kRepeatFloats), 1, rowBlocks,
                                           kRepeatBlocks * rowBlocks);
        }
        AscendC::PipeBarrier<PIPE_V>();
    }

private:
    static constexpr uint32_t kLanes = sizeof(Operand) == sizeof(T) ? kBlockHalfs : kBlockFloats;
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_QK_H_
