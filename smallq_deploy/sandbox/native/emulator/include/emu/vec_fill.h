// SPDX-License-Identifier: Apache-2.0
// Duplicate (one scalar to many lanes) and Brcb (each source element to a whole block).
#ifndef SMALLQ_EMU_VEC_FILL_H_
#define SMALLQ_EMU_VEC_FILL_H_

#include "lanes.h"
#include "params.h"

namespace emu {

template <typename T>
void Fill(const AscendC::LocalTensor<T>& dst, T value, const Iteration& iteration, uint32_t blockStride,
          uint32_t repeatStride, Where at) {
    static_assert(sizeof(T) == 2 || sizeof(T) == 4, "Duplicate writes 16 or 32 bit elements");
    constexpr int kLanes = static_cast<int>(kRepeatBytes / sizeof(T));
    if (iteration.repeats == 0) {
        return;
    }
    VectorEvent event = Describe("Duplicate", Shape::kFill, kLanes, iteration, at);
    event.operandCount = 1;
    event.operands[0] = LaneOperand("dst", dst, kLanes, blockStride, repeatStride);
    Here().Tell(event);
    T lanes[kLanes];
    for (T& lane : lanes) {
        lane = value;
    }
    const UbOperand& to = event.operands[0];
    const ActiveLanes most(event.mask, kLanes);
    const ActiveLanes tail(event.tail, kLanes);
    for (uint32_t repeat = 0; repeat < event.repeats; ++repeat) {
        StoreTyped<T, kLanes>(Here().Ub(to.address + repeat * to.repeatStride), to.blockStride, lanes,
                              repeat + 1 == event.repeats ? tail : most);
    }
}

}  // namespace emu

namespace AscendC {

template <typename T, bool isSetMask = true>
void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, uint64_t mask, const uint8_t repeatTimes,
               const uint16_t dstBlockStride, const uint8_t dstRepeatStride, emu::Where at = emu::Where::Here()) {
    constexpr uint32_t kLanes = emu::kRepeatBytes / sizeof(T);
    emu::Fill(dst, scalarValue,
              emu::Repeats<isSetMask>(repeatTimes, emu::CheckedCount("Duplicate", mask, kLanes, isSetMask, at)),
              dstBlockStride, dstRepeatStride, at);
}

template <typename T, bool isSetMask = true>
void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, uint64_t mask[], const uint8_t repeatTimes,
               const uint16_t dstBlockStride, const uint8_t dstRepeatStride, emu::Where at = emu::Where::Here()) {
    const emu::Mask bits = {{mask[0], sizeof(T) == 2 ? mask[1] : 0}};
    emu::Fill(dst, scalarValue, emu::Repeats<isSetMask>(repeatTimes, bits), dstBlockStride, dstRepeatStride, at);
}

template <typename T>
void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, const int32_t& calCount,
               emu::Where at = emu::Where::Here()) {
    emu::Fill(dst, scalarValue, emu::Elements(calCount, emu::kRepeatBytes / sizeof(T)), 1, 8, at);
}

// Each repeat reads 8 consecutive elements and writes 8 blocks, whatever the mask; it leaves the mask register at ones.
template <typename T>
void Brcb(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const uint8_t repeatTimes,
          const BrcbRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) {
    static_assert(sizeof(T) == 2 || sizeof(T) == 4, "Brcb broadcasts 16 or 32 bit elements");
    constexpr uint32_t kPerBlock = emu::kBlockBytes / sizeof(T);
    emu::Core& core = emu::Here();
    core.maskRegister[0] = core.maskRegister[1] = ~uint64_t{0};
    if (repeatTimes == 0) {
        return;
    }
    const emu::Iteration iteration = {repeatTimes, emu::kFullMask, emu::kFullMask};
    emu::VectorEvent event =
        emu::Describe("Brcb", emu::Shape::kBroadcast, emu::kRepeatBytes / sizeof(T), iteration, at);
    event.operandCount = 2;
    event.operands[0] =
        emu::LaneOperand("dst", dst, 8 * kPerBlock, repeatParams.dstBlkStride, repeatParams.dstRepStride);
    event.operands[1] = emu::LaneOperand("src0", src0, 8, 1, 1);
    event.operands[1].repeatStride = 8 * static_cast<uint32_t>(sizeof(T));
    event.operands[0].masked = event.operands[1].masked = false;
    core.Tell(event);
    for (uint32_t repeat = 0; repeat < repeatTimes; ++repeat) {
        T source[8];
        std::memcpy(source, core.Ub(event.operands[1].address + repeat * event.operands[1].repeatStride),
                    sizeof(source));
        for (uint32_t block = 0; block < 8; ++block) {
            T row[kPerBlock];
            for (T& element : row) {
                element = source[block];
            }
            std::memcpy(core.Ub(event.operands[0].address + repeat * event.operands[0].repeatStride +
                                block * event.operands[0].blockStride),
                        row, sizeof(row));
        }
    }
}

}  // namespace AscendC

#endif  // SMALLQ_EMU_VEC_FILL_H_
