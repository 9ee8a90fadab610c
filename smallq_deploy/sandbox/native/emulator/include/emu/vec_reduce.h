// SPDX-License-Identifier: Apache-2.0
// BlockReduceSum/Max/Min (one result a block) and WholeReduceSum/Max/Min (one result a repeat).
//
// Sums add neighbours in a binary tree, as the API document of the reductions describes it; lanes that are masked off
// count as 0 for a sum and are skipped for a maximum or minimum. A block whose lanes are all masked off has no
// documented result: it is written as NaN and treated as never written. NaN wins a maximum or minimum (not documented
// for A2).
#ifndef SMALLQ_EMU_VEC_REDUCE_H_
#define SMALLQ_EMU_VEC_REDUCE_H_

#include <limits>

#include "lanes.h"

namespace emu {

enum class Reduction : uint8_t { kSum, kMax, kMin };

// Sum of a power of two of lanes, in place. fp16 sums round after every addition.
template <typename T>
float TreeSum(float* lanes, int count) {
    for (int width = count / 2; width >= 1; width /= 2) {
        for (int i = 0; i < width; ++i) {
            const float sum = lanes[2 * i] + lanes[2 * i + 1];
            lanes[i] = std::is_same<T, half>::value ? HalfToFloat(FloatToHalf(sum)) : sum;
        }
    }
    return lanes[0];
}

struct Extreme {
    float value;
    uint32_t lane;
    bool found;
};

inline Extreme FindExtreme(const float* lanes, const uint64_t mask[2], int first, int count, bool maximum) {
    Extreme best{std::numeric_limits<float>::quiet_NaN(), 0, false};
    for (int lane = first; lane < first + count; ++lane) {
        if (!IsActive(mask, static_cast<uint32_t>(lane))) {
            continue;
        }
        const float value = lanes[lane];
        const bool better = maximum ? value > best.value : value < best.value;
        if (!best.found || value != value || better) {
            best = Extreme{value, static_cast<uint32_t>(lane), true};
        }
        if (value != value) {
            break;
        }
    }
    return best;
}

template <typename T>
void StoreOne(uint8_t* to, float value) {
    T typed;
    if constexpr (std::is_same<T, half>::value) {
        typed.bits = FloatToHalf(value);
    } else {
        typed = value;
    }
    std::memcpy(to, &typed, sizeof(T));
}

// Checks what fits an int32 parameter but not its instruction field.
inline void CheckReduceRanges(const char* api, int32_t repeats, int32_t dstRep, int32_t srcBlk, int32_t srcRep,
                              Where at) {
    if (repeats < 0 || repeats > 255) {
        Raise(SIM_FINDING, "REPEAT_RANGE", api, Here().Block(), at, "repeat %d is not in 0..255", repeats);
    }
    for (const int32_t stride : {dstRep, srcBlk, srcRep}) {
        if (stride < 0 || stride > 65535) {
            Raise(SIM_FINDING, "STRIDE_RANGE", api, Here().Block(), at, "stride %d is not in 0..65535", stride);
        }
    }
}

template <typename T>
VectorEvent DescribeReduce(const char* api, Shape shape, const AscendC::LocalTensor<T>& dst, uint32_t dstElements,
                           uint32_t dstElementSize, uint32_t dstStep, const AscendC::LocalTensor<T>& src,
                           const Iteration& iteration, int32_t srcBlk, int32_t srcRep, Where at) {
    constexpr uint32_t kLanes = kRepeatBytes / sizeof(T);
    VectorEvent event = Describe(api, shape, kLanes, iteration, at);
    event.operandCount = 2;
    event.operands[0] = LaneOperand("dst", dst, dstElements, 1, 0);
    event.operands[0].repeatStride = dstStep;
    event.operands[0].elementSize = dstElementSize;
    event.operands[0].masked = false;
    // Documented: 8 results for a block reduction, one result otherwise.
    event.operands[0].alignment = dstElements * dstElementSize;
    event.operands[1] = LaneOperand("src", src, kLanes, static_cast<uint32_t>(srcBlk), static_cast<uint32_t>(srcRep));
    return event;
}

template <Reduction kind, typename T>
void BlockReduce(const char* api, const AscendC::LocalTensor<T>& dst, const AscendC::LocalTensor<T>& src,
                 const Iteration& iteration, int32_t dstRep, int32_t srcBlk, int32_t srcRep, Where at) {
    constexpr int kLanes = static_cast<int>(kRepeatBytes / sizeof(T));
    constexpr int kPerBlock = kLanes / 8;
    if (iteration.repeats == 0 || ActiveEnd(iteration.mask.bits, kLanes) == 0) {
        return;  // documented to do nothing on A2
    }
    // 8 results a repeat; dstRepStride counts groups of 8 results (ReduceDataBlock: 16 bytes for half, 32 for float).
    const uint32_t step = static_cast<uint32_t>(dstRep) * 8 * static_cast<uint32_t>(sizeof(T));
    const VectorEvent event =
        DescribeReduce(api, Shape::kBlockReduce, dst, 8, sizeof(T), step, src, iteration, srcBlk, srcRep, at);
    Core& core = Here();
    core.Tell(event);
    float lanes[kLanes] = {};
    for (uint32_t repeat = 0; repeat < event.repeats; ++repeat) {
        const UbOperand& from = event.operands[1];
        LoadLanes<T, kLanes>(core.Ub(from.address + repeat * from.repeatStride), from.blockStride,
                             ActiveEnd(event.mask, kLanes), lanes);
        uint8_t* to = core.Ub(event.operands[0].address + repeat * step);
        for (int block = 0; block < 8; ++block) {
            float* first = lanes + block * kPerBlock;
            float value = std::numeric_limits<float>::quiet_NaN();
            bool any = false;
            for (int i = 0; i < kPerBlock; ++i) {
                any = any || IsActive(event.mask, static_cast<uint32_t>(block * kPerBlock + i));
            }
            if (any && kind == Reduction::kSum) {
                for (int i = 0; i < kPerBlock; ++i) {
                    first[i] = IsActive(event.mask, static_cast<uint32_t>(block * kPerBlock + i)) ? first[i] : 0.0f;
                }
                value = TreeSum<T>(first, kPerBlock);
            } else if (any) {
                value = FindExtreme(lanes, event.mask, block * kPerBlock, kPerBlock, kind == Reduction::kMax).value;
            }
            StoreOne<T>(to + static_cast<size_t>(block) * sizeof(T), value);
        }
    }
}

template <Reduction kind, typename T>
void WholeReduce(const char* api, const AscendC::LocalTensor<T>& dst, const AscendC::LocalTensor<T>& src,
                 const Iteration& iteration, int32_t dstRep, int32_t srcBlk, int32_t srcRep, AscendC::ReduceOrder order,
                 Where at) {
    using AscendC::ReduceOrder;
    constexpr int kLanes = static_cast<int>(kRepeatBytes / sizeof(T));
    if (iteration.repeats == 0 || ActiveEnd(iteration.mask.bits, kLanes) == 0) {
        return;  // documented to do nothing on A2
    }
    // A result is a value, a (value, index) pair of the same width, or a 32-bit index; dstRepStride counts results.
    const bool pair = order == ReduceOrder::ORDER_VALUE_INDEX || order == ReduceOrder::ORDER_INDEX_VALUE;
    const bool onlyIndex = order == ReduceOrder::ORDER_ONLY_INDEX;
    const uint32_t size = onlyIndex ? 4 : static_cast<uint32_t>(sizeof(T));
    const uint32_t step = static_cast<uint32_t>(dstRep) * size * (pair ? 2 : 1);
    const VectorEvent event =
        DescribeReduce(api, Shape::kWholeReduce, dst, pair ? 2 : 1, size, step, src, iteration, srcBlk, srcRep, at);
    Core& core = Here();
    core.Tell(event);
    float lanes[kLanes] = {};
    for (uint32_t repeat = 0; repeat < event.repeats; ++repeat) {
        const UbOperand& from = event.operands[1];
        LoadLanes<T, kLanes>(core.Ub(from.address + repeat * from.repeatStride), from.blockStride,
                             ActiveEnd(event.mask, kLanes), lanes);
        uint8_t* to = core.Ub(event.operands[0].address + repeat * step);
        if (kind == Reduction::kSum) {
            for (int lane = 0; lane < kLanes; ++lane) {
                lanes[lane] = IsActive(event.mask, static_cast<uint32_t>(lane)) ? lanes[lane] : 0.0f;
            }
            StoreOne<T>(to, TreeSum<T>(lanes, kLanes));
            continue;
        }
        const Extreme best = FindExtreme(lanes, event.mask, 0, kLanes, kind == Reduction::kMax);
        if (onlyIndex) {
            std::memcpy(to, &best.lane, 4);
            continue;
        }
        StoreOne<T>(to + (order == ReduceOrder::ORDER_INDEX_VALUE ? sizeof(T) : 0), best.value);
        if (pair) {  // the index keeps its low bits in the width of T (little-endian)
            std::memcpy(to + (order == ReduceOrder::ORDER_INDEX_VALUE ? 0 : sizeof(T)), &best.lane, sizeof(T));
        }
    }
}

template <typename T, bool isSetMask>
Iteration ReduceRepeats(const char* api, int32_t repeats, int32_t mask, int32_t dstRep, int32_t srcBlk, int32_t srcRep,
                        Where at) {
    CheckReduceRanges(api, repeats, dstRep, srcBlk, srcRep, at);
    if (isSetMask && mask < 0) {
        Raise(SIM_FINDING, "MASK_RANGE", api, Here().Block(), at, "mask %d is negative", mask);
    }
    return Repeats<isSetMask>(static_cast<uint32_t>(repeats),
                              CheckedCount(api, static_cast<uint64_t>(mask), kRepeatBytes / sizeof(T), isSetMask, at));
}

template <typename T, bool isSetMask>
Iteration ReduceBits(const char* api, int32_t repeats, const uint64_t mask[], int32_t dstRep, int32_t srcBlk,
                     int32_t srcRep, Where at) {
    CheckReduceRanges(api, repeats, dstRep, srcBlk, srcRep, at);
    return Repeats<isSetMask>(static_cast<uint32_t>(repeats), Mask{{mask[0], sizeof(T) == 2 ? mask[1] : 0}});
}

}  // namespace emu

