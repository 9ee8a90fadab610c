// SPDX-License-Identifier: Apache-2.0
// z = rate, flip, count, sum of marks, number of limits or -1, sum of limits, 1 for bf16, bits of x[0]
#include "kernel_operator.h"

using namespace AscendC;

extern "C" __global__ __aicore__ void tiny_probe(GM_ADDR x, GM_ADDR limits, GM_ADDR z, GM_ADDR workspace,
                                                 GM_ADDR tiling) {
    GET_TILING_DATA(data, tiling);
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    TPipe pipe;
    TQue<QuePosition::VECOUT, 1> queue;
    pipe.InitBuffer(queue, 1, 32);
    GlobalTensor<uint16_t> input;
    input.SetGlobalBuffer(reinterpret_cast<__gm__ uint16_t*>(x), 1);
    GlobalTensor<float> output;
    output.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(z), 8);
    int64_t sum = 0;
    if (limits != nullptr) {
        GlobalTensor<int64_t> list;
        list.SetGlobalBuffer(reinterpret_cast<__gm__ int64_t*>(limits), static_cast<uint64_t>(data.limits));
        for (int64_t i = 0; i < data.limits; ++i) {
            sum += list.GetValue(static_cast<uint64_t>(i));
        }
    }
    LocalTensor<float> out = queue.AllocTensor<float>();
    out.SetValue(0, data.rate);
    out.SetValue(1, static_cast<float>(data.flip));
    out.SetValue(2, static_cast<float>(data.count));
    out.SetValue(3, static_cast<float>(data.marks));
    out.SetValue(4, static_cast<float>(data.limits));
    out.SetValue(5, static_cast<float>(sum));
    out.SetValue(6, static_cast<float>(data.bf16));
    out.SetValue(7, static_cast<float>(input.GetValue(0)));
    event_t event = static_cast<event_t>(pipe.FetchEventID(HardEvent::S_MTE3));
    SetFlag<HardEvent::S_MTE3>(event);
    WaitFlag<HardEvent::S_MTE3>(event);
    queue.EnQue(out);
    out = queue.DeQue<float>();
    DataCopy(output, out, 8);
    queue.FreeTensor(out);
}
