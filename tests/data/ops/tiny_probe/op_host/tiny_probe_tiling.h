// SPDX-License-Identifier: Apache-2.0
#ifndef TINY_PROBE_TILING_H_
#define TINY_PROBE_TILING_H_

#include "register/tilingdata_base.h"

namespace optiling {

BEGIN_TILING_DATA_DEF(TinyProbeTilingData)
TILING_DATA_FIELD_DEF(float, rate);
TILING_DATA_FIELD_DEF(uint32_t, flip);
TILING_DATA_FIELD_DEF(int64_t, count);
TILING_DATA_FIELD_DEF(int64_t, marks);
TILING_DATA_FIELD_DEF(int64_t, limits);
TILING_DATA_FIELD_DEF(uint32_t, bf16);
END_TILING_DATA_DEF;

REGISTER_TILING_DATA_CLASS(TinyProbe, TinyProbeTilingData)

}  // namespace optiling

#endif  // TINY_PROBE_TILING_H_
