// SPDX-License-Identifier: Apache-2.0
// Argument of a tiling-parse function, which runs once per operator and fills its compile info.
#ifndef SIM_EXE_GRAPH_RUNTIME_TILING_PARSE_CONTEXT_H_
#define SIM_EXE_GRAPH_RUNTIME_TILING_PARSE_CONTEXT_H_

#include "exe_graph/runtime/extended_kernel_context.h"

namespace fe {
class PlatFormInfos;
}

namespace gert {

class TilingParseContext : public ExtendedKernelContext {
public:
    TilingParseContext() : compiled_info_(nullptr), platform_(nullptr), json_("{}") {}

    template <typename T>
    T* GetCompiledInfo() const {
        return static_cast<T*>(compiled_info_);
    }
    const char* GetCompiledJson() const { return json_; }
    fe::PlatFormInfos* GetPlatformInfo() const { return platform_; }

    void SimSetEnvironment(void* compiled_info, fe::PlatFormInfos* platform) {
        compiled_info_ = compiled_info;
        platform_ = platform;
    }

private:
    void* compiled_info_;
    fe::PlatFormInfos* platform_;
    const char* json_;
};

}  // namespace gert

#endif  // SIM_EXE_GRAPH_RUNTIME_TILING_PARSE_CONTEXT_H_
