// SPDX-License-Identifier: Apache-2.0
// What both rival kernels share: the launch's shape, copies between GM and UB, and the order of heads over cores.
// A rival takes the operator's tensors (q, k, v, o: fp16, dense, [heads][length][head size]) and knows no extension:
// one q head a K/V head, no mask, one scale. Heads are dealt to the cores in turn; a core sees all keys of its head.
#ifndef SMALLQ_RIVAL_H_
#define SMALLQ_RIVAL_H_

#include "kernel_operator.h"
#include "kernel_tiling/kernel_tiling.h"

namespace Rival {

using AscendC::GlobalTensor;
using AscendC::HardEvent;
using AscendC::LocalTensor;

constexpr float kNoMaximum = -1.0e30f;  // finite: minus itself is 0
constexpr uint32_t kMaxRows = 16;       // q rows of a head, at most
constexpr uint32_t kRowAlign = 16;      // a row of halfs starts on a UB block
constexpr uint32_t kRepeatFloats = 64;
constexpr uint32_t kBlockFloats = 8;

__aicore__ inline uint32_t RoundUp(uint32_t value, uint32_t unit) { return (value + unit - 1) / unit * unit; }
__aicore__ inline uint32_t CeilDiv(uint32_t value, uint32_t unit) { return (value + unit - 1) / unit; }

struct Tensors {
    GlobalTensor<half> q;
    GlobalTensor<half> k;
    GlobalTensor<half> v;
    GlobalTensor<half> o;

    __aicore__ inline void Init(GM_ADDR qGm, GM_ADDR kGm, GM_ADDR vGm, GM_ADDR oGm, const RivalTilingData& shape) {
        const uint64_t heads = shape.numHeads;
        q.SetGlobalBuffer((__gm__ half*)qGm, heads * shape.qLen * shape.hdK);
        k.SetGlobalBuffer((__gm__ half*)kGm, heads * shape.kvLen * shape.hdK);
        v.SetGlobalBuffer((__gm__ half*)vGm, heads * shape.kvLen * shape.hdV);
        o.SetGlobalBuffer((__gm__ half*)oGm, heads * shape.qLen * shape.hdV);
    }
};

// Dense rows from GM; in UB each row fills whole blocks, with zeros after its last element.
__aicore__ inline void LoadRows(const LocalTensor<half>& dst, const GlobalTensor<half>& src, uint32_t rows,
                                uint32_t width) {
    const uint32_t filler = RoundUp(width, kRowAlign) - width;
    const bool dense = filler == 0;
    const AscendC::DataCopyExtParams copy(static_cast<uint16_t>(dense ? 1 : rows),
                                          static_cast<uint32_t>((dense ? rows * width : width) * sizeof(half)), 0, 0,
                                          0);
    const AscendC::DataCopyPadExtParams<half> pad(!dense, 0, static_cast<uint8_t>(filler), static_cast<half>(0));
    AscendC::DataCopyPad(dst, src, copy, pad);
}

// Rows that fill whole blocks in UB to dense rows in GM.
__aicore__ inline void StoreRows(const GlobalTensor<half>& dst, const LocalTensor<half>& src, uint32_t rows,
                                 uint32_t width) {
    const AscendC::DataCopyExtParams copy(static_cast<uint16_t>(rows), static_cast<uint32_t>(width * sizeof(half)), 0,
                                          0, 0);
    AscendC::DataCopyPad(dst, src, copy);
}

// The pipe `after` goes on when everything handed to the pipe before it has finished.
template <HardEvent event>
__aicore__ inline void Order() {
    AscendC::SetFlag<event>(EVENT_ID0);
    AscendC::WaitFlag<event>(EVENT_ID0);
}

// One step of the running softmax of one row: `score` holds count scores; slot count is free and receives
// exp(old maximum - new maximum), the factor of everything summed so far. Called with the scalar writes to score done.
__aicore__ inline void Exponentials(const LocalTensor<float>& score, uint32_t count, float oldMaximum,
                                    float newMaximum) {
    score.SetValue(count, oldMaximum);
    Order<HardEvent::S_V>();
    AscendC::Adds<float>(score, score, -newMaximum, static_cast<int32_t>(count + 1));
    AscendC::PipeBarrier<PIPE_V>();
    AscendC::Exp<float>(score, score, static_cast<int32_t>(count + 1));
    Order<HardEvent::V_S>();
}

}  // namespace Rival

#endif  // SMALLQ_RIVAL_H_
