// SPDX-License-Identifier: Apache-2.0
#include "environment.h"

#include "codes.h"
#include "search_path.h"
#include "sim_runtime.h"

namespace nnop {

int Fail(int code, const std::string& text) {
    const int kind = code / 1000;
    SimRtError(kind == 161 ? "EZ1001" : kind == 561 ? "EZ9903" : "EZ9999", text.c_str());
    return code;
}

void LogInfo(const std::string& text) { SimRtLog(SIM_LOG_INFO, "OP", text.c_str()); }
void LogWarning(const std::string& text) { SimRtLog(SIM_LOG_WARNING, "OP", text.c_str()); }

Environment* Environment::Get(int* code) {
    static Environment* loaded = nullptr;
    if (loaded == nullptr) {
        Environment* fresh = new Environment();
        *code = fresh->Load();
        if (*code != kOk) {
            delete fresh;
            return nullptr;
        }
        loaded = fresh;
    }
    return loaded;
}

int Environment::Load() {
    SearchPath path;
    const int code = ReadSearchPath(&path);
    if (code != kOk) {
        return code;
    }
    const fe::PlatFormInfos* infos = SimRtPlatform();
    if (infos == nullptr) {
        return Fail(kOppPathNotFound, "the SoC description of this toolkit cannot be read");
    }
    platform = *infos;
    unit = SimRtComputeUnit();
    for (const std::string& base : path.bases) {
        LogInfo("operator search path: " + base);
    }
    kernels.Load(path, unit);
    libraries.Load(path);
    return kOk;
}

bool Environment::CompileInfo(const gert::SimOpImpl* impl, const void** info) {
    const auto found = compile_infos_.find(impl);
    if (found != compile_infos_.end()) {
        *info = found->second;
        return true;
    }
    void* created = impl->create_compile_info != nullptr ? impl->create_compile_info() : nullptr;
    if (impl->tiling_parse != nullptr) {
        gert::TilingParseContext context;
        context.SimSetNode(impl->op_type, impl->op_type, gert::RuntimeAttrs());
        context.SimSetEnvironment(created, &platform);
        if (impl->tiling_parse(&context) != ge::GRAPH_SUCCESS) {
            impl->delete_compile_info(created);
            return false;
        }
    }
    compile_infos_[impl] = created;
    *info = created;
    return true;
}

}  // namespace nnop
