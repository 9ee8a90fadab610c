// SPDX-License-Identifier: Apache-2.0
// Decides into how many parts the keys of a head are split, from a model of the time. Every constant of that decision
// is here; none was measured on an NPU, so a profile may replace them. A wrong constant costs time, never correctness.
#ifndef SMALLQ_FLASH_ATTENTION_COST_H_
#define SMALLQ_FLASH_ATTENTION_COST_H_

#include "smallq_flash_attention_planner.h"

namespace SmallqFlashAttention {

// ---- constants of the model: cycles of a vector core, bytes
// -----------------------------------------------------------

constexpr double kChipBytesPerCycle = 729;  // what all cores together read from HBM: 82 % of 1.6 TB/s at 1.8 GHz
constexpr double kCoreBytesPerCycle = 67;   // what one core reads at most
constexpr double kItemCycles = 1000;        // start, finish and store of one item; the next item loads meanwhile
constexpr double kSyncCycles = 3600;        // one SyncAll
constexpr double kCombineRowCycles = 500;   // fixed cost of combining one row
constexpr double kPartBytesPerCycle = 20;   // reading partial results
constexpr double kIssueCycles = 10;         // from one vector instruction to the next
constexpr double kGain = 0.98;              // a larger number of parts must be this much better
constexpr uint32_t kLeastSplitLen = 256;    // keys
constexpr uint32_t kSplitAlign = 64;        // keys
constexpr double kMostPartBytes = 256.0 * 1024 * 1024;

// Cycles of a class of instructions: slope for each repeat, fixed until its result can be used.
struct InstructionCost {
    double slope;
    double fixed;
};
constexpr InstructionCost kCostBinary = {1, 24};
constexpr InstructionCost kCostConflict = {2, 24};  // both operands from the same banks
constexpr InstructionCost kCostScalar = {1, 26};
constexpr InstructionCost kCostFill = {1, 24};
constexpr InstructionCost kCostExp = {2, 31};
constexpr InstructionCost kCostCast = {2, 32};
constexpr InstructionCost kCostBlockReduce = {1, 38};
constexpr InstructionCost kCostWholeReduce = {7, 46};
constexpr InstructionCost kCostSpread = {1, 18};
constexpr InstructionCost kCostMultiplyAdd = {2, 26};

// count independent instructions of repeats each, then a barrier.
inline double Cycles(const InstructionCost& cost, double repeats, double count = 1) {
    const double one = cost.slope * repeats > kIssueCycles ? cost.slope * repeats : kIssueCycles;
    return count * one + cost.fixed;
}

// Cycles of the vector unit for one key of one item with a full tile, long kvLen.
inline double VectorCyclesPerKey(const TileProblem& problem, const TilePlan& plan) {
    const double blockK = plan.blockK;
    const double keys4 = CeilDiv(plan.blockK, 4);
    const double keys8 = CeilDiv(plan.blockK, 8);
    const double columnsK = RoundUp(problem.hdK, kBlockHalfs);
    const double columnsV = RoundUp(problem.hdV, kBlockHalfs);
    double scores = 0;
    for (uint32_t done = 0; done < plan.qTile; done += plan.qGroup) {
        const double group = plan.qTile - done < plan.qGroup ? plan.qTile - done : plan.qGroup;
        scores += Cycles(kCostFill, group * keys8 * DotLanes(plan) / 8);
        if (plan.wide != 0) {
            scores += columnsK / kWideColumns * Cycles(kCostCast, blockK);
            scores += columnsK / 8 * Cycles(kCostMultiplyAdd, keys8, group);
        } else {
            scores += columnsK / 16 * Cycles(kCostMultiplyAdd, keys4, group);
            scores += Cycles(kCostConflict, group * keys8);
        }
        scores += Cycles(kCostBlockReduce, keys8, group);
    }
    const double castRows = plan.castRows < plan.blockK ? plan.castRows : plan.blockK;
    const double partRows = plan.partRows < plan.blockK ? plan.partRows : plan.blockK;
    const double chunks = CeilDiv(static_cast<uint32_t>(columnsV), kRepeatFloats);
    double values = blockK / castRows * Cycles(kCostCast, castRows * columnsV / kRepeatFloats);
    values += Cycles(kCostSpread, keys8, plan.qTile);
    values += blockK / partRows * Cycles(kCostMultiplyAdd, partRows, plan.qTile * chunks);
    const double repeats = ScorePitch(plan) / kRepeatFloats;
    const double tile = plan.qTile;
    double step = Cycles(kCostScalar, tile * repeats) + 2 * Cycles(kCostBlockReduce, tile * repeats) +
                  2 * Cycles(kCostWholeReduce, tile) + 4 * Cycles(kCostBinary, 1) + Cycles(kCostExp, 1) +
                  2 * Cycles(kCostSpread, 1) + Cycles(kCostExp, tile * repeats);
    step += tile <= repeats ? Cycles(kCostBinary, repeats, tile) : Cycles(kCostBinary, tile, repeats);
    step += Cycles(kCostBinary, CeilDiv(plan.partRows * plan.hdVPad, kRepeatFloats), tile);
    return (scores + values) / blockK + step / (plan.stepBlocks * BlockColumns(plan));
}

// Cycles for one key while active cores share the memory. Where copies and vector instructions take about as long, each
// waits for the other now and then, as two buffers absorb little: a smooth maximum (square roots round the same
// everywhere).
inline double CyclesPerKey(double vectorCycles, double keyBytes, double active) {
    const double share = kChipBytesPerCycle / active;
    const double memory = keyBytes / (share < kCoreBytesPerCycle ? share : kCoreBytesPerCycle);
    const double squares[2] = {vectorCycles * vectorCycles, memory * memory};
    return sqrt(sqrt(squares[0] * squares[0] + squares[1] * squares[1]));
}

// Parts of splitLen keys each, the last one shorter; none is empty.
struct KeySplit {
    uint32_t numSplit;
    uint32_t splitLen;
};

// The even split into (about) wanted parts.
inline KeySplit EvenSplit(uint32_t kvLen, uint32_t wanted) {
    KeySplit split;
    split.splitLen = RoundUp(CeilDiv(kvLen, wanted), kSplitAlign);
    split.numSplit = CeilDiv(kvLen, split.splitLen);
    return split;
}

// items: tiles of q rows over all heads; rows: q rows over all heads. Depends on the shape and the number of cores
// only, so the same call always gives the same bits.
inline KeySplit ChooseSplit(const TileProblem& problem, const TilePlan& plan, double items, double rows,
                            uint32_t cores) {
    const double vectorCycles = VectorCyclesPerKey(problem, plan);
    const double keyBytes = 2.0 * (static_cast<double>(problem.hdK) + static_cast<double>(problem.hdV));
    const double partFloats = static_cast<double>(RoundUp(problem.hdV, kBlockFloats)) + kStatFloats;
    KeySplit best = EvenSplit(problem.kvLen, 1);
    double bestCycles = -1;
    for (uint32_t wanted = 1; wanted <= kMaxSplit; ++wanted) {
        const KeySplit split = EvenSplit(problem.kvLen, wanted);
        const double parts = wanted;
        if (split.numSplit != wanted ||
            (wanted > 1 && (split.splitLen < kLeastSplitLen || rows * parts * partFloats * 4 > kMostPartBytes))) {
            continue;
        }
        const double length = split.splitLen < problem.kvLen ? split.splitLen : problem.kvLen;
        const double mean = static_cast<double>(problem.kvLen) / parts;  // the last part is shorter, on some cores
        const double whole = floor(items * parts / cores);
        const double rest = items * parts - whole * cores;
        double cycles = whole * (kItemCycles + mean * CyclesPerKey(vectorCycles, keyBytes, cores));
        if (rest > 0) {
            cycles += kItemCycles + length * CyclesPerKey(vectorCycles, keyBytes, rest);
        }
        if (wanted > 1) {
            cycles +=
                kSyncCycles + ceil(rows / cores) * (kCombineRowCycles + parts * partFloats * 4 / kPartBytesPerCycle +
                                                    parts * problem.hdV / kRepeatFloats * 4);
        }
        if (bestCycles < 0 || cycles < bestCycles * kGain) {
            bestCycles = cycles;
            best = split;
        }
    }
    return best;
}

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_COST_H_
