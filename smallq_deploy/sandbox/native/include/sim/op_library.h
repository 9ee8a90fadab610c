// SPDX-License-Identifier: Apache-2.0
// How the simulated runtime and op_build talk to an operator's host libraries.
//
// Every host header of the simulated toolkit is header-only. A library built from them exports the C functions declared
// here (weak, default visibility), so it links against nothing and one library never sees the tables of another.
#ifndef SIM_SIM_OP_LIBRARY_H_
#define SIM_SIM_OP_LIBRARY_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>

// Raised whenever the layout of a class crossing the library boundary changes.
#define SIM_OP_LIBRARY_ABI 1

// Emitted in every library that includes the header, whatever -fvisibility says.
#define SIM_OP_EXPORT extern "C" __attribute__((visibility("default"), used)) inline
// Keeps a library's tables private: without it GCC merges such statics over all loaded libraries.
#define SIM_OP_LOCAL __attribute__((visibility("hidden"))) inline

// level: 0 debug, 1 info, 2 warning, 3 error (the values of ASCEND_GLOBAL_LOG_LEVEL).
typedef void (*SimOpLogSink)(int level, const char* op, const char* text);

namespace sim {

SIM_OP_LOCAL void StderrLogSink(int level, const char* op, const char* text) {
    if (level >= 3) {
        std::fprintf(stderr, "[ERROR] %s: %s\n", op, text);
    }
}

SIM_OP_LOCAL SimOpLogSink& LogSink() {
    static SimOpLogSink sink = &StderrLogSink;
    return sink;
}

}  // namespace sim

SIM_OP_EXPORT int SimOpLibraryAbi() { return SIM_OP_LIBRARY_ABI; }
SIM_OP_EXPORT void SimOpSetLogSink(SimOpLogSink sink) { sim::LogSink() = sink; }

#endif  // SIM_SIM_OP_LIBRARY_H_
