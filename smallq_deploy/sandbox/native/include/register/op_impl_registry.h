// SPDX-License-Identifier: Apache-2.0
// Registration of an operator's host functions: IMPL_OP_OPTILING(X).Tiling(f).TilingParse<C>(p),
// IMPL_OP_INFERSHAPE(X)...
#ifndef SIM_REGISTER_OP_IMPL_REGISTRY_H_
#define SIM_REGISTER_OP_IMPL_REGISTRY_H_

#include <cstring>
#include <vector>

#include "exe_graph/runtime/infer_datatype_context.h"
#include "exe_graph/runtime/infer_shape_context.h"
#include "exe_graph/runtime/tiling_context.h"
#include "exe_graph/runtime/tiling_parse_context.h"
#include "graph/ge_error_codes.h"
#include "sim/op_library.h"

namespace gert {

// One operator's functions; a null pointer means the library did not register that one.
struct SimOpImpl {
    const char* op_type;
    ge::graphStatus (*infer_shape)(InferShapeContext*);
    ge::graphStatus (*infer_data_type)(InferDataTypeContext*);
    ge::graphStatus (*tiling)(TilingContext*);
    ge::graphStatus (*tiling_parse)(TilingParseContext*);
    void* (*create_compile_info)();
    void (*delete_compile_info)(void*);
};

namespace sim {

// Pointers to entries stay valid while others are added.
SIM_OP_LOCAL std::vector<SimOpImpl*>& OpImpls() {
    static std::vector<SimOpImpl*> impls;
    return impls;
}

SIM_OP_LOCAL SimOpImpl* FindOrAddImpl(const char* op_type) {
    std::vector<SimOpImpl*>& impls = OpImpls();
    for (size_t i = 0; i < impls.size(); ++i) {
        if (std::strcmp(impls[i]->op_type, op_type) == 0) {
            return impls[i];
        }
    }
    SimOpImpl* added = new SimOpImpl();
    added->op_type = op_type;
    impls.push_back(added);
    return added;
}

}  // namespace sim

class OpImplRegisterV2 {
public:
    using InferShapeKernelFunc = ge::graphStatus (*)(InferShapeContext*);
    using InferDataTypeKernelFunc = ge::graphStatus (*)(InferDataTypeContext*);
    using TilingKernelFunc = ge::graphStatus (*)(TilingContext*);
    using TilingParseKernelFunc = ge::graphStatus (*)(TilingParseContext*);

    explicit OpImplRegisterV2(const char* op_type) : impl_(sim::FindOrAddImpl(op_type)) {}

    OpImplRegisterV2& InferShape(InferShapeKernelFunc function) {
        impl_->infer_shape = function;
        return *this;
    }
    OpImplRegisterV2& InferDataType(InferDataTypeKernelFunc function) {
        impl_->infer_data_type = function;
        return *this;
    }
    OpImplRegisterV2& Tiling(TilingKernelFunc function) {
        impl_->tiling = function;
        return *this;
    }
    template <typename CompileInfo>
    OpImplRegisterV2& TilingParse(TilingParseKernelFunc function) {
        impl_->tiling_parse = function;
        impl_->create_compile_info = &Create<CompileInfo>;
        impl_->delete_compile_info = &Delete<CompileInfo>;
        return *this;
    }

private:
    template <typename CompileInfo>
    static void* Create() {
        return new CompileInfo();
    }
    template <typename CompileInfo>
    static void Delete(void* info) {
        delete static_cast<CompileInfo*>(info);
    }

    SimOpImpl* impl_;
};

}  // namespace gert

SIM_OP_EXPORT size_t SimOpImplCount() { return gert::sim::OpImpls().size(); }
SIM_OP_EXPORT const gert::SimOpImpl* SimOpImplAt(size_t index) { return gert::sim::OpImpls()[index]; }

#define SIM_OP_IMPL_NAME(op_type, number) g_op_impl_##op_type##_##number
#define SIM_OP_IMPL_DECLARE(op_type, number) \
    static gert::OpImplRegisterV2 SIM_OP_IMPL_NAME(op_type, number) = gert::OpImplRegisterV2(#op_type)
#define IMPL_OP(op_type) SIM_OP_IMPL_DECLARE_EXPANDED(op_type, __COUNTER__)
#define SIM_OP_IMPL_DECLARE_EXPANDED(op_type, number) SIM_OP_IMPL_DECLARE(op_type, number)
#define IMPL_OP_INFERSHAPE(op_type) IMPL_OP(op_type)
#define IMPL_OP_OPTILING(op_type) IMPL_OP(op_type)

#endif  // SIM_REGISTER_OP_IMPL_REGISTRY_H_
