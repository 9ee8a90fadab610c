// SPDX-License-Identifier: Apache-2.0
// ReduceSum with an element count: the sum of count elements in dst[0].
//
// On dav-c220 (kernel_operator_vec_reduce_impl.h of CANN 8.1) this is one vcadd into the accumulator register, a wait
// of the scalar unit for it (V_S), a scalar store of the sum, and flags that make the store visible to V and MTE3
// (S_V, S_MTE3), on every call; the work tensor is not used. Chosen here, not documented: repeats are summed in order,
// each as a tree of neighbours.
#ifndef SMALLQ_EMU_VEC_REDUCE_SUM_H_
#define SMALLQ_EMU_VEC_REDUCE_SUM_H_

#include "sync.h"
#include "vec_reduce.h"

namespace emu {

template <AscendC::HardEvent event>
void OrderPipes(Where at) {
    const AscendC::TEventID id = LowestFreeEvent("ReduceSum", event, at);
    Flag(SyncKind::kSet, event, id, at);
    Flag(SyncKind::kWait, event, id, at);
}

template <typename T>
float SumOfAll(const VectorEvent& event) {
    constexpr int kLanes = static_cast<int>(kRepeatBytes / sizeof(T));
    const UbOperand& from = event.operands[1];
    float total = 0.0f;
    for (uint32_t repeat = 0; repeat < event.repeats; ++repeat) {
        const uint64_t* mask = repeat + 1 == event.repeats ? event.tail : event.mask;
        float lanes[kLanes] = {};
        LoadLanes<T, kLanes>(Here().Ub(from.address + repeat * from.repeatStride), from.blockStride,
                             ActiveEnd(mask, kLanes), lanes);
        for (int lane = 0; lane < kLanes; ++lane) {
            lanes[lane] = IsActive(mask, static_cast<uint32_t>(lane)) ? lanes[lane] : 0.0f;
        }
        const float sum = total + TreeSum<T>(lanes, kLanes);
        total = std::is_same<T, half>::value ? HalfToFloat(FloatToHalf(sum)) : sum;
    }
    return total;
}

}  // namespace emu

namespace AscendC {

template <typename T, bool isSetMask = true>
void ReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<T>& work, const int32_t count,
               emu::Where at = emu::Where::Here()) {
    static_assert(isSetMask, "the emulator knows ReduceSum with its own mask only");
    static_cast<void>(work);
    constexpr int32_t kRepeatBlocks = 8;
    const emu::Iteration iteration = emu::Elements(count, emu::kRepeatBytes / sizeof(T));
    if (iteration.repeats == 0) {
        return;
    }
    const emu::VectorEvent event = emu::DescribeReduce("ReduceSum", emu::Shape::kWholeReduce, dst, 1, sizeof(T), 0, src,
                                                       iteration, 1, kRepeatBlocks, at);
    emu::Here().Tell(event);
    const float sum = emu::SumOfAll<T>(event);
    emu::StoreOne<T>(emu::Here().Ub(event.operands[0].address), sum);
    emu::OrderPipes<HardEvent::V_S>(at);
    dst.SetValue(0, dst.GetValue(0, at), at);  // the accumulator, read and stored by the scalar unit
    emu::OrderPipes<HardEvent::S_V>(at);
    emu::OrderPipes<HardEvent::S_MTE3>(at);
}

}  // namespace AscendC

#endif  // SMALLQ_EMU_VEC_REDUCE_SUM_H_
