// SPDX-License-Identifier: Apache-2.0
// Ascend C for the host: the part of the basic API that vector kernels of this project use, with the call forms of the
// public headers of CANN 8.1 and the limits of dav-c220 (Ascend 910B).
#ifndef SMALLQ_EMU_KERNEL_OPERATOR_H_
#define SMALLQ_EMU_KERNEL_OPERATOR_H_

#include "emu/platform.h"
#include "emu/kernel_type.h"
#include "emu/half.h"
#include "emu/params.h"
#include "emu/core.h"
#include "emu/tensor.h"
#include "emu/sync.h"
#include "emu/tpipe.h"
#include "emu/data_copy.h"
#include "emu/vec_arith.h"
#include "emu/vec_axpy.h"
#include "emu/vec_fill.h"
#include "emu/vec_convert.h"
#include "emu/vec_reduce.h"
#include "emu/vec_reduce_sum.h"

namespace AscendC {

// Used by the generated GET_TILING_DATA: copies the tiling struct of this launch.
inline void SimCopyTiling(void* dst, GM_ADDR tiling, size_t size, emu::Where at = emu::Where::Here()) {
    const SimLaunch& launch = emu::Here().Launch();
    if (tiling != launch.tilingData || size > launch.tilingSize) {
        emu::Raise(SIM_BAD_LAUNCH, "TILING_SIZE", "GET_TILING_DATA", emu::Here().Block(), at,
                   "the kernel's tiling struct has %llu bytes, the launch carries %llu",
                   static_cast<unsigned long long>(size), static_cast<unsigned long long>(launch.tilingSize));
    }
    std::memcpy(dst, launch.tilingData, size);
}

}  // namespace AscendC

#endif  // SMALLQ_EMU_KERNEL_OPERATOR_H_
