// SPDX-License-Identifier: Apache-2.0
// Static description of one input or output: data type and formats.
#ifndef SIM_EXE_GRAPH_RUNTIME_COMPUTE_NODE_INFO_H_
#define SIM_EXE_GRAPH_RUNTIME_COMPUTE_NODE_INFO_H_

#include "graph/types.h"

namespace gert {

class CompileTimeTensorDesc {
public:
    CompileTimeTensorDesc()
        : data_type_(ge::DT_UNDEFINED), origin_format_(ge::FORMAT_RESERVED), storage_format_(ge::FORMAT_RESERVED) {}

    ge::DataType GetDataType() const { return data_type_; }
    ge::Format GetOriginFormat() const { return origin_format_; }
    ge::Format GetStorageFormat() const { return storage_format_; }
    void SetDataType(ge::DataType data_type) { data_type_ = data_type; }
    void SetOriginFormat(ge::Format format) { origin_format_ = format; }
    void SetStorageFormat(ge::Format format) { storage_format_ = format; }

private:
    ge::DataType data_type_;
    ge::Format origin_format_;
    ge::Format storage_format_;
};

}  // namespace gert

#endif  // SIM_EXE_GRAPH_RUNTIME_COMPUTE_NODE_INFO_H_
