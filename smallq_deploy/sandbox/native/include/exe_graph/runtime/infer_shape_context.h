// SPDX-License-Identifier: Apache-2.0
// Argument of an infer-shape function.
#ifndef SIM_EXE_GRAPH_RUNTIME_INFER_SHAPE_CONTEXT_H_
#define SIM_EXE_GRAPH_RUNTIME_INFER_SHAPE_CONTEXT_H_

#include "exe_graph/runtime/extended_kernel_context.h"
#include "graph/ge_error_codes.h"

namespace gert {

class InferShapeContext : public ExtendedKernelContext {
public:
    const Shape* GetInputShape(size_t index) const {
        const SimTensorSlot* slot = Present(index);
        return slot != nullptr ? &slot->shape->GetOriginShape() : nullptr;
    }
    const Shape* GetOptionalInputShape(size_t ir_index) const {
        const bool present = ir_index < input_num_ && inputs_[ir_index].shape != nullptr;
        return present ? &inputs_[ir_index].shape->GetOriginShape() : nullptr;
    }
    Shape* GetOutputShape(size_t index) const {
        return index < output_num_ ? &outputs_[index].shape->MutableOriginShape() : nullptr;
    }
};

}  // namespace gert

#endif  // SIM_EXE_GRAPH_RUNTIME_INFER_SHAPE_CONTEXT_H_
