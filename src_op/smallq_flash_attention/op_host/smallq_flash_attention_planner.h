// SPDX-License-Identifier: Apache-2.0
// Chooses tile sizes so that one item fits UB, and deals items to cores. Plain C++11, integers and doubles only: the
// tiling function and the host unit tests use the same code.
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
constexpr uint32_t kSplitAlign = 64;  // keys

// Bytes a plan may spend on partial outputs and on cast V rows, and score columns of one softmax step.
struct QualityLevel {
    uint32_t accumulatorBytes;
    uint32_t castBytes;
    uint32_t stepColumnsFewRows;   // T <= 4
    uint32_t stepColumnsManyRows;  // T > 4
};

// How items are dealt: the first itemsTail cores take itemsPerCore + 1 items, the others itemsPerCore.
struct WorkSplit {
    uint32_t usedCores;
    uint32_t itemsPerCore;
    uint32_t itemsTail;
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

// The plan for one (quality, T, BK), before it is known whether it fits.
inline TilePlan DraftPlan(uint32_t hdK, uint32_t hdV, uint32_t kvLen, uint32_t qTile, uint32_t blockK,
                          const QualityLevel& level) {
    TilePlan plan;
    plan.qTile = qTile;
    plan.blockK = blockK;
    plan.hdKPad = RoundUp(hdK, kBlockHalfs);
    plan.hdVPad = RoundUp(hdV, kBlockHalfs);
    // Rows 256 bytes apart would put the four K rows of a repeat into the same UB bank groups.
    plan.kPitch = plan.hdKPad + (plan.hdKPad % 128 == 0 ? kBlockHalfs : 0);
    plan.partRows = PartialRows(blockK, qTile, plan.hdVPad, level.accumulatorBytes);
    plan.castRows = blockK;
    while (plan.castRows > plan.partRows && plan.castRows * plan.hdVPad * 4 > level.castBytes) {
        plan.castRows /= 2;
    }
    plan.qGroup = qTile;
    while (plan.qGroup > 1 && plan.qGroup * RoundUp(blockK, kBlockFloats) * 64 > 16 * 1024) {
        plan.qGroup = CeilDiv(plan.qGroup, 2);
    }
    const uint32_t columns = BlockColumns(plan);
    const uint32_t most = (qTile <= 4 ? level.stepColumnsFewRows : level.stepColumnsManyRows) / columns;
    const uint32_t needed = CeilDiv(kvLen, columns);
    plan.stepBlocks = most < needed ? most : needed;
    if (plan.stepBlocks == 0) {
        plan.stepBlocks = 1;
    }
    return plan;
}

// Finds the plan for head sizes 1 .. kMaxHdK and 1 .. kMaxHdV in at most ubLimit bytes of UB. False when none fits.
// Order of preference: BK of at least 16, then the largest q tile, then the richest quality level, then the largest BK.
inline bool MakePlan(uint32_t hdK, uint32_t hdV, uint32_t qLen, uint32_t kvLen, uint64_t ubLimit, TilePlan* result) {
    static const QualityLevel levels[] = {{32 * 1024, 32 * 1024, 512, 256},
                                          {16 * 1024, 16 * 1024, 256, 128},
                                          {8 * 1024, 8 * 1024, 128, 64},
                                          {0, 0, 64, 64}};
    static const uint32_t floors[] = {kGoodBlockK, kMinBlockK};
    if (hdK < 1 || hdV < 1 || qLen < 1 || kvLen < 1 || hdK > kMaxHdK || hdV > kMaxHdV) {
        return false;
    }
    const uint32_t evenTile = CeilDiv(qLen, CeilDiv(qLen, kMaxQTile));
    for (uint32_t floor : floors) {
        uint32_t qTile = evenTile;
        while (true) {
            for (const QualityLevel& level : levels) {
                for (uint32_t blockK = kMaxBlockK; blockK >= floor; blockK /= 2) {
                    const TilePlan plan = DraftPlan(hdK, hdV, kvLen, qTile, blockK, level);
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

// Deals items (at least 1) to at most cores (at least 1) cores, evenly. False when a core would get 2^32 or more.
inline bool SplitWork(uint64_t items, uint32_t cores, WorkSplit* result) {
    result->usedCores = items < cores ? static_cast<uint32_t>(items) : cores;
    const uint64_t perCore = items / result->usedCores;
    if (perCore >= UINT32_MAX) {
        return false;
    }
    result->itemsPerCore = static_cast<uint32_t>(perCore);
    result->itemsTail = static_cast<uint32_t>(items % result->usedCores);
    return true;
}

inline float AttentionScale(uint32_t hdK) { return static_cast<float>(1.0 / sqrt(static_cast<double>(hdK))); }

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_PLANNER_H_
