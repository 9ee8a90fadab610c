// SPDX-License-Identifier: Apache-2.0
// What every operator callback can ask about the node it runs for.
#ifndef SIM_EXE_GRAPH_RUNTIME_EXTENDED_KERNEL_CONTEXT_H_
#define SIM_EXE_GRAPH_RUNTIME_EXTENDED_KERNEL_CONTEXT_H_

#include <cstddef>

#include "exe_graph/runtime/compute_node_info.h"
#include "exe_graph/runtime/runtime_attrs.h"
#include "exe_graph/runtime/storage_shape.h"

namespace gert {

// Filled by the runtime. Slots follow the operator definition; an absent optional tensor has null pointers.
struct SimTensorSlot {
    const CompileTimeTensorDesc* desc;
    StorageShape* shape;
};

class ExtendedKernelContext {
public:
    ExtendedKernelContext()
        : name_(""), type_(""), inputs_(nullptr), input_num_(0), outputs_(nullptr), output_num_(0) {}

    const char* GetNodeName() const { return name_; }
    const char* GetNodeType() const { return type_; }
    const RuntimeAttrs* GetAttrs() const { return &attrs_; }
    size_t GetComputeNodeInputNum() const {
        size_t present = 0;
        for (size_t i = 0; i < input_num_; ++i) {
            present += inputs_[i].shape != nullptr ? 1U : 0U;
        }
        return present;
    }
    size_t GetComputeNodeOutputNum() const { return output_num_; }

    // index counts the tensors that are present.
    const CompileTimeTensorDesc* GetInputDesc(size_t index) const {
        const SimTensorSlot* slot = Present(index);
        return slot != nullptr ? slot->desc : nullptr;
    }
    // index counts the inputs of the definition; null when the tensor was not given.
    const CompileTimeTensorDesc* GetOptionalInputDesc(size_t ir_index) const {
        return ir_index < input_num_ ? inputs_[ir_index].desc : nullptr;
    }
    const CompileTimeTensorDesc* GetOutputDesc(size_t index) const {
        return index < output_num_ ? outputs_[index].desc : nullptr;
    }

    void SimSetNode(const char* name, const char* type, const RuntimeAttrs& attrs) {
        name_ = name;
        type_ = type;
        attrs_ = attrs;
    }
    void SimSetTensors(SimTensorSlot* inputs, size_t input_num, SimTensorSlot* outputs, size_t output_num) {
        inputs_ = inputs;
        input_num_ = input_num;
        outputs_ = outputs;
        output_num_ = output_num;
    }

protected:
    const SimTensorSlot* Present(size_t index) const {
        for (size_t i = 0; i < input_num_; ++i) {
            if (inputs_[i].shape != nullptr && index-- == 0) {
                return &inputs_[i];
            }
        }
        return nullptr;
    }

    const char* name_;
    const char* type_;
    RuntimeAttrs attrs_;
    SimTensorSlot* inputs_;
    size_t input_num_;
    SimTensorSlot* outputs_;
    size_t output_num_;
};

}  // namespace gert

#endif  // SIM_EXE_GRAPH_RUNTIME_EXTENDED_KERNEL_CONTEXT_H_
