// SPDX-License-Identifier: Apache-2.0
// One SyncAll, under tiling keys of every declaration: 1 and 2 at file scope, 3 in the entry, 4 none.
#include "kernel_operator.h"

KERNEL_TASK_TYPE(1, KERNEL_TYPE_AIV_ONLY);
KERNEL_TASK_TYPE(2, KERNEL_TYPE_MIX_AIV_1_0);

extern "C" __global__ __aicore__ void types(GM_ADDR workspace, GM_ADDR tiling) {
    KERNEL_TASK_TYPE(3, KERNEL_TYPE_AIV_ONLY);
    (void)workspace;
    (void)tiling;
    AscendC::SyncAll();
}
