// SPDX-License-Identifier: Apache-2.0
// Axpy: dst += src * scalar, for (half, half), (float, float) and (float, half) of dst and src; the scalar has the type
// of src (kernel_operator_vec_ternary_scalar_intf.h of CANN 8.1). Chosen here, not documented: the product is rounded
// before the sum, as in MulAddDst.
#ifndef SMALLQ_EMU_VEC_AXPY_H_
#define SMALLQ_EMU_VEC_AXPY_H_

#include "vec_arith.h"

namespace emu {

template <typename D, typename S>
void ScaledAdd(const AscendC::LocalTensor<D>& dst, const AscendC::LocalTensor<S>& src, float scalar,
               const Iteration& iteration, const AscendC::UnaryRepeatParams& params, Where at) {
    static_assert(sizeof(D) >= sizeof(S), "Axpy knows no destination narrower than its source");
    constexpr int kLanes = LanesOf<D, S>();
    if (iteration.repeats == 0) {
        return;
    }
    VectorEvent event = Describe("Axpy", Shape::kElementwise, kLanes, iteration, at);
    event.accumulates = true;
    event.operandCount = 2;
    event.operands[0] = LaneOperand("dst", dst, kLanes, params.dstBlkStride, params.dstRepStride);
    event.operands[1] = LaneOperand("src", src, kLanes, params.srcBlkStride, params.srcRepStride);
    Here().Tell(event);
    RunLanes<D, S, kLanes, 1>(event, [scalar](float* result, const float* a, const float*) {
        for (int lane = 0; lane < kLanes; ++lane) {
            result[lane] = a[lane] * scalar + result[lane];
        }
    });
}

}  // namespace emu

namespace AscendC {

template <typename T, typename U, bool isSetMask = true>
void Axpy(const LocalTensor<T>& dst, const LocalTensor<U>& src, const U& scalarValue, uint64_t mask[],
          const uint8_t repeatTimes, const UnaryRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) {
    emu::ScaledAdd(dst, src, static_cast<float>(scalarValue),
                   emu::BitRepeats<isSetMask>(repeatTimes, mask, emu::LanesOf<T, U>()), repeatParams, at);
}
template <typename T, typename U, bool isSetMask = true>
void Axpy(const LocalTensor<T>& dst, const LocalTensor<U>& src, const U& scalarValue, uint64_t mask,
          const uint8_t repeatTimes, const UnaryRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) {
    emu::ScaledAdd(dst, src, static_cast<float>(scalarValue),
                   emu::CountedRepeats<isSetMask>("Axpy", repeatTimes, mask, emu::LanesOf<T, U>(), at), repeatParams,
                   at);
}
template <typename T, typename U>
void Axpy(const LocalTensor<T>& dst, const LocalTensor<U>& src, const U& scalarValue, const int32_t& calCount,
          emu::Where at = emu::Where::Here()) {
    const UnaryRepeatParams params(1, 1, 8, sizeof(T) > sizeof(U) ? 4 : 8);
    emu::ScaledAdd(dst, src, static_cast<float>(scalarValue), emu::Elements(calCount, emu::LanesOf<T, U>()), params,
                   at);
}

}  // namespace AscendC

#endif  // SMALLQ_EMU_VEC_AXPY_H_
