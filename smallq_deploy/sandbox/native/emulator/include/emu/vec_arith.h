// SPDX-License-Identifier: Apache-2.0
// Elementwise vector arithmetic: Add Sub Mul Div Max Min MulAddDst, their scalar forms, Exp Ln Abs.
//
// fp32 results are IEEE single in the order written. Not documented for the hardware and chosen here: MulAddDst rounds
// the product before the sum (fp16 products are exact in fp32, so only the float*float form could differ); Exp and Ln
// are the C library's; Max and Min return NaN if either operand is NaN.
#ifndef SMALLQ_EMU_VEC_ARITH_H_
#define SMALLQ_EMU_VEC_ARITH_H_

#include <cmath>
#include <type_traits>

#include "lanes.h"
#include "params.h"

namespace emu {

template <typename D, typename S>
constexpr int LanesOf() {
    return static_cast<int>(kRepeatBytes / (sizeof(D) > sizeof(S) ? sizeof(D) : sizeof(S)));
}

struct AddOp {
    static float Of(float a, float b) { return a + b; }
};
struct SubOp {
    static float Of(float a, float b) { return a - b; }
};
struct MulOp {
    static float Of(float a, float b) { return a * b; }
};
struct DivOp {
    static float Of(float a, float b) { return a / b; }
};
struct MaxOp {
    static float Of(float a, float b) { return a != a ? a : (b != b ? b : (a > b ? a : b)); }
};
struct MinOp {
    static float Of(float a, float b) { return a != a ? a : (b != b ? b : (a < b ? a : b)); }
};
struct ExpOp {
    static float Of(float a) { return std::exp(a); }
};
struct LnOp {
    static float Of(float a) { return std::log(a); }
};
struct AbsOp {
    static float Of(float a) { return std::fabs(a); }
};

template <class Op, typename T>
void Binary(const char* api, const AscendC::LocalTensor<T>& dst, const AscendC::LocalTensor<T>& src0,
            const AscendC::LocalTensor<T>& src1, const Iteration& iteration, const AscendC::BinaryRepeatParams& params,
            Where at) {
    constexpr int kLanes = LanesOf<T, T>();
    if (iteration.repeats == 0) {
        return;
    }
    VectorEvent event = Describe(api, Shape::kElementwise, kLanes, iteration, at);
    event.operandCount = 3;
    event.operands[0] = LaneOperand("dst", dst, kLanes, params.dstBlkStride, params.dstRepStride);
    event.operands[1] = LaneOperand("src0", src0, kLanes, params.src0BlkStride, params.src0RepStride);
    event.operands[2] = LaneOperand("src1", src1, kLanes, params.src1BlkStride, params.src1RepStride);
    Here().Tell(event);
    RunLanes<T, T, kLanes, 2>(event, [](float* result, const float* a, const float* b) {
        for (int lane = 0; lane < kLanes; ++lane) {
            result[lane] = Op::Of(a[lane], b[lane]);
        }
    });
}

template <typename D, typename S>
void MultiplyAdd(const AscendC::LocalTensor<D>& dst, const AscendC::LocalTensor<S>& src0,
                 const AscendC::LocalTensor<S>& src1, const Iteration& iteration,
                 const AscendC::BinaryRepeatParams& params, Where at) {
    constexpr int kLanes = LanesOf<D, S>();
    if (iteration.repeats == 0) {
        return;
    }
    VectorEvent event = Describe("MulAddDst", Shape::kElementwise, kLanes, iteration, at);
    event.accumulates = true;
    event.operandCount = 3;
    event.operands[0] = LaneOperand("dst", dst, kLanes, params.dstBlkStride, params.dstRepStride);
    event.operands[1] = LaneOperand("src0", src0, kLanes, params.src0BlkStride, params.src0RepStride);
    event.operands[2] = LaneOperand("src1", src1, kLanes, params.src1BlkStride, params.src1RepStride);
    Here().Tell(event);
    RunLanes<D, S, kLanes, 2>(event, [](float* result, const float* a, const float* b) {
        for (int lane = 0; lane < kLanes; ++lane) {
            result[lane] = a[lane] * b[lane] + result[lane];
        }
    });
}

template <typename T, class Op>
void Unary(const char* api, const AscendC::LocalTensor<T>& dst, const AscendC::LocalTensor<T>& src,
           const Iteration& iteration, const AscendC::UnaryRepeatParams& params, Where at, Op op) {
    constexpr int kLanes = LanesOf<T, T>();
    if (iteration.repeats == 0) {
        return;
    }
    VectorEvent event = Describe(api, Shape::kElementwise, kLanes, iteration, at);
    event.operandCount = 2;
    event.operands[0] = LaneOperand("dst", dst, kLanes, params.dstBlkStride, params.dstRepStride);
    event.operands[1] = LaneOperand("src", src, kLanes, params.srcBlkStride, params.srcRepStride);
    Here().Tell(event);
    RunLanes<T, T, kLanes, 1>(event, [op](float* result, const float* a, const float*) {
        for (int lane = 0; lane < kLanes; ++lane) {
            result[lane] = op(a[lane]);
        }
    });
}

template <bool isSetMask>
Iteration CountedRepeats(const char* api, uint8_t repeats, uint64_t mask, uint32_t lanes, Where at) {
    return Repeats<isSetMask>(repeats, CheckedCount(api, mask, lanes, isSetMask, at));
}

template <bool isSetMask>
Iteration BitRepeats(uint8_t repeats, const uint64_t mask[], uint32_t lanes) {
    return Repeats<isSetMask>(repeats, Mask{{mask[0], lanes > 64 ? mask[1] : 0}});
}

}  // namespace emu

