// SPDX-License-Identifier: Apache-2.0
// Shape and type inference: o is [numHeads, qLen, head size of v] with the type of q.
#include <register/op_impl_registry.h>
#include "error/ops_error.h"

namespace ops {
namespace {
constexpr size_t kIndexQ = 0;
constexpr size_t kIndexV = 2;
constexpr size_t kIndexO = 0;
constexpr size_t kRank = 3;
constexpr int64_t kUnknownRank = -2;  // the value of a single dim that stands for "rank not known yet"

bool IsUnknownRank(const gert::Shape& shape) { return shape.GetDimNum() == 1 && shape.GetDim(0) == kUnknownRank; }

ge::graphStatus InferShapeOfO(gert::InferShapeContext* context) {
    const gert::Shape* q = context->GetInputShape(kIndexQ);
    OPS_LOG_E_IF_NULL(context, q, return ge::GRAPH_FAILED);
    const gert::Shape* v = context->GetInputShape(kIndexV);
    OPS_LOG_E_IF_NULL(context, v, return ge::GRAPH_FAILED);
    gert::Shape* o = context->GetOutputShape(kIndexO);
    OPS_LOG_E_IF_NULL(context, o, return ge::GRAPH_FAILED);
    if (IsUnknownRank(*q) || IsUnknownRank(*v)) {
        o->SetDimNum(1);
        o->SetDim(0, kUnknownRank);
        return ge::GRAPH_SUCCESS;
    }
    if (q->GetDimNum() != kRank || v->GetDimNum() != kRank) {
        OPS_LOG_E(context->GetNodeName(), "q and v must be 3-D, got %zu-D and %zu-D", q->GetDimNum(), v->GetDimNum());
        return ge::GRAPH_FAILED;
    }
    o->SetDimNum(kRank);
    o->SetDim(0, q->GetDim(0));
    o->SetDim(1, q->GetDim(1));
    o->SetDim(2, v->GetDim(2));
    return ge::GRAPH_SUCCESS;
}

ge::graphStatus InferTypeOfO(gert::InferDataTypeContext* context) {
    context->SetOutputDataType(kIndexO, context->GetInputDataType(kIndexQ));
    return ge::GRAPH_SUCCESS;
}
}  // namespace

IMPL_OP_INFERSHAPE(SmallqFlashAttention).InferShape(InferShapeOfO).InferDataType(InferTypeOfO);
}  // namespace ops
