// SPDX-License-Identifier: Apache-2.0
// Shape and type inference of VecAddSample: the output is like the first input.
#include "register/op_impl_registry.h"

namespace ops {
static ge::graphStatus InferShapeVecAddSample(gert::InferShapeContext* context) {
    const gert::Shape* x = context->GetInputShape(0);
    gert::Shape* z = context->GetOutputShape(0);
    if (x == nullptr || z == nullptr) {
        return ge::GRAPH_FAILED;
    }
    *z = *x;
    return ge::GRAPH_SUCCESS;
}

static ge::graphStatus InferDataTypeVecAddSample(gert::InferDataTypeContext* context) {
    return context->SetOutputDataType(0, context->GetInputDataType(0));
}

IMPL_OP_INFERSHAPE(VecAddSample).InferShape(InferShapeVecAddSample).InferDataType(InferDataTypeVecAddSample);
}  // namespace ops
