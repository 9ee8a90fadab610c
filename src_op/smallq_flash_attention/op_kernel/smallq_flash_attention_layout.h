// SPDX-License-Identifier: Apache-2.0
// Unified-buffer layout of both paths, shared by the host planner and the kernel so that the bytes the planner counts
// are the bytes the kernel asks TPipe for. Plain C++11 integers, no Ascend header.
//
// Symbols: T q rows of one item, BK keys of one block, G blocks of one softmax step, R partial output rows a q row,
// CV V rows cast at a time, qg q rows of one QK group.
#ifndef SMALLQ_FLASH_ATTENTION_LAYOUT_H_
#define SMALLQ_FLASH_ATTENTION_LAYOUT_H_

#include <stdint.h>

// The kernel defines this as "__aicore__ inline" before including the file.
#ifndef SMALLQ_FN
#define SMALLQ_FN inline
#endif

namespace SmallqFlashAttention {

constexpr uint32_t kUbBlock = 32;          // bytes of one UB block, the alignment of every UB operand
constexpr uint32_t kBlockHalfs = 16;       // fp16 elements of one UB block
constexpr uint32_t kBlockFloats = 8;       // fp32 elements of one UB block
constexpr uint32_t kRepeatFloats = 64;     // fp32 elements one vector repeat works on
constexpr uint32_t kStatVectors = 7;       // m (two, ping-pong), l, alpha, row max, row sum, difference
constexpr uint32_t kStatBlockVectors = 3;  // m, l, alpha with each value repeated over one UB block

SMALLQ_FN uint32_t CeilDiv(uint32_t value, uint32_t step) { return (value + step - 1) / step; }
SMALLQ_FN uint32_t RoundUp(uint32_t value, uint32_t step) { return CeilDiv(value, step) * step; }

constexpr uint32_t kWideColumns = 64;      // bf16: columns of K rows cast to fp32 at a time
constexpr uint32_t kWidePitch = 72;        // floats from one cast K row to the next: 9 blocks, all in other bank groups
constexpr uint32_t kCombineColumns = 512;  // output columns the last phase of a KV split works on at a time
constexpr uint32_t kMaxSplit = 64;         // parts the keys of a head may be split into
constexpr uint32_t kStatFloats = 16;       // m and l of one partial row, each over one UB block

// Bytes of UB that combining a KV split takes at most, whatever the shape: it follows TPipe::Reset.
constexpr uint32_t kCombineUbBytes =
    kMaxSplit * kStatFloats * 4 + kCombineColumns * (2 * 4 + 2 + 4) + 2 * kMaxSplit * kUbBlock + 2 * kUbBlock;
static_assert(kCombineUbBytes <= 16 * 1024, "the combination must fit the least unified buffer");

// What the planner decides, in elements and rows.
struct TilePlan {
    uint32_t qTile;       // T
    uint32_t blockK;      // BK
    uint32_t stepBlocks;  // G
    uint32_t partRows;    // R
    uint32_t castRows;    // CV
    uint32_t qGroup;      // qg
    uint32_t hdKPad;      // columns of a K row in UB: hdK rounded up to 16, or a chunk of it on the largeD path
    uint32_t hdVPad;      // columns of a V row in UB: hdV rounded up to 16, or a chunk of it
    uint32_t kPitch;      // halfs from one K row in UB to the next
    uint32_t chunked;     // 1: the largeD path
    uint32_t wide;        // 1: bf16 inputs; dot products need K and q as fp32
};

// Score columns reserved for one K block: a block of 4 keys still takes the 8 results of one block reduction.
SMALLQ_FN uint32_t BlockColumns(const TilePlan& plan) {
    return plan.blockK < kBlockFloats ? kBlockFloats : plan.blockK;
}

// Floats from one score row to the next: the columns of a full step, rounded up to whole repeats.
SMALLQ_FN uint32_t ScorePitch(const TilePlan& plan) {
    return RoundUp(plan.stepBlocks * BlockColumns(plan), kRepeatFloats);
}

// Partial sums a dot product keeps: fp16 rows are multiplied 16 columns at a time, fp32 rows 8.
SMALLQ_FN uint32_t DotLanes(const TilePlan& plan) { return plan.wide != 0 ? kBlockFloats : kBlockHalfs; }

// Bytes of every buffer, in the order they lie in UB. Each is a multiple of 32; 0 means that the path has no such
// buffer.
struct UbLayout {
    uint32_t k;           // one of two: [BK][kPitch] half; on the largeD path the q chunk [T][hdKPad] half behind it
    uint32_t v;           // one of two: [BK][hdVPad] half
    uint32_t q;           // [T][hdKPad] half
    uint32_t dots;        // [qg][BK rounded up to 8][DotLanes] float, partial dot products
    uint32_t score;       // [T][ScorePitch] float
    uint32_t probBlocks;  // [T][BlockColumns] blocks, one probability repeated over a block
    uint32_t v32;         // [CV][hdVPad] float
    uint32_t pvAcc;       // [T][R][hdVPad] float
    uint32_t out;         // [T][hdVPad] half, or fp32 with m and l where a partial result is stored
    uint32_t run;         // largeD: [T][hdVPad] float, a chunk of the running output
    uint32_t q32;         // bf16: [T][hdKPad] float
    uint32_t k32;         // bf16: [BK rounded up to 8][kWidePitch] float
    uint32_t reduced;     // [T][ScorePitch / 8] float, results of a block reduction
    uint32_t stat;        // one of kStatVectors: [T rounded up to 8] float
    uint32_t statBlocks;  // one of kStatBlockVectors: [T rounded up to 8] blocks
};

SMALLQ_FN UbLayout MakeUbLayout(const TilePlan& plan) {
    const uint32_t halfBytes = 2;
    const uint32_t floatBytes = 4;
    const uint32_t columns = BlockColumns(plan);
    const uint32_t statRows = RoundUp(plan.qTile, kBlockFloats);
    const uint32_t qBytes = plan.qTile * plan.hdKPad * halfBytes;
    UbLayout ub;
    ub.k = plan.blockK * plan.kPitch * halfBytes + (plan.chunked != 0 ? qBytes : 0);
    ub.v = plan.blockK * plan.hdVPad * halfBytes;
    ub.q = plan.chunked != 0 ? 0 : qBytes;
    ub.dots = plan.qGroup * columns * DotLanes(plan) * floatBytes;
    ub.score = plan.qTile * ScorePitch(plan) * floatBytes;
    ub.probBlocks = plan.qTile * columns * kUbBlock;
    // pvAcc follows v32 and one repeat of a P*V product reads both: sizes of 256 modulo 512 put their bases in
    // different bank groups.
    ub.v32 = (plan.castRows * plan.hdVPad * floatBytes + 255) / 512 * 512 + 256;
    ub.pvAcc = plan.qTile * plan.partRows * plan.hdVPad * floatBytes;
    ub.out = plan.qTile * (plan.hdVPad * floatBytes + 2 * kUbBlock);
    ub.run = plan.chunked != 0 ? plan.qTile * plan.hdVPad * floatBytes : 0;
    ub.q32 = plan.wide != 0 ? plan.qTile * plan.hdKPad * floatBytes : 0;
    ub.k32 = plan.wide != 0 ? columns * kWidePitch * floatBytes : 0;
    ub.reduced = plan.qTile * kRepeatFloats * floatBytes + 256;
    ub.stat = statRows * floatBytes;
    ub.statBlocks = statRows * kUbBlock;
    return ub;
}

// Bytes of UB that layout takes in all.
SMALLQ_FN uint32_t UbBytes(const UbLayout& ub) {
    return 2 * ub.k + 2 * ub.v + ub.q + ub.dots + ub.score + ub.probBlocks + ub.v32 + ub.pvAcc + ub.out + ub.run +
           ub.q32 + ub.k32 + ub.reduced + kStatVectors * ub.stat + kStatBlockVectors * ub.statBlocks;
}

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_LAYOUT_H_
