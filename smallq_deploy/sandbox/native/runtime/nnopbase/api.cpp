// SPDX-License-Identifier: Apache-2.0
// The C functions of libnnopbase that generated code and callers use.
#include <mutex>
#include <set>
#include <string>

#include "codes.h"
#include "executor.h"
#include "launch.h"
#include "sim_runtime.h"

namespace nnop {
namespace {

std::mutex g_mutex;
// Executors between their two phases.
std::set<Executor*>& Live() {
    static auto* live = new std::set<Executor*>();
    return *live;
}

Executor* Known(const void* executor) {
    auto* known = static_cast<Executor*>(const_cast<void*>(executor));
    return Live().count(known) != 0 ? known : nullptr;
}

int Unknown(const void* executor) {
    if (executor == nullptr) {
        return Fail(kParamNullptr, "the executor is null");
    }
    return Fail(kInnerNullptr, "the executor is unknown or used up: every call needs its own GetWorkspaceSize");
}

int RunLaunch(void* argument, char* text, size_t capacity) {
    std::string message;
    const int status = static_cast<Launch*>(argument)->Run(&message);
    std::snprintf(text, capacity, "%s", message.c_str());
    return status;
}

void DeleteLaunch(void* argument) { delete static_cast<Launch*>(argument); }

AttrValue* Attr(void* executor, size_t index) { return static_cast<Executor*>(executor)->Attr(index); }

template <typename Array>
bool ArrayGiven(void* executor, const Array* array, size_t index) {
    if (array == nullptr) {
        static_cast<Executor*>(executor)->Remember(
            Fail(kParamNullptr, "list attribute " + std::to_string(index) + " must not be null"));
    }
    return array != nullptr;
}

}  // namespace
}  // namespace nnop

using nnop::Attr;
using nnop::Executor;

extern "C" {

void* NnopbaseGetExecutor(const NnopbaseOpInfo* info) { return new Executor(info); }

void NnopbaseAddInput(void* executor, const aclTensor* tensor, size_t index) {
    static_cast<Executor*>(executor)->SetTensor(true, tensor, index);
}
void NnopbaseAddOutput(void* executor, const aclTensor* tensor, size_t index) {
    static_cast<Executor*>(executor)->SetTensor(false, tensor, index);
}
void NnopbaseAddIntAttr(void* executor, int64_t value, size_t index) {
    Attr(executor, index)->integer = value;
    Attr(executor, index)->pointer = &Attr(executor, index)->integer;
}
void NnopbaseAddFloatAttr(void* executor, double value, size_t index) {
    Attr(executor, index)->real = static_cast<float>(value);
    Attr(executor, index)->pointer = &Attr(executor, index)->real;
}
void NnopbaseAddBoolAttr(void* executor, bool value, size_t index) {
    Attr(executor, index)->boolean = value;
    Attr(executor, index)->pointer = &Attr(executor, index)->boolean;
}
void NnopbaseAddStringAttr(void* executor, const char* value, size_t index) {
    Attr(executor, index)->text = value != nullptr ? value : "";
    Attr(executor, index)->pointer = Attr(executor, index)->text.c_str();
}
void NnopbaseAddIntArrayAttr(void* executor, const aclIntArray* array, size_t index) {
    if (nnop::ArrayGiven(executor, array, index)) {
        nnop::AttrValue* attr = Attr(executor, index);
        attr->integers = array->values;
        attr->list = gert::ContinuousVector(attr->integers.size(), attr->integers.data());
        attr->pointer = &attr->list;
    }
}
void NnopbaseAddFloatArrayAttr(void* executor, const aclFloatArray* array, size_t index) {
    if (nnop::ArrayGiven(executor, array, index)) {
        nnop::AttrValue* attr = Attr(executor, index);
        attr->reals = array->values;
        attr->list = gert::ContinuousVector(attr->reals.size(), attr->reals.data());
        attr->pointer = &attr->list;
    }
}
void NnopbaseAddBoolArrayAttr(void* executor, const aclBoolArray* array, size_t index) {
    if (nnop::ArrayGiven(executor, array, index)) {
        nnop::AttrValue* attr = Attr(executor, index);
        attr->booleans = array->values;
        attr->list = gert::ContinuousVector(attr->booleans.size(), attr->booleans.data());
        attr->pointer = &attr->list;
    }
}

aclnnStatus NnopbaseRunForWorkspace(void* handle, uint64_t* workspaceSize, aclOpExecutor** out) {
    Executor* executor = static_cast<Executor*>(handle);
    const std::lock_guard<std::mutex> lock(nnop::g_mutex);
    if (workspaceSize == nullptr || out == nullptr) {
        executor->Remember(nnop::Fail(nnop::kParamNullptr, "workspaceSize and executor must not be null"));
    }
    const int code = executor->Prepare();
    if (code != nnop::kOk) {
        delete executor;
        return code;
    }
    *workspaceSize = executor->Plan().total_workspace;
    *out = reinterpret_cast<aclOpExecutor*>(executor);
    nnop::Live().insert(executor);
    return nnop::kOk;
}

aclnnStatus NnopbaseRunWithWorkspace(aclOpExecutor* handle, aclrtStream stream, void* workspace,
                                     uint64_t workspaceSize) {
    const std::lock_guard<std::mutex> lock(nnop::g_mutex);
    Executor* executor = nnop::Known(handle);
    if (executor == nullptr) {
        return nnop::Unknown(handle);
    }
    const uint64_t needed = executor->Plan().total_workspace;
    if (workspaceSize < needed) {
        return nnop::Fail(nnop::kParamInvalid, "the workspace has " + std::to_string(workspaceSize) + " bytes, " +
                                                   std::to_string(needed) + " are needed");
    }
    if (needed != 0 && workspace == nullptr) {
        return nnop::Fail(nnop::kParamNullptr,
                          "the workspace is null, " + std::to_string(needed) + " bytes are needed");
    }
    const int32_t device = SimRtCurrentDevice();
    if (needed != 0 && SimRtOnDevice(device, reinterpret_cast<uint64_t>(workspace), needed) == 0) {
        return nnop::Fail(nnop::kParamInvalid, "the workspace does not lie in memory of this device");
    }
    auto* launch = new nnop::Launch(*executor, device, workspace);
    const int status = SimRtEnqueue(stream, &nnop::RunLaunch, launch, &nnop::DeleteLaunch);
    if (status == ACL_SUCCESS && !executor->repeatable) {
        nnop::Live().erase(executor);
        delete executor;
    }
    return status == ACL_SUCCESS ? nnop::kOk : 361001;
}

aclnnStatus aclSetAclOpExecutorRepeatable(aclOpExecutor* handle) {
    const std::lock_guard<std::mutex> lock(nnop::g_mutex);
    Executor* executor = nnop::Known(handle);
    if (executor == nullptr) {
        return nnop::Unknown(handle);
    }
    executor->repeatable = true;
    return nnop::kOk;
}

aclnnStatus aclDestroyAclOpExecutor(aclOpExecutor* handle) {
    const std::lock_guard<std::mutex> lock(nnop::g_mutex);
    Executor* executor = nnop::Known(handle);
    if (executor == nullptr) {
        return nnop::Unknown(handle);
    }
    nnop::Live().erase(executor);
    delete executor;
    return nnop::kOk;
}

}  // extern "C"
