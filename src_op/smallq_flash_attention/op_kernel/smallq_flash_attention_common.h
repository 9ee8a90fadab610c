// SPDX-License-Identifier: Apache-2.0
// What every phase of the kernel shares: the shape of a tile, the scratch tensors and the repeat parameters.
#ifndef SMALLQ_FLASH_ATTENTION_COMMON_H_
#define SMALLQ_FLASH_ATTENTION_COMMON_H_

#include "kernel_operator.h"

#define SMALLQ_FN __aicore__ inline
#include "smallq_flash_attention_layout.h"

namespace SmallqFlashAttention {

using AscendC::BinaryRepeatParams;
using AscendC::GlobalTensor;
using AscendC::LocalTensor;
using AscendC::UnaryRepeatParams;

// Finite, so that "masked minus masked" is 0 and never NaN; far below any score fp16 inputs can give.
constexpr float kMaskedScore = -1.0e30f;
// The maximum before any key. Above a masked score: exp(masked - m) is 0 even for a row that sees no key at all, whose
// denominator and output stay 0.
constexpr float kNoMaximum = -1.0e29f;
// Least divisor: a row that saw a key has l >= 1, since its largest score adds exp(0); one that saw none gives 0.
constexpr float kLeastSum = 1.0e-30f;
constexpr uint32_t kDepth = 2;  // buffers of the K and V queues, loading ahead of the vector pipe

__aicore__ inline uint32_t Min(uint32_t a, uint32_t b) { return a < b ? a : b; }

// Which keys a row sees with the causal mask: row r of the head sees the keys below
// length - queryLen + r % queryLen + 1 (the rows of a K/V head are those of its q heads one after the other).
struct CausalTail {
    bool on;
    uint32_t queryLen;
    uint32_t firstRow;  // of the item, in its K/V head
    uint32_t firstKey;  // of the item
    uint32_t length;    // keys of the head
};

// What the phases need to know about the tile of one item.
struct TileShape {
    TilePlan plan;
    CausalTail tail;
    uint32_t columns;     // score columns of one K block
    uint32_t scorePitch;  // floats from one score row to the next
    uint32_t rows;        // valid q rows of this item, <= plan.qTile
    float scale;
};

// One step of an item: count blocks from block first on.
struct Step {
    uint32_t first;
    uint32_t count;
    uint32_t lastKeys;  // keys of its last block
};

// Scratch in UB; sizes in UbLayout. stat vectors hold one float a q row, *Blocks one UB block a q row.
struct Scratch {
    LocalTensor<float> dots;
    LocalTensor<float> score;
    LocalTensor<float> probBlocks;
    LocalTensor<float> v32;
    LocalTensor<float> pvAcc;
    LocalTensor<float> q32;  // bf16 only
    LocalTensor<float> k32;
    LocalTensor<float> reduced;
    LocalTensor<float> rowMaxOld;  // running maximum m before the step
    LocalTensor<float> rowMaxNew;  // and after it; the two swap at the end of a step
    LocalTensor<float> rowSum;     // running denominator l
    LocalTensor<float> alpha;      // exp(m old - m new)
    LocalTensor<float> stepMax;
    LocalTensor<float> stepSum;
    LocalTensor<float> difference;
    LocalTensor<float> maxBlocks;
    LocalTensor<float> sumBlocks;
    LocalTensor<float> alphaBlocks;
};

// ---- repeat parameters: strides in UB blocks, one helper a pattern -------------------------------------------------

constexpr uint8_t kRepeatBlocks = 8;  // blocks of one repeat

__aicore__ inline uint8_t Repeats(uint32_t count) { return static_cast<uint8_t>(count); }

// Elements follow each other in all operands.
__aicore__ inline BinaryRepeatParams Dense() {
    return BinaryRepeatParams(1, 1, 1, kRepeatBlocks, kRepeatBlocks, kRepeatBlocks);
}
__aicore__ inline UnaryRepeatParams DenseUnary() { return UnaryRepeatParams(1, 1, kRepeatBlocks, kRepeatBlocks); }

// dst and src0 dense, src1 one block used again and again.
__aicore__ inline BinaryRepeatParams ByBlock() { return BinaryRepeatParams(1, 1, 0, kRepeatBlocks, kRepeatBlocks, 0); }

// One repeat: 16 columns of 4 K rows times the same 16 columns of one q row, into 4 rows of 16 partial sums.
__aicore__ inline BinaryRepeatParams QkProduct(uint32_t kPitch) {
    return BinaryRepeatParams(1, 0, static_cast<uint8_t>(kPitch / kBlockHalfs), kRepeatBlocks, 0,
                              static_cast<uint8_t>(4 * kPitch / kBlockHalfs));
}

// One repeat: 8 columns of 8 cast K rows times the same 8 columns of one q row, into 8 rows of 8 partial sums.
__aicore__ inline BinaryRepeatParams WideQkProduct() {
    return BinaryRepeatParams(1, 0, kWidePitch / kBlockFloats, kRepeatBlocks, 0, kWidePitch);
}

// One repeat: the first halves (8 floats) of 8 rows of 16 partial sums plus the second halves.
__aicore__ inline BinaryRepeatParams FoldHalves() {
    return BinaryRepeatParams(2, 2, 2, 2 * kRepeatBlocks, 2 * kRepeatBlocks, 2 * kRepeatBlocks);
}

// One repeat: up to 64 columns of one V row times that key's probability block, into one partial output row.
__aicore__ inline BinaryRepeatParams PvProduct(uint32_t hdVPad) {
    const uint8_t row = static_cast<uint8_t>(hdVPad / kBlockFloats);
    return BinaryRepeatParams(1, 1, 0, row, row, 1);
}

// Copies each of 8 source values over one block of the destination.
__aicore__ inline void SpreadToBlocks(const LocalTensor<float>& blocks, const LocalTensor<float>& values,
                                      uint32_t count) {
    const AscendC::BrcbRepeatParams dense(1, kRepeatBlocks);
    AscendC::Brcb(blocks, values, Repeats(CeilDiv(count, kBlockFloats)), dense);
}

// row [floats] times, or divided by, one block used again and again. floats is at most 255 * 64.
struct ByOneBlock {
    __aicore__ static inline void Multiply(const LocalTensor<float>& row, const LocalTensor<float>& block,
                                           uint32_t floats) {
        const uint32_t whole = floats / kRepeatFloats;
        const uint32_t rest = floats % kRepeatFloats;
        if (whole > 0) {
            AscendC::Mul<float>(row, row, block, kRepeatFloats, Repeats(whole), ByBlock());
        }
        if (rest > 0) {
            const LocalTensor<float> tail = row[whole * kRepeatFloats];
            AscendC::Mul<float>(tail, tail, block, rest, 1, ByBlock());
        }
    }
    __aicore__ static inline void Divide(const LocalTensor<float>& row, const LocalTensor<float>& block,
                                         uint32_t floats) {
        const uint32_t whole = floats / kRepeatFloats;
        const uint32_t rest = floats % kRepeatFloats;
        if (whole > 0) {
            AscendC::Div<float>(row, row, block, kRepeatFloats, Repeats(whole), ByBlock());
        }
        if (rest > 0) {
            const LocalTensor<float> tail = row[whole * kRepeatFloats];
            AscendC::Div<float>(tail, tail, block, rest, 1, ByBlock());
        }
    }
    // row += other * block
    __aicore__ static inline void MultiplyAdd(const LocalTensor<float>& row, const LocalTensor<float>& other,
                                              const LocalTensor<float>& block, uint32_t floats) {
        const uint32_t whole = floats / kRepeatFloats;
        const uint32_t rest = floats % kRepeatFloats;
        if (whole > 0) {
            AscendC::MulAddDst<float, float>(row, other, block, kRepeatFloats, Repeats(whole), ByBlock());
        }
        if (rest > 0) {
            const uint32_t done = whole * kRepeatFloats;
            AscendC::MulAddDst<float, float>(row[done], other[done], block, rest, 1, ByBlock());
        }
    }
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_COMMON_H_
