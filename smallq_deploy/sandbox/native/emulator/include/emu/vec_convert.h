// SPDX-License-Identifier: Apache-2.0
// Cast between half or bfloat16 and float. 64 lanes a repeat; the 2-byte side takes 4 blocks of it.
#ifndef SMALLQ_EMU_VEC_CONVERT_H_
#define SMALLQ_EMU_VEC_CONVERT_H_

#include "lanes.h"
#include "params.h"

namespace emu {

template <typename D, typename S>
void Convert(const AscendC::LocalTensor<D>& dst, const AscendC::LocalTensor<S>& src, AscendC::RoundMode mode,
             const Iteration& iteration, const AscendC::UnaryRepeatParams& params, Where at) {
    using Short = typename std::conditional<std::is_same<D, float>::value, S, D>::type;
    static_assert((std::is_same<D, float>::value || std::is_same<S, float>::value) &&
                      (std::is_same<Short, half>::value || std::is_same<Short, bfloat16_t>::value),
                  "Cast is between half or bfloat16 and float");
    constexpr int kLanes = 64;
    if (iteration.repeats == 0) {
        return;
    }
    VectorEvent event = Describe("Cast", Shape::kElementwise, kLanes, iteration, at);
    event.operandCount = 2;
    event.operands[0] = LaneOperand("dst", dst, kLanes, params.dstBlkStride, params.dstRepStride);
    event.operands[1] = LaneOperand("src", src, kLanes, params.srcBlkStride, params.srcRepStride);
    Here().Tell(event);
    const bool nearest = mode == AscendC::RoundMode::CAST_NONE || mode == AscendC::RoundMode::CAST_RINT;
    RunLanes<D, S, kLanes, 1>(event, [mode, nearest](float* result, const float* a, const float*) {
        if (std::is_same<D, float>::value || nearest) {
            std::memcpy(result, a, sizeof(float) * kLanes);  // the store rounds to nearest even
            return;
        }
        for (int lane = 0; lane < kLanes; ++lane) {
            result[lane] = std::is_same<Short, half>::value ? HalfToFloat(FloatToHalf(a[lane], mode))
                                                            : BfloatToFloat(FloatToBfloat(a[lane], mode));
        }
    });
}

}  // namespace emu

namespace AscendC {

template <typename T1, typename T2, bool isSetMask = true>
void Cast(const LocalTensor<T1>& dst, const LocalTensor<T2>& src, const RoundMode& round_mode, const uint64_t mask[],
          const uint8_t repeatTimes, const UnaryRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) {
    emu::Convert(dst, src, round_mode, emu::Repeats<isSetMask>(repeatTimes, emu::Mask{{mask[0], 0}}), repeatParams, at);
}

template <typename T1, typename T2, bool isSetMask = true>
void Cast(const LocalTensor<T1>& dst, const LocalTensor<T2>& src, const RoundMode& round_mode, const uint64_t mask,
          const uint8_t repeatTimes, const UnaryRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) {
    emu::Convert(dst, src, round_mode,
                 emu::Repeats<isSetMask>(repeatTimes, emu::CheckedCount("Cast", mask, 64, isSetMask, at)), repeatParams,
                 at);
}

template <typename T1, typename T2>
void Cast(const LocalTensor<T1>& dst, const LocalTensor<T2>& src, const RoundMode& round_mode, const uint32_t calCount,
          emu::Where at = emu::Where::Here()) {
    const UnaryRepeatParams params(1, 1, sizeof(T1) == 2 ? 4 : 8, sizeof(T2) == 2 ? 4 : 8);
    emu::Convert(dst, src, round_mode, emu::Elements(calCount, 64), params, at);
}

}  // namespace AscendC

#endif  // SMALLQ_EMU_VEC_CONVERT_H_
