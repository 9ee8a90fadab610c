// SPDX-License-Identifier: Apache-2.0
// Entry of the SmallqFlashAttention kernel: chooses the path by tiling key.
//   key 1  normal path, one core sees all keys of its item
// Keys 2 (keys of one head split over cores), 3 (very large head sizes) and 4 (both) are reserved; the host never asks
// for them yet.
#include "kernel_operator.h"
#include "kernel_tiling/kernel_tiling.h"
#include "smallq_flash_attention_impl.h"

KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);

extern "C" __global__ __aicore__ void smallq_flash_attention(GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR o,
                                                             GM_ADDR workspace, GM_ADDR tiling) {
    (void)workspace;
    GET_TILING_DATA(tilingData, tiling);
    AscendC::TPipe pipe;  // not a member of the path: the compiler keeps a local one in registers
    if (TILING_KEY_IS(1)) {
        SmallqFlashAttention::NormalPath path;
        path.Init(q, k, v, o, &tilingData, &pipe);
        path.Process();
    }
}