namespace AscendC {

// The two families order their arguments differently: BlockReduce takes repeat before mask, WholeReduce mask before
// repeat (kernel_operator_vec_reduce_intf.h).
#define SMALLQ_EMU_BLOCK_REDUCE(Name, kind)                                                                      \
    template <typename T, bool isSetMask = true>                                                                 \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t repeat, const int32_t mask,    \
              const int32_t dstRepStride, const int32_t srcBlkStride, const int32_t srcRepStride,                \
              emu::Where at = emu::Where::Here()) {                                                              \
        emu::BlockReduce<emu::Reduction::kind>(                                                                  \
            #Name, dst, src,                                                                                     \
            emu::ReduceRepeats<T, isSetMask>(#Name, repeat, mask, dstRepStride, srcBlkStride, srcRepStride, at), \
            dstRepStride, srcBlkStride, srcRepStride, at);                                                       \
    }                                                                                                            \
    template <typename T, bool isSetMask = true>                                                                 \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t repeat, const uint64_t mask[], \
              const int32_t dstRepStride, const int32_t srcBlkStride, const int32_t srcRepStride,                \
              emu::Where at = emu::Where::Here()) {                                                              \
        emu::BlockReduce<emu::Reduction::kind>(                                                                  \
            #Name, dst, src,                                                                                     \
            emu::ReduceBits<T, isSetMask>(#Name, repeat, mask, dstRepStride, srcBlkStride, srcRepStride, at),    \
            dstRepStride, srcBlkStride, srcRepStride, at);                                                       \
    }

SMALLQ_EMU_BLOCK_REDUCE(BlockReduceSum, kSum)
SMALLQ_EMU_BLOCK_REDUCE(BlockReduceMax, kMax)
SMALLQ_EMU_BLOCK_REDUCE(BlockReduceMin, kMin)
#undef SMALLQ_EMU_BLOCK_REDUCE

template <typename T, bool isSetMask = true>
void WholeReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const uint64_t mask[],
                    const int32_t repeatTimes, const int32_t dstRepStride, const int32_t srcBlkStride,
                    const int32_t srcRepStride, emu::Where at = emu::Where::Here()) {
    emu::WholeReduce<emu::Reduction::kSum>("WholeReduceSum", dst, src,
                                           emu::ReduceBits<T, isSetMask>("WholeReduceSum", repeatTimes, mask,
                                                                         dstRepStride, srcBlkStride, srcRepStride, at),
                                           dstRepStride, srcBlkStride, srcRepStride, ReduceOrder::ORDER_ONLY_VALUE, at);
}
template <typename T, bool isSetMask = true>
void WholeReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t mask, const int32_t repeatTimes,
                    const int32_t dstRepStride, const int32_t srcBlkStride, const int32_t srcRepStride,
                    emu::Where at = emu::Where::Here()) {
    emu::WholeReduce<emu::Reduction::kSum>(
        "WholeReduceSum", dst, src,
        emu::ReduceRepeats<T, isSetMask>("WholeReduceSum", repeatTimes, mask, dstRepStride, srcBlkStride, srcRepStride,
                                         at),
        dstRepStride, srcBlkStride, srcRepStride, ReduceOrder::ORDER_ONLY_VALUE, at);
}

