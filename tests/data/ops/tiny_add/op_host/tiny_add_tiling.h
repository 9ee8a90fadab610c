// SPDX-License-Identifier: Apache-2.0
#ifndef TINY_ADD_TILING_H_
#define TINY_ADD_TILING_H_

#include "register/tilingdata_base.h"

namespace optiling {

BEGIN_TILING_DATA_DEF(TinyAddTilingData)
TILING_DATA_FIELD_DEF(uint32_t, blocks);
TILING_DATA_FIELD_DEF(uint64_t, perBlock);
TILING_DATA_FIELD_DEF(uint64_t, total);
TILING_DATA_FIELD_DEF(float, bias);
END_TILING_DATA_DEF;
REGISTER_TILING_DATA_CLASS(TinyAdd, TinyAddTilingData)

struct TinyAddCompileInfo {
    uint32_t cores = 0;
};

}  // namespace optiling

#endif  // TINY_ADD_TILING_H_
