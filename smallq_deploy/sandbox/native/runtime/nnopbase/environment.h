// SPDX-License-Identifier: Apache-2.0
// What libnnopbase reads once per process: search path, kernel indexes, host libraries, compile infos.
#ifndef SIM_RUNTIME_NNOPBASE_ENVIRONMENT_H_
#define SIM_RUNTIME_NNOPBASE_ENVIRONMENT_H_

#include <map>
#include <string>

#include "kernel_index.h"
#include "op_libraries.h"
#include "platform/platform_infos_def.h"

namespace nnop {

class Environment {
public:
    // Loads everything at the first call. Null with *code set when that fails; a later call tries again.
    static Environment* Get(int* code);

    // Compile info of an operator, made by its tiling-parse function at first use. False when that function failed.
    bool CompileInfo(const gert::SimOpImpl* impl, const void** info);

    fe::PlatFormInfos platform;
    std::string unit;
    KernelIndex kernels;
    OpLibraries libraries;

private:
    int Load();
    std::map<const gert::SimOpImpl*, void*> compile_infos_;
};

}  // namespace nnop

#endif  // SIM_RUNTIME_NNOPBASE_ENVIRONMENT_H_
