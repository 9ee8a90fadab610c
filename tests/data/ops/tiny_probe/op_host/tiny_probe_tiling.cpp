// SPDX-License-Identifier: Apache-2.0
#include "tiny_probe_tiling.h"

#include "exe_graph/runtime/tiling_context.h"
#include "register/op_impl_registry.h"

namespace optiling {

struct TinyProbeCompileInfo {
    uint32_t unused = 0;
};

static ge::graphStatus Tiling(gert::TilingContext* context) {
    const gert::RuntimeAttrs* attrs = context->GetAttrs();
    const gert::TypedContinuousVector<int64_t>* marks = attrs->GetListInt(3);
    const gert::StorageShape* limits = context->GetOptionalInputShape(1);
    int64_t sum = 0;
    for (size_t i = 0; i < marks->GetSize(); ++i) {
        sum += marks->GetData()[i];
    }
    TinyProbeTilingData data;
    data.set_rate(*attrs->GetFloat(0));
    data.set_flip(*attrs->GetBool(1) ? 1 : 0);
    data.set_count(*attrs->GetInt(2) + static_cast<int64_t>(attrs->GetListFloat(4)->GetSize()));
    data.set_marks(sum);
    data.set_limits(limits != nullptr ? limits->GetStorageShape().GetShapeSize() : -1);
    data.set_bf16(context->GetInputDesc(0)->GetDataType() == ge::DT_BF16 ? 1 : 0);
    data.SaveToBuffer(context->GetRawTilingData()->GetData(), context->GetRawTilingData()->GetCapacity());
    context->GetRawTilingData()->SetDataSize(data.GetDataSize());
    context->SetTilingKey(1);
    context->SetBlockDim(1);
    context->GetWorkspaceSizes(1)[0] = 0;
    return ge::GRAPH_SUCCESS;
}

static ge::graphStatus TilingParse(gert::TilingParseContext*) { return ge::GRAPH_SUCCESS; }

IMPL_OP_OPTILING(TinyProbe).Tiling(Tiling).TilingParse<TinyProbeCompileInfo>(TilingParse);

}  // namespace optiling
