// SPDX-License-Identifier: Apache-2.0
// OPS_LOG_* macros of the build project's utilities: formatted text goes to the runtime's log; errors also become the
// text of aclGetRecentErrMsg.
#ifndef SIM_LOG_OPS_LOG_H_
#define SIM_LOG_OPS_LOG_H_

#include <cstdarg>
#include <cstdio>
#include <string>

#include "sim/op_library.h"

namespace ops {
namespace sim {

inline const char* OpLogName(const char* name) { return name != nullptr ? name : "unknown"; }
inline const char* OpLogName(const std::string& name) { return name.c_str(); }
template <typename Context>
const char* OpLogName(const Context* context) {
    return context != nullptr ? context->GetNodeName() : "unknown";
}

__attribute__((format(printf, 3, 4))) SIM_OP_LOCAL void OpLog(int level, const char* name, const char* format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    ::sim::LogSink()(level, name, text);
}

}  // namespace sim
}  // namespace ops

#define SIM_OPS_LOG(level, desc, ...) ::ops::sim::OpLog(level, ::ops::sim::OpLogName(desc), __VA_ARGS__)

#define OPS_LOG_D(OPS_DESC, ...) SIM_OPS_LOG(0, OPS_DESC, __VA_ARGS__)
#define OPS_LOG_I(OPS_DESC, ...) SIM_OPS_LOG(1, OPS_DESC, __VA_ARGS__)
#define OPS_LOG_W(OPS_DESC, ...) SIM_OPS_LOG(2, OPS_DESC, __VA_ARGS__)
#define OPS_LOG_E(OPS_DESC, ...) SIM_OPS_LOG(3, OPS_DESC, __VA_ARGS__)

#define OPS_CHECK(COND, LOG_FUNC, EXPR) \
    do {                                \
        if (COND) {                     \
            LOG_FUNC;                   \
            EXPR;                       \
        }                               \
    } while (0)

#define OPS_LOG_E_IF(COND, OPS_DESC, EXPR, ...) OPS_CHECK(COND, OPS_LOG_E(OPS_DESC, __VA_ARGS__), EXPR)
#define OPS_LOG_E_IF_NULL(OPS_DESC, PTR, EXPR) \
    OPS_CHECK((PTR) == nullptr, OPS_LOG_E(OPS_DESC, "%s is null", #PTR), EXPR)
#define OP_CHECK_NULL_WITH_CONTEXT(CONTEXT, PTR) OPS_LOG_E_IF_NULL(CONTEXT, PTR, return ::ge::GRAPH_FAILED)

#endif  // SIM_LOG_OPS_LOG_H_