#define SMALLQ_EMU_WHOLE_REDUCE(Name, kind)                                                                           \
    template <typename T, bool isSetMask = true>                                                                      \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const uint64_t mask[], const int32_t repeatTimes, \
              const int32_t dstRepStride, const int32_t srcBlkStride, const int32_t srcRepStride,                     \
              ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX, emu::Where at = emu::Where::Here()) {               \
        emu::WholeReduce<emu::Reduction::kind>(                                                                       \
            #Name, dst, src,                                                                                          \
            emu::ReduceBits<T, isSetMask>(#Name, repeatTimes, mask, dstRepStride, srcBlkStride, srcRepStride, at),    \
            dstRepStride, srcBlkStride, srcRepStride, order, at);                                                     \
    }                                                                                                                 \
    template <typename T, bool isSetMask = true>                                                                      \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t mask, const int32_t repeatTimes,    \
              const int32_t dstRepStride, const int32_t srcBlkStride, const int32_t srcRepStride,                     \
              ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX, emu::Where at = emu::Where::Here()) {               \
        emu::WholeReduce<emu::Reduction::kind>(                                                                       \
            #Name, dst, src,                                                                                          \
            emu::ReduceRepeats<T, isSetMask>(#Name, repeatTimes, mask, dstRepStride, srcBlkStride, srcRepStride, at), \
            dstRepStride, srcBlkStride, srcRepStride, order, at);                                                     \
    }

SMALLQ_EMU_WHOLE_REDUCE(WholeReduceMax, kMax)
SMALLQ_EMU_WHOLE_REDUCE(WholeReduceMin, kMin)
#undef SMALLQ_EMU_WHOLE_REDUCE

}  // namespace AscendC

#endif  // SMALLQ_EMU_VEC_REDUCE_H_
