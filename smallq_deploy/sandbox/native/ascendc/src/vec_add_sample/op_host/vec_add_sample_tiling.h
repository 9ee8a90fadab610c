// SPDX-License-Identifier: Apache-2.0
#ifndef VEC_ADD_SAMPLE_TILING_H_
#define VEC_ADD_SAMPLE_TILING_H_

#include "register/tilingdata_base.h"

namespace optiling {
BEGIN_TILING_DATA_DEF(VecAddSampleTilingData)
TILING_DATA_FIELD_DEF(uint64_t, total);     // elements of the tensors
TILING_DATA_FIELD_DEF(uint64_t, perBlock);  // elements of one block, a multiple of 16
TILING_DATA_FIELD_DEF(uint32_t, tile);      // elements in flight at once, a multiple of 16
END_TILING_DATA_DEF;

REGISTER_TILING_DATA_CLASS(VecAddSample, VecAddSampleTilingData)
}  // namespace optiling

#endif  // VEC_ADD_SAMPLE_TILING_H_
