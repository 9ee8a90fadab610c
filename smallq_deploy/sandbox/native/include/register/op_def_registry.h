// SPDX-License-Identifier: Apache-2.0
// OP_ADD: puts an operator definition into the library's table.
#ifndef SIM_REGISTER_OP_DEF_REGISTRY_H_
#define SIM_REGISTER_OP_DEF_REGISTRY_H_

#include <vector>

#include "register/op_def.h"
#include "register/op_impl_registry.h"
#include "sim/op_library.h"

namespace ops {
namespace sim {

SIM_OP_LOCAL std::deque<OpDef>& OpDefs() {
    static std::deque<OpDef> defs;
    return defs;
}

SIM_OP_LOCAL bool AddOpDef(const OpDef& def) {
    OpDefs().push_back(def);
    return true;
}

}  // namespace sim
}  // namespace ops

// A reader must have been compiled with the same string ABI, because the definitions hold std::string.
SIM_OP_EXPORT int SimOpDefStringAbi() { return _GLIBCXX_USE_CXX11_ABI; }
SIM_OP_EXPORT const void* SimOpDefTable() { return &ops::sim::OpDefs(); }

#define OP_ADD(op_class) \
    static const bool g_##op_class##_added __attribute__((unused)) = ::ops::sim::AddOpDef(op_class(#op_class))

#endif  // SIM_REGISTER_OP_DEF_REGISTRY_H_
