// SPDX-License-Identifier: Apache-2.0
// Graph prototypes (REG_OP). The simulated toolkit has no graph engine: a prototype only has to be well-formed C++.
#ifndef SIM_GRAPH_OPERATOR_REG_H_
#define SIM_GRAPH_OPERATOR_REG_H_

#include "graph/types.h"

namespace ge {

struct TensorType {
    static TensorType ALL() { return TensorType(); }
};

namespace sim {
struct OpPrototype {
    OpPrototype& Parameter(const char*, const TensorType&) { return *this; }
    OpPrototype& Attribute(const char*, const char*) { return *this; }
};
}  // namespace sim

}  // namespace ge

#define REG_OP(op_type)                                       \
    inline ::ge::sim::OpPrototype SimPrototypeOf##op_type() { \
        return ::ge::sim::OpPrototype()
#define INPUT(name, type) Parameter(#name, type)
#define OPTIONAL_INPUT(name, type) Parameter(#name, type)
#define OUTPUT(name, type) Parameter(#name, type)
#define ATTR(name, type, ...) Attribute(#name, #type)
#define REQUIRED_ATTR(name, type) Attribute(#name, #type)
#define OP_END_FACTORY_REG(op_type)    \
    Parameter("", ::ge::TensorType()); \
    }

#endif  // SIM_GRAPH_OPERATOR_REG_H_
