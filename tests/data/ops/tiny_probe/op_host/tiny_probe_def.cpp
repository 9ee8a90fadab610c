// SPDX-License-Identifier: Apache-2.0
// An operator whose interface grew three times; its output says what reached the kernel.
#include "register/op_def_registry.h"

namespace ops {

class TinyProbe : public OpDef {
public:
    explicit TinyProbe(const char* name) : OpDef(name) {
        this->Input("x")
            .ParamType(REQUIRED)
            .DataType({ge::DT_FLOAT16, ge::DT_BF16})
            .Format({ge::FORMAT_ND, ge::FORMAT_ND});
        this->Input("row_limits")
            .ParamType(OPTIONAL)
            .DataType({ge::DT_INT64, ge::DT_INT64})
            .Format({ge::FORMAT_ND, ge::FORMAT_ND})
            .Version(3);
        this->Output("z")
            .ParamType(REQUIRED)
            .DataType({ge::DT_FLOAT, ge::DT_FLOAT})
            .Format({ge::FORMAT_ND, ge::FORMAT_ND});
        this->Attr("rate").AttrType(OPTIONAL).Float(0.25).Version(1);
        this->Attr("flip").AttrType(OPTIONAL).Bool(true).Version(2);
        this->Attr("count").AttrType(OPTIONAL).Int(7).Version(2);
        this->Attr("marks").AttrType(OPTIONAL).ListInt({4, 5}).Version(2);
        this->Attr("nothing").AttrType(OPTIONAL).ListFloat({}).Version(3);
        this->AICore().AddConfig("ascend910b");
    }
};

OP_ADD(TinyProbe);

}  // namespace ops
