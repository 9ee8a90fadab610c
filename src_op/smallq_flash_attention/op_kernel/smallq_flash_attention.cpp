// SPDX-License-Identifier: Apache-2.0
// Entry of the SmallqFlashAttention kernel: chooses the path by tiling key.
//   key 1  normal path, one core sees all keys of its item
//   key 2  normal path, the keys of a head split over cores, partial results combined after a SyncAll
//   key 3  largeD path: head sizes beyond what a repeat can stride over, or beyond UB
//   key 4  largeD path, split
#include "kernel_operator.h"
#include "kernel_tiling/kernel_tiling.h"
#include "smallq_flash_attention_impl.h"
#include "smallq_flash_attention_large.h"

// The kernel compiler builds one object for each data type and defines the type of q.
#ifndef DTYPE_Q
#define DTYPE_Q half
#endif

KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
// SyncAll needs the mixed launch; without it the cores would wait for ever.
KERNEL_TASK_TYPE(2, KERNEL_TYPE_MIX_AIV_1_0);
KERNEL_TASK_TYPE(4, KERNEL_TYPE_MIX_AIV_1_0);

namespace SmallqFlashAttention {

template <class Path>
__aicore__ inline void RunPath(const KernelArguments& gm, const SmallqFlashAttentionTilingData* tiling,
                               AscendC::TPipe* pipe) {
    Path path;
    path.Init(gm, tiling, pipe);
    path.Process();
}

// All partial results, then all rows from them. Every block comes here once, whatever its share of the items.
template <class Path>
__aicore__ inline void RunSplitPath(const KernelArguments& gm, const SmallqFlashAttentionTilingData* tiling,
                                    AscendC::TPipe* pipe) {
    RunPath<Path>(gm, tiling, pipe);
    AscendC::SyncAll();
    pipe->Reset();
    CombineSplits<DTYPE_Q> combine;
    combine.Init(gm.o, gm.workspace, tiling, pipe);
    combine.Process();
}

}  // namespace SmallqFlashAttention

extern "C" __global__ __aicore__ void smallq_flash_attention(GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR actual_kv_lengths,
                                                             GM_ADDR o, GM_ADDR workspace, GM_ADDR tiling) {
    if (g_coreType == AscendC::AIC) {
        return;  // a mixed launch also starts the cube cores
    }
    GET_TILING_DATA(tilingData, tiling);
    const SmallqFlashAttention::KernelArguments gm = {q, k, v, actual_kv_lengths, o, workspace};
    AscendC::TPipe pipe;  // not a member of a path: the compiler keeps a local one in registers
    if (TILING_KEY_IS(1)) {
        SmallqFlashAttention::RunPath<SmallqFlashAttention::NormalPath<DTYPE_Q, false>>(gm, &tilingData, &pipe);
    } else if (TILING_KEY_IS(2)) {
        SmallqFlashAttention::RunSplitPath<SmallqFlashAttention::NormalPath<DTYPE_Q, true>>(gm, &tilingData, &pipe);
    } else if (TILING_KEY_IS(3)) {
        SmallqFlashAttention::RunPath<SmallqFlashAttention::LargePath<DTYPE_Q, false>>(gm, &tilingData, &pipe);
    } else if (TILING_KEY_IS(4)) {
        SmallqFlashAttention::RunSplitPath<SmallqFlashAttention::LargePath<DTYPE_Q, true>>(gm, &tilingData, &pipe);
    }
}
