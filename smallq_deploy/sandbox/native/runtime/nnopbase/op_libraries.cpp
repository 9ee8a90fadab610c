// SPDX-License-Identifier: Apache-2.0
#include "op_libraries.h"

#include <dlfcn.h>
#include <unistd.h>

#include "codes.h"
#include "sim_runtime.h"

namespace nnop {
namespace {

// Texts of the operator's own OPS_LOG_* macros; many start with the operator's name already.
void OperatorLog(int level, const char* op, const char* text) {
    const std::string prefix = std::string(op) + ": ";
    const std::string line = (std::string(text).compare(0, prefix.size(), prefix) == 0 ? "" : prefix) + text;
    if (level >= SIM_LOG_ERROR) {
        SimRtError("EZ9999", line.c_str());
    } else {
        SimRtLog(level, "OP", line.c_str());
    }
}

template <typename Function>
Function Symbol(void* library, const char* name) {
    return reinterpret_cast<Function>(dlsym(library, name));
}

}  // namespace

void OpLibraries::Open(const std::string& path, std::vector<Library>* libraries) {
    if (access(path.c_str(), F_OK) != 0) {
        LogInfo("no " + path);
        return;
    }
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        const char* reason = dlerror();
        problems_ += std::string("; ") + (reason != nullptr ? reason : path + " cannot be opened");
        LogWarning(problems_);
        return;
    }
    const auto abi = Symbol<int (*)()>(handle, "SimOpLibraryAbi");
    const auto count = Symbol<size_t (*)()>(handle, "SimOpImplCount");
    const auto at = Symbol<const gert::SimOpImpl* (*)(size_t)>(handle, "SimOpImplAt");
    const auto set_sink = Symbol<void (*)(SimOpLogSink)>(handle, "SimOpSetLogSink");
    if (abi == nullptr || count == nullptr || at == nullptr || set_sink == nullptr) {
        LogInfo(path + " registers no operator");
        return;
    }
    if (abi() != SIM_OP_LIBRARY_ABI) {
        problems_ += "; " + path + " was built with the headers of another simulated toolkit";
        return;
    }
    set_sink(&OperatorLog);
    Library library;
    library.path = path;
    for (size_t i = 0; i < count(); ++i) {
        library.impls.push_back(at(i));
    }
    libraries->push_back(library);
    LogInfo("loaded " + path);
}

void OpLibraries::Load(const SearchPath& path) {
    for (const std::string& base : path.bases) {
        Open(base + "/op_impl/ai_core/tbe/op_tiling/lib/" + path.scene + "/libcust_opmaster_rt2.0.so", &tiling_);
        Open(base + "/op_proto/lib/" + path.scene + "/libcust_opsproto_rt2.0.so", &proto_);
    }
}

FoundImpl OpLibraries::Tiling(const std::string& op_type) const {
    for (const Library& library : tiling_) {
        for (const gert::SimOpImpl* impl : library.impls) {
            if (impl->tiling != nullptr && op_type == impl->op_type) {
                return {impl, library.path};
            }
        }
    }
    return {nullptr, ""};
}

FoundImpl OpLibraries::InferShape(const std::string& op_type) const {
    for (const Library& library : proto_) {
        for (const gert::SimOpImpl* impl : library.impls) {
            if (impl->infer_shape != nullptr && op_type == impl->op_type) {
                return {impl, library.path};
            }
        }
    }
    return {nullptr, ""};
}

}  // namespace nnop
