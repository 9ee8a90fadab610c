// SPDX-License-Identifier: Apache-2.0
// Chooses tile sizes so that one item fits UB. Plain C++11, integers and doubles only: the tiling function and the host
// unit tests use the same code.
#ifndef SMALLQ_FLASH_ATTENTION_PLANNER_H_
#define SMALLQ_FLASH_ATTENTION_PLANNER_H_

#include <math.h>
#include <stdint.h>

#include "../op_kernel/smallq_flash_attention_layout.h"

namespace SmallqFlashAttention {

// Limits of the normal path: repeat strides are 8-bit counts of UB blocks, four K rows or one fp32 V row a repeat.
constexpr uint32_t kMaxHdK = 1008;
constexpr uint32_t kMaxHdV = 1024;
// Compare and Select of dav-c220 use scratch from this UB offset on (TMP_UB_OFFSET of CANN 8.1,
// kernel_utils_constants.h).
constexpr uint64_t kUbCeiling = 184 * 1024;
constexpr uint32_t kMaxQTile = 8;
constexpr uint32_t kMaxBlockK = 64;
constexpr uint32_t kMinBlockK = 4;
// A block this small or smaller is taken only when no q tile fits with a larger one.
constexpr uint32_t kGoodBlockK = 16;
// The largeD path: chunks of at most this many columns, q rows of an item, partial output rows, keys of a block.
constexpr uint32_t kLargeChunk = 512;
constexpr uint32_t kLeastChunk = 64;
constexpr uint32_t kLargeQTile = 4;
constexpr uint32_t kLargePartRows = 2;
constexpr uint32_t kLargeBlockK = 16;

// Bytes a plan may spend on partial outputs and on cast V rows, and score columns of one softmax step.
struct QualityLevel {
    uint32_t accumulatorBytes;
    uint32_t castBytes;
    uint32_t stepColumnsFewRows;   // T <= 4
    uint32_t stepColumnsManyRows;  // T > 4
};

// What a plan depends on.
struct TileProblem {
    uint32_t hdK;
    uint32_t hdV;
    uint32_t qLen;  // q rows of one K/V head
    uint32_t kvLen;
    uint32_t wide;  // 1: bf16
};

// R: the largest power of two up to BK with R * T <= 64 whose accumulators stay within capBytes.
inline uint32_t PartialRows(uint32_t blockK, uint32_t qTile, uint32_t hdVPad, uint32_t capBytes) {
    uint32_t parts = 1;
    while (parts * 2 <= blockK && parts * 2 * qTile <= 64 &&
           static_cast<uint64_t>(qTile) * parts * 2 * hdVPad * 4 <= capBytes) {
        parts *= 2;
    }
    return parts;
}

inline uint32_t StepBlocks(const TilePlan& plan, uint32_t kvLen, uint32_t stepColumns) {
    const uint32_t most = stepColumns / BlockColumns(plan);
    const uint32_t needed = CeilDiv(kvLen, BlockColumns(plan));
    const uint32_t blocks = most < needed ? most : needed;
    return blocks == 0 ? 1 : blocks;
}

// Rows 256 bytes apart would put the four K rows of a repeat into the same UB bank groups.
inline uint32_t KeyPitch(uint32_t columns) { return columns + (columns % 128 == 0 ? kBlockHalfs : 0); }

// The plan for one (quality, T, BK), before it is known whether it fits.
inline TilePlan DraftPlan(const TileProblem& problem, uint32_t qTile, uint32_t blockK, const QualityLevel& level) {
    TilePlan plan;
    plan.chunked = 0;
    plan.wide = problem.wide;
    plan.qTile = qTile;
    plan.blockK = blockK;
    plan.hdKPad = RoundUp(problem.hdK, kBlockHalfs);
    plan.hdVPad = RoundUp(problem.hdV, kBlockHalfs);
    plan.kPitch = KeyPitch(plan.hdKPad);
    plan.partRows = PartialRows(blockK, qTile, plan.hdVPad, level.accumulatorBytes);
    plan.castRows = blockK;
    while (plan.castRows > plan.partRows && plan.castRows * plan.hdVPad * 4 > level.castBytes) {
        plan.castRows /= 2;
    }
    plan.qGroup = qTile;
    while (plan.qGroup > 1 && plan.qGroup * RoundUp(blockK, kBlockFloats) * 64 > 16 * 1024) {
        plan.qGroup = CeilDiv(plan.qGroup, 2);
    }
    plan.stepBlocks =
        StepBlocks(plan, problem.kvLen, qTile <= 4 ? level.stepColumnsFewRows : level.stepColumnsManyRows);
    return plan;
}

// The largeD plan for chunks of up to chunk columns, before it is known whether it fits.
inline TilePlan DraftLargePlan(const TileProblem& problem, uint32_t qTile, uint32_t blockK, uint32_t chunk) {
    TilePlan plan;
    plan.chunked = 1;
    plan.wide = problem.wide;
    plan.qTile = qTile;
    plan.blockK = blockK;
    plan.hdKPad = problem.hdK < chunk ? RoundUp(problem.hdK, kBlockHalfs) : chunk;
    plan.hdVPad = problem.hdV < chunk ? RoundUp(problem.hdV, kBlockHalfs) : chunk;
    plan.kPitch = KeyPitch(plan.hdKPad);
    plan.partRows = kLargePartRows;
    plan.castRows = blockK;
    plan.qGroup = qTile;
    plan.stepBlocks = StepBlocks(plan, problem.kvLen, chunk);
    return plan;
}

// The rows of a head in even tiles of at most most.
inline uint32_t EvenTile(uint32_t qLen, uint32_t most) { return CeilDiv(qLen, CeilDiv(qLen, most)); }

inline bool IsProblem(const TileProblem& problem) {
    return problem.hdK >= 1 && problem.hdV >= 1 && problem.qLen >= 1 && problem.kvLen >= 1;
}

// Finds the plan for head sizes 1 .. kMaxHdK and 1 .. kMaxHdV in at most ubLimit bytes of UB. False when none fits.
// Order of preference: BK of at least 16, then the largest q tile, then the richest quality level, then the largest BK.
inline bool MakePlan(const TileProblem& problem, uint64_t ubLimit, TilePlan* result) {
    static const QualityLevel levels[] = {{32 * 1024, 32 * 1024, 512, 256},
                                          {16 * 1024, 16 * 1024, 256, 128},
                                          {8 * 1024, 8 * 1024, 128, 64},
                                          {0, 0, 64, 64}};
    static const uint32_t floors[] = {kGoodBlockK, kMinBlockK};
    if (!IsProblem(problem) || problem.hdK > kMaxHdK || problem.hdV > kMaxHdV) {
        return false;
    }
    const uint32_t evenTile = EvenTile(problem.qLen, kMaxQTile);
    for (uint32_t floor : floors) {
        uint32_t qTile = evenTile;
        while (true) {
            for (const QualityLevel& level : levels) {
                for (uint32_t blockK = kMaxBlockK; blockK >= floor; blockK /= 2) {
                    const TilePlan plan = DraftPlan(problem, qTile, blockK, level);
                    if (UbBytes(MakeUbLayout(plan)) <= ubLimit) {
                        *result = plan;
                        return true;
                    }
                }
            }
            if (qTile == 1) {
                break;
            }
            qTile = CeilDiv(qTile, 2);
        }
    }
    return false;
}

// Finds the largeD plan. Any head size, so only too little UB makes it false. Order of preference: 16 keys of a block,
// then the largest q tile, then the widest chunk.
inline bool MakeLargePlan(const TileProblem& problem, uint64_t ubLimit, TilePlan* result) {
    if (!IsProblem(problem)) {
        return false;
    }
    for (uint32_t blockK = kLargeBlockK; blockK >= kMinBlockK; blockK /= 2) {
        uint32_t qTile = EvenTile(problem.qLen, kLargeQTile);
        while (true) {
            for (uint32_t chunk = kLargeChunk; chunk >= kLeastChunk; chunk /= 2) {
                const TilePlan plan = DraftLargePlan(problem, qTile, blockK, chunk);
                if (UbBytes(MakeUbLayout(plan)) <= ubLimit) {
                    *result = plan;
                    return true;
                }
            }
            if (qTile == 1) {
                break;
            }
            qTile = CeilDiv(qTile, 2);
        }
    }
    return false;
}

inline float AttentionScale(uint32_t hdK) { return static_cast<float>(1.0 / sqrt(static_cast<double>(hdK))); }

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_PLANNER_H_
