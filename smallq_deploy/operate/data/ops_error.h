// SPDX-License-Identifier: Apache-2.0
// What the operator's host sources need of the build project's utilities, for a build without that project.
// An error goes to stderr when ASCEND_SLOG_PRINT_TO_STDOUT=1 asks for messages; the status code says the rest.
#ifndef SMALLQ_STANDALONE_OPS_ERROR_H_
#define SMALLQ_STANDALONE_OPS_ERROR_H_

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace ops {
namespace standalone {

inline const char* LogName(const char* name) { return name != nullptr ? name : "unknown"; }
inline const char* LogName(const std::string& name) { return name.c_str(); }
template <typename Context>
const char* LogName(const Context* context) {
    return context != nullptr ? context->GetNodeName() : "unknown";
}

__attribute__((format(printf, 2, 3))) inline void LogError(const char* name, const char* format, ...) {
    const char* wanted = std::getenv("ASCEND_SLOG_PRINT_TO_STDOUT");
    if (wanted == nullptr || std::strcmp(wanted, "1") != 0) {
        return;
    }
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    std::fprintf(stderr, "[ERROR] [%s] %s\n", name, text);
}

}  // namespace standalone
}  // namespace ops

#define OPS_LOG_E(OPS_DESC, ...) ::ops::standalone::LogError(::ops::standalone::LogName(OPS_DESC), __VA_ARGS__)
#define OPS_LOG_E_IF_NULL(OPS_DESC, PTR, EXPR)             \
    do {                                                   \
        if ((PTR) == nullptr) {                            \
            OPS_LOG_E(OPS_DESC, "%s is null", #PTR);       \
            EXPR;                                          \
        }                                                  \
    } while (0)

#endif  // SMALLQ_STANDALONE_OPS_ERROR_H_
