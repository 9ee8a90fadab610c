// SPDX-License-Identifier: Apache-2.0
// Known amounts of work for the cost model. The tiling key is the kind of work, the tiling how often.
#include "kernel_operator.h"

using namespace AscendC;

struct Amount {
    uint32_t times;
    uint32_t bytes;  // of one copy
    uint32_t apart;  // halfs from one block's part of the input to the next one's
    uint32_t passes;
};

__aicore__ void AddRepeats(const Amount& amount, uint32_t distance) {
    TPipe pipe;
    TBuf<QuePosition::VECCALC> buffer;
    pipe.InitBuffer(buffer, 160 * 1024);
    LocalTensor<float> all = buffer.Get<float>();
    Duplicate(all, 1.0f, 160 * 256);
    PipeBarrier<PIPE_V>();
    for (uint32_t i = 0; i < amount.times; ++i) {
        Add(all[96 * 256], all, all[distance], (uint64_t)64, 127, BinaryRepeatParams());
        PipeBarrier<PIPE_V>();
    }
}

// Loads, `depth` of them under way at once, each followed by one short vector instruction.
template <int depth>
__aicore__ void Stream(const GlobalTensor<half>& in, const Amount& amount) {
    TPipe pipe;
    TQue<QuePosition::VECIN, depth> queue;
    TBuf<QuePosition::VECCALC> buffer;
    pipe.InitBuffer(queue, depth, amount.bytes);
    pipe.InitBuffer(buffer, 256);
    const uint32_t halfs = amount.bytes / 2;
    const GlobalTensor<half> mine = in[(uint64_t)GetBlockIdx() * amount.apart];
    for (uint32_t pass = 0; pass < amount.passes; ++pass) {
        for (uint32_t i = 0; i < amount.times + depth - 1; ++i) {
            if (i < amount.times) {
                LocalTensor<half> x = queue.template AllocTensor<half>();
                DataCopy(x, mine[(uint64_t)i * halfs], halfs);
                queue.EnQue(x);
            }
            if (i + 1 >= depth) {
                LocalTensor<half> x = queue.template DeQue<half>();
                Adds(buffer.Get<half>(), x, half(1), 128);
                PipeBarrier<PIPE_V>();
                queue.FreeTensor(x);
            }
        }
    }
}

extern "C" __global__ __aicore__ void costs(GM_ADDR in, GM_ADDR workspace, GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIV_1_0);
    (void)workspace;
    Amount amount;
    SimCopyTiling(&amount, tiling, sizeof(amount));
    GlobalTensor<half> input;
    input.SetGlobalBuffer((__gm__ half*)in);
    if (TILING_KEY_IS(1)) {
        AddRepeats(amount, 32 * 256 + 64);  // the two sources lie in different bank groups
    } else if (TILING_KEY_IS(2)) {
        AddRepeats(amount, 32 * 256);  // and in the same ones
    } else if (TILING_KEY_IS(3)) {
        Stream<1>(input, amount);
    } else if (TILING_KEY_IS(4)) {
        Stream<2>(input, amount);
    } else if (TILING_KEY_IS(5)) {
        for (uint32_t i = 0; i < amount.times; ++i) {
            SyncAll();
        }
    } else if (TILING_KEY_IS(6)) {
        TPipe pipe;
        TBuf<QuePosition::VECCALC> buffer;
        pipe.InitBuffer(buffer, 256);
        LocalTensor<float> x = buffer.Get<float>();
        x.SetValue(0, 1.0f);
        x.SetValue(1, 2.0f);
        for (uint32_t i = 0; i < amount.times; ++i) {
            x.SetValue(1, x.GetValue(0) + x.GetValue(1));
        }
    }
}