namespace AscendC {

// One instruction with its three public call forms: lane bits, lane count, element count.
#define SMALLQ_EMU_BINARY(Name)                                                                                        \
    template <typename T, bool isSetMask = true>                                                                       \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1, uint64_t mask[],      \
              const uint8_t repeatTimes, const BinaryRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) { \
        emu::Binary<emu::Name##Op>(#Name, dst, src0, src1,                                                             \
                                   emu::BitRepeats<isSetMask>(repeatTimes, mask, emu::LanesOf<T, T>()), repeatParams,  \
                                   at);                                                                                \
    }                                                                                                                  \
    template <typename T, bool isSetMask = true>                                                                       \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1, uint64_t mask,        \
              const uint8_t repeatTimes, const BinaryRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) { \
        emu::Binary<emu::Name##Op>(#Name, dst, src0, src1,                                                             \
                                   emu::CountedRepeats<isSetMask>(#Name, repeatTimes, mask, emu::LanesOf<T, T>(), at), \
                                   repeatParams, at);                                                                  \
    }                                                                                                                  \
    template <typename T>                                                                                              \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1,                       \
              const int32_t& calCount, emu::Where at = emu::Where::Here()) {                                           \
        emu::Binary<emu::Name##Op>(#Name, dst, src0, src1, emu::Elements(calCount, emu::LanesOf<T, T>()),              \
                                   BinaryRepeatParams(), at);                                                          \
    }

SMALLQ_EMU_BINARY(Add)
SMALLQ_EMU_BINARY(Sub)
SMALLQ_EMU_BINARY(Mul)
SMALLQ_EMU_BINARY(Div)
SMALLQ_EMU_BINARY(Max)
SMALLQ_EMU_BINARY(Min)
#undef SMALLQ_EMU_BINARY

template <typename T, typename U, bool isSetMask = true>
void MulAddDst(const LocalTensor<T>& dst, const LocalTensor<U>& src0, const LocalTensor<U>& src1, const uint64_t mask[],
               const uint8_t repeatTimes, const BinaryRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) {
    emu::MultiplyAdd(dst, src0, src1, emu::BitRepeats<isSetMask>(repeatTimes, mask, emu::LanesOf<T, U>()), repeatParams,
                     at);
}
template <typename T, typename U, bool isSetMask = true>
void MulAddDst(const LocalTensor<T>& dst, const LocalTensor<U>& src0, const LocalTensor<U>& src1, uint64_t mask,
               const uint8_t repeatTimes, const BinaryRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) {
    emu::MultiplyAdd(dst, src0, src1,
                     emu::CountedRepeats<isSetMask>("MulAddDst", repeatTimes, mask, emu::LanesOf<T, U>(), at),
                     repeatParams, at);
}
template <typename T, typename U>
void MulAddDst(const LocalTensor<T>& dst, const LocalTensor<U>& src0, const LocalTensor<U>& src1,
               const int32_t& calCount, emu::Where at = emu::Where::Here()) {
    BinaryRepeatParams params;  // a narrower source advances by the 4 blocks it uses
    params.src0RepStride = params.src1RepStride = static_cast<uint8_t>(emu::LanesOf<T, U>() * sizeof(U) / 32);
    emu::MultiplyAdd(dst, src0, src1, emu::Elements(calCount, emu::LanesOf<T, U>()), params, at);
}

