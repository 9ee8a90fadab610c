// SPDX-License-Identifier: Apache-2.0
// Tiling of VecAddSample: the elements are dealt to the vector cores in runs of 16 (32 bytes, so that no two cores
// write one block of memory), and each core walks its run in tiles.
#include "vec_add_sample_tiling.h"

#include <algorithm>

#include "register/op_impl_registry.h"
#include "tiling/platform/platform_ascendc.h"

namespace optiling {
namespace {
const uint64_t kGranule = 16;     // fp16 elements in 32 bytes
const uint64_t kBuffersInUb = 6;  // x, y and z, two of each
const uint64_t kBytesPerElement = 2;
}  // namespace

static ge::graphStatus TilingVecAddSample(gert::TilingContext* context) {
    const gert::StorageShape* x = context->GetInputShape(0);
    const gert::StorageShape* y = context->GetInputShape(1);
    if (x == nullptr || y == nullptr || context->GetPlatformInfo() == nullptr) {
        return ge::GRAPH_FAILED;
    }
    const int64_t elements = x->GetStorageShape().GetShapeSize();
    if (elements <= 0 || elements != y->GetStorageShape().GetShapeSize()) {
        return ge::GRAPH_FAILED;
    }
    const uint64_t total = static_cast<uint64_t>(elements);

    platform_ascendc::PlatformAscendC platform(context->GetPlatformInfo());
    uint64_t ubSize = 0;
    platform.GetCoreMemSize(platform_ascendc::CoreMemType::UB, ubSize);
    const uint64_t cores = platform.GetCoreNumAiv();
    if (cores == 0 || ubSize == 0) {
        return ge::GRAPH_FAILED;
    }

    const uint64_t granules = (total + kGranule - 1) / kGranule;
    const uint64_t perBlock = (granules + cores - 1) / cores * kGranule;
    const uint64_t inUb = ubSize / (kBuffersInUb * kBytesPerElement) / kGranule * kGranule;

    VecAddSampleTilingData tiling;
    tiling.set_total(total);
    tiling.set_perBlock(perBlock);
    tiling.set_tile(static_cast<uint32_t>(std::min<uint64_t>(std::min<uint64_t>(inUb, perBlock), 8192)));
    tiling.SaveToBuffer(context->GetRawTilingData()->GetData(), context->GetRawTilingData()->GetCapacity());
    context->GetRawTilingData()->SetDataSize(tiling.GetDataSize());
    context->SetBlockDim(static_cast<uint32_t>((total + perBlock - 1) / perBlock));
    context->SetTilingKey(1);
    size_t* workspaces = context->GetWorkspaceSizes(1);
    workspaces[0] = platform.GetLibApiWorkSpaceSize();
    return ge::GRAPH_SUCCESS;
}

struct VecAddSampleCompileInfo {};

static ge::graphStatus TilingParseVecAddSample(gert::TilingParseContext* context) {
    (void)context;
    return ge::GRAPH_SUCCESS;
}

IMPL_OP_OPTILING(VecAddSample).Tiling(TilingVecAddSample).TilingParse<VecAddSampleCompileInfo>(TilingParseVecAddSample);
}  // namespace optiling
