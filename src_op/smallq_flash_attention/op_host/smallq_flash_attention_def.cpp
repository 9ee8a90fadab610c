// SPDX-License-Identifier: Apache-2.0
// Definition of the operator: the aclnn interfaces and the kernel's data types are generated from it.
#include "register/op_def_registry.h"

namespace ops {
// What came after the first release carries the number of the aclnn interface it came with, so that
// aclnnSmallqFlashAttention keeps its signature (asc-devkit, OpParamDef::Version and OpAttrDef::Version).
class SmallqFlashAttention : public OpDef {
public:
    explicit SmallqFlashAttention(const char* name) : OpDef(name) {
        this->Input("q")
            .ParamType(REQUIRED)
            .DataType({ge::DT_FLOAT16, ge::DT_BF16})
            .Format({ge::FORMAT_ND, ge::FORMAT_ND})
            .UnknownShapeFormat({ge::FORMAT_ND, ge::FORMAT_ND})
            .AutoContiguous();
        this->Input("k")
            .ParamType(REQUIRED)
            .DataType({ge::DT_FLOAT16, ge::DT_BF16})
            .Format({ge::FORMAT_ND, ge::FORMAT_ND})
            .UnknownShapeFormat({ge::FORMAT_ND, ge::FORMAT_ND})
            .AutoContiguous();
        this->Input("v")
            .ParamType(REQUIRED)
            .DataType({ge::DT_FLOAT16, ge::DT_BF16})
            .Format({ge::FORMAT_ND, ge::FORMAT_ND})
            .UnknownShapeFormat({ge::FORMAT_ND, ge::FORMAT_ND})
            .AutoContiguous();
        this->Input("actual_kv_lengths")
            .ParamType(OPTIONAL)
            .DataType({ge::DT_INT64, ge::DT_INT64})
            .Format({ge::FORMAT_ND, ge::FORMAT_ND})
            .UnknownShapeFormat({ge::FORMAT_ND, ge::FORMAT_ND})
            .AutoContiguous()
            .Version(3);
        this->Output("o")
            .ParamType(REQUIRED)
            .DataType({ge::DT_FLOAT16, ge::DT_BF16})
            .Format({ge::FORMAT_ND, ge::FORMAT_ND})
            .UnknownShapeFormat({ge::FORMAT_ND, ge::FORMAT_ND});
        this->Attr("scale_value").AttrType(OPTIONAL).Version(1).Float(0.0);
        this->Attr("causal").AttrType(OPTIONAL).Version(2).Bool(false);
        this->AICore().AddConfig("ascend910b");
    }
};

OP_ADD(SmallqFlashAttention);
}  // namespace ops
