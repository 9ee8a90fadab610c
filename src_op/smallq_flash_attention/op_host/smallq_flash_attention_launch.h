// SPDX-License-Identifier: Apache-2.0
// From the shape of a call and the chip to everything the tiling struct needs. Plain C++11; the tiling function and the
// host tests use the same code.
#ifndef SMALLQ_FLASH_ATTENTION_LAUNCH_H_
#define SMALLQ_FLASH_ATTENTION_LAUNCH_H_

#include "smallq_flash_attention_cost.h"

namespace SmallqFlashAttention {

constexpr uint32_t kKeySplit = 1;  // added to a path's key when the keys of a head are split
constexpr uint32_t kKeyNormal = 1;
constexpr uint32_t kKeyLarge = 3;

struct LaunchPlan {
    TilePlan tiles;
    KeySplit split;
    uint32_t tilingKey;
    uint32_t numQTile;      // tiles of q rows of one head
    uint32_t usedCores;     // blocks
    uint32_t itemsPerCore;  // every core takes this many items,
    uint32_t itemsTail;     // the first itemsTail cores one more
    uint64_t partOffset;    // bytes from the start of the user workspace
    uint64_t statOffset;
    uint64_t runOffset;
    uint64_t workspaceBytes;  // of the user workspace
};

// Deals items (at least 1) to at most cores (at least 1) cores, evenly. False when a core would get 2^32 or more.
inline bool DealItems(uint64_t items, uint32_t cores, LaunchPlan* launch) {
    launch->usedCores = items < cores ? static_cast<uint32_t>(items) : cores;
    const uint64_t perCore = items / launch->usedCores;
    if (perCore >= UINT32_MAX) {
        return false;
    }
    launch->itemsPerCore = static_cast<uint32_t>(perCore);
    launch->itemsTail = static_cast<uint32_t>(items % launch->usedCores);
    return true;
}

// What follows from tiles and split: key, items, workspace. False when there are too many items.
inline bool FinishLaunch(const TileProblem& problem, uint32_t numHeads, uint32_t cores, LaunchPlan* launch) {
    const TilePlan& tiles = launch->tiles;
    const bool isSplit = launch->split.numSplit > 1;
    launch->tilingKey = (tiles.chunked != 0 ? kKeyLarge : kKeyNormal) + (isSplit ? kKeySplit : 0);
    launch->numQTile = CeilDiv(problem.qLen, tiles.qTile);
    const uint64_t tileCount = static_cast<uint64_t>(numHeads) * launch->numQTile;
    if (tileCount > UINT64_MAX / kMaxSplit || !DealItems(tileCount * launch->split.numSplit, cores, launch)) {
        return false;
    }
    const uint64_t columns = RoundUp(problem.hdV, kBlockFloats);
    launch->partOffset = launch->statOffset = launch->runOffset = launch->workspaceBytes = 0;
    if (isSplit) {
        const uint64_t parts = static_cast<uint64_t>(numHeads) * problem.qLen * launch->split.numSplit;
        launch->statOffset = parts * columns * 4;
        launch->workspaceBytes = launch->statOffset + parts * kStatFloats * 4;
    } else if (tiles.chunked != 0) {
        launch->workspaceBytes = launch->usedCores * tiles.qTile * columns * 4;
    }
    launch->workspaceBytes = (launch->workspaceBytes + 511) / 512 * 512;
    return true;
}

// Everything, with the normal path where it is possible and the best split. False when no plan fits ubLimit or there
// are too many items.
inline bool PlanLaunch(const TileProblem& problem, uint32_t numHeads, uint32_t cores, uint64_t ubLimit,
                       LaunchPlan* launch) {
    if (!MakePlan(problem, ubLimit, &launch->tiles) && !MakeLargePlan(problem, ubLimit, &launch->tiles)) {
        return false;
    }
    const double heads = numHeads;
    launch->split = ChooseSplit(problem, launch->tiles, heads * CeilDiv(problem.qLen, launch->tiles.qTile),
                                heads * problem.qLen, cores);
    return FinishLaunch(problem, numHeads, cores, launch);
}

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_LAUNCH_H_
