// SPDX-License-Identifier: Apache-2.0
// Argument of an infer-data-type function.
#ifndef SIM_EXE_GRAPH_RUNTIME_INFER_DATATYPE_CONTEXT_H_
#define SIM_EXE_GRAPH_RUNTIME_INFER_DATATYPE_CONTEXT_H_

#include "exe_graph/runtime/extended_kernel_context.h"
#include "graph/ge_error_codes.h"

namespace gert {

class InferDataTypeContext : public ExtendedKernelContext {
public:
    InferDataTypeContext() : output_types_(nullptr) {}

    ge::DataType GetInputDataType(size_t index) const {
        const SimTensorSlot* slot = Present(index);
        return slot != nullptr ? slot->desc->GetDataType() : ge::DT_UNDEFINED;
    }
    ge::DataType GetOptionalInputDataType(size_t ir_index) const {
        const bool present = ir_index < input_num_ && inputs_[ir_index].desc != nullptr;
        return present ? inputs_[ir_index].desc->GetDataType() : ge::DT_UNDEFINED;
    }
    ge::DataType GetOutputDataType(size_t index) const {
        return index < output_num_ ? output_types_[index] : ge::DT_UNDEFINED;
    }
    ge::graphStatus SetOutputDataType(size_t index, const ge::DataType type) {
        if (index >= output_num_) {
            return ge::GRAPH_FAILED;
        }
        output_types_[index] = type;
        return ge::GRAPH_SUCCESS;
    }

    void SimSetOutputTypes(ge::DataType* types) { output_types_ = types; }

private:
    ge::DataType* output_types_;
};

}  // namespace gert

#endif  // SIM_EXE_GRAPH_RUNTIME_INFER_DATATYPE_CONTEXT_H_