#define SMALLQ_EMU_SCALAR(Name, BaseOp)                                                                                \
    template <typename T, bool isSetMask = true>                                                                       \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue, uint64_t mask[],             \
              const uint8_t repeatTimes, const UnaryRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) {  \
        const float scalar = static_cast<float>(scalarValue);                                                          \
        emu::Unary(#Name, dst, src, emu::BitRepeats<isSetMask>(repeatTimes, mask, emu::LanesOf<T, T>()), repeatParams, \
                   at, [scalar](float a) { return emu::BaseOp::Of(a, scalar); });                                      \
    }                                                                                                                  \
    template <typename T, bool isSetMask = true>                                                                       \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue, uint64_t mask,               \
              const uint8_t repeatTimes, const UnaryRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) {  \
        const float scalar = static_cast<float>(scalarValue);                                                          \
        emu::Unary(#Name, dst, src,                                                                                    \
                   emu::CountedRepeats<isSetMask>(#Name, repeatTimes, mask, emu::LanesOf<T, T>(), at), repeatParams,   \
                   at, [scalar](float a) { return emu::BaseOp::Of(a, scalar); });                                      \
    }                                                                                                                  \
    template <typename T, bool isSetMask = true>                                                                       \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue, const int32_t& calCount,     \
              emu::Where at = emu::Where::Here()) {                                                                    \
        const float scalar = static_cast<float>(scalarValue);                                                          \
        emu::Unary(#Name, dst, src, emu::Elements(calCount, emu::LanesOf<T, T>()), UnaryRepeatParams(), at,            \
                   [scalar](float a) { return emu::BaseOp::Of(a, scalar); });                                          \
    }

SMALLQ_EMU_SCALAR(Adds, AddOp)
SMALLQ_EMU_SCALAR(Muls, MulOp)
SMALLQ_EMU_SCALAR(Maxs, MaxOp)
SMALLQ_EMU_SCALAR(Mins, MinOp)
#undef SMALLQ_EMU_SCALAR

#define SMALLQ_EMU_UNARY(Name)                                                                                         \
    template <typename T, bool isSetMask = true>                                                                       \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, uint64_t mask[], const uint8_t repeatTimes,        \
              const UnaryRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) {                             \
        emu::Unary(#Name, dst, src, emu::BitRepeats<isSetMask>(repeatTimes, mask, emu::LanesOf<T, T>()), repeatParams, \
                   at, emu::Name##Op::Of);                                                                             \
    }                                                                                                                  \
    template <typename T, bool isSetMask = true>                                                                       \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, uint64_t mask, const uint8_t repeatTimes,          \
              const UnaryRepeatParams& repeatParams, emu::Where at = emu::Where::Here()) {                             \
        emu::Unary(#Name, dst, src,                                                                                    \
                   emu::CountedRepeats<isSetMask>(#Name, repeatTimes, mask, emu::LanesOf<T, T>(), at), repeatParams,   \
                   at, emu::Name##Op::Of);                                                                             \
    }                                                                                                                  \
    template <typename T>                                                                                              \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t& calCount,                           \
              emu::Where at = emu::Where::Here()) {                                                                    \
        emu::Unary(#Name, dst, src, emu::Elements(calCount, emu::LanesOf<T, T>()), UnaryRepeatParams(), at,            \
                   emu::Name##Op::Of);                                                                                 \
    }

SMALLQ_EMU_UNARY(Exp)
SMALLQ_EMU_UNARY(Ln)
SMALLQ_EMU_UNARY(Abs)
#undef SMALLQ_EMU_UNARY

}  // namespace AscendC

#endif  // SMALLQ_EMU_VEC_ARITH_H_
