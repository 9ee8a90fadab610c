// SPDX-License-Identifier: Apache-2.0
// What the emulator throws when a kernel does what the hardware would punish.
#ifndef SMALLQ_EMU_FINDING_H_
#define SMALLQ_EMU_FINDING_H_

#include <cstdarg>
#include <cstdio>
#include <string>

#if __has_include("sim_launch.h")
#include "sim_launch.h"
#else
#include "../../../common/sim_launch.h"
#endif

namespace emu {

// The kernel source line of a call. Every API function takes one as its last, defaulted parameter, so the compiler
// fills in the caller's position and the call forms stay those of the public headers.
struct Where {
    const char* file;
    int line;

    static constexpr Where Here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return Where{file, line};
    }
};

struct Finding {
    SimStatus status;
    uint32_t block;
    std::string code;
    std::string api;
    std::string text;
    std::string position;  // "file:line"
};

inline std::string BaseName(const char* path) {
    const std::string text = path;
    const size_t slash = text.find_last_of('/');
    return slash == std::string::npos ? text : text.substr(slash + 1);
}

__attribute__((format(printf, 6, 7), noreturn, cold, noinline)) inline void Raise(SimStatus status, const char* code,
                                                                                  const char* api, uint32_t block,
                                                                                  Where at, const char* format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    std::vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    throw Finding{status, block, code, api, text, BaseName(at.file) + ":" + std::to_string(at.line)};
}

}  // namespace emu

#endif  // SMALLQ_EMU_FINDING_H_
