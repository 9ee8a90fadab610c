// SPDX-License-Identifier: Apache-2.0
#include "tiny_add_tiling.h"

#include "error/ops_error.h"
#include "exe_graph/runtime/tiling_context.h"
#include "register/op_impl_registry.h"
#include "tiling/platform/platform_ascendc.h"

namespace optiling {

static ge::graphStatus Tiling(gert::TilingContext* context) {
    const gert::Shape& x = context->GetInputShape(0)->GetStorageShape();
    const gert::Shape& y = context->GetInputShape(1)->GetStorageShape();
    OPS_ERR_IF(x != y, OPS_LOG_E(context, "x and y have different shapes"), return ge::GRAPH_FAILED);
    const uint64_t total = static_cast<uint64_t>(x.GetShapeSize());
    OPS_ERR_IF(total == 0, OPS_LOG_E(context, "empty tensors are not supported"), return ge::GRAPH_FAILED);
    const uint32_t cores = context->GetCompileInfo<TinyAddCompileInfo>()->cores;
    // Blocks are multiples of 64 elements, so that every block starts on a 32 byte line.
    const uint64_t per_block = ((total + cores - 1) / cores + 63) / 64 * 64;
    const uint32_t blocks = static_cast<uint32_t>((total + per_block - 1) / per_block);

    TinyAddTilingData data;
    data.set_blocks(blocks);
    data.set_perBlock(per_block);
    data.set_total(total);
    data.set_bias(*context->GetAttrs()->GetFloat(0));
    data.SaveToBuffer(context->GetRawTilingData()->GetData(), context->GetRawTilingData()->GetCapacity());
    context->GetRawTilingData()->SetDataSize(data.GetDataSize());
    context->SetTilingKey(1);
    context->SetBlockDim(blocks);
    context->GetWorkspaceSizes(1)[0] = 0;
    return ge::GRAPH_SUCCESS;
}

static ge::graphStatus TilingParse(gert::TilingParseContext* context) {
    TinyAddCompileInfo* info = context->GetCompiledInfo<TinyAddCompileInfo>();
    info->cores = platform_ascendc::PlatformAscendC(context->GetPlatformInfo()).GetCoreNumAiv();
    return info->cores > 0 ? ge::GRAPH_SUCCESS : ge::GRAPH_FAILED;
}

IMPL_OP_OPTILING(TinyAdd).Tiling(Tiling).TilingParse<TinyAddCompileInfo>(TilingParse);

}  // namespace optiling
