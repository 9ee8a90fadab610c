// SPDX-License-Identifier: Apache-2.0
// Process set-up, visible devices, the calling thread's device and context.
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "acl/acl.h"
#include "internal.h"
#include "sim_runtime.h"

namespace simrt {
namespace {

struct Context {
    int32_t device;
};

std::mutex g_mutex;
bool g_initialised = false;
std::set<Context*>& Contexts() {
    static auto* contexts = new std::set<Context*>();
    return *contexts;
}

thread_local Context* t_context = nullptr;

// Physical ids behind logical ids: ASCEND_RT_VISIBLE_DEVICES in ascending order, cut at the first bad entry.
std::vector<uint32_t> VisibleDevices() {
    std::vector<uint32_t> visible;
    const uint32_t count = PhysicalDeviceCount();
    const char* list = std::getenv("ASCEND_RT_VISIBLE_DEVICES");
    if (list == nullptr) {
        for (uint32_t id = 0; id < count; ++id) {
            visible.push_back(id);
        }
        return visible;
    }
    const char* at = list;
    while (*at >= '0' && *at <= '9') {
        char* end = nullptr;
        const unsigned long id = std::strtoul(at, &end, 10);
        const bool ascending = visible.empty() || id > visible.back();
        if (id >= count || !ascending || (*end != ',' && *end != '\0')) {
            break;
        }
        visible.push_back(static_cast<uint32_t>(id));
        at = *end == ',' ? end + 1 : end;
    }
    return visible;
}

// Faults that stand for a machine whose devices cannot be used at all.
int AccessFault() {
    if (SimRtFault("no_device") != 0) {
        return Fail(ACL_ERROR_RT_NO_DEVICE, "EE1006", "no NPU is present: no device file answers");
    }
    if (SimRtFault("no_permission") != 0) {
        return Fail(ACL_ERROR_RT_NO_PERMISSION, "EE1006",
                    "the device files cannot be opened: is the user in the HwHiAiUser group?");
    }
    return ACL_SUCCESS;
}

int OpenFault(int32_t device) {
    const std::string name = "device " + std::to_string(device);
    if (SimRtDeviceFault("driver_old", device) != 0) {
        return Fail(ACL_ERROR_RT_DRV_INTERNAL_ERROR, "E39999", "the driver is too old for this CANN version");
    }
    if (SimRtDeviceFault("set_device_fails", device) != 0) {
        return Fail(ACL_ERROR_RT_DEV_SETUP_ERROR, "E39007", name + " cannot be opened");
    }
    while (SimRtDeviceFault("device_hangs", device) != 0) {
        sleep(1);
    }
    return ACL_SUCCESS;
}

int CheckDevice(const char* function, int32_t device) {
    const std::vector<uint32_t> visible = VisibleDevices();
    if (device < 0 || static_cast<size_t>(device) >= visible.size()) {
        return Fail(ACL_ERROR_RT_INVALID_DEVICEID, "EE1001",
                    std::string(function) + ": device " + std::to_string(device) + " does not exist, " +
                        std::to_string(visible.size()) + " device(s) are visible");
    }
    return ACL_SUCCESS;
}

Context* DefaultContext(int32_t device) {
    static auto* defaults = new std::vector<Context*>();
    while (defaults->size() <= static_cast<size_t>(device)) {
        defaults->push_back(new Context{static_cast<int32_t>(defaults->size())});
    }
    return (*defaults)[static_cast<size_t>(device)];
}

}  // namespace

int32_t PhysicalDevice(int32_t device) {
    const std::vector<uint32_t> visible = VisibleDevices();
    const bool known = device >= 0 && static_cast<size_t>(device) < visible.size();
    return known ? static_cast<int32_t>(visible[static_cast<size_t>(device)]) : -1;
}

int RequireDevice(const char* function) {
    if (t_context == nullptr) {
        return Fail(ACL_ERROR_RT_CONTEXT_NULL, "EE1004",
                    std::string(function) + ": no aclrtSetDevice was called in this thread");
    }
    return ACL_SUCCESS;
}

}  // namespace simrt

using simrt::Fail;

extern "C" {

int32_t SimRtCurrentDevice(void) { return simrt::t_context != nullptr ? simrt::t_context->device : -1; }

aclError aclInit(const char* configPath) {
    if (configPath != nullptr && *configPath != '\0' && access(configPath, R_OK) != 0) {
        return Fail(ACL_ERROR_INVALID_FILE, "EE1003", std::string("aclInit: cannot read ") + configPath);
    }
    const std::lock_guard<std::mutex> lock(simrt::g_mutex);
    if (simrt::g_initialised) {
        return Fail(ACL_ERROR_REPEAT_INITIALIZE, "EE1004", "aclInit was called before in this process");
    }
    simrt::g_initialised = true;
    SimRtLog(SIM_LOG_INFO, "ACL", "aclInit of the simulated toolkit");
    return ACL_SUCCESS;
}

aclError aclFinalize(void) {
    const std::lock_guard<std::mutex> lock(simrt::g_mutex);
    if (!simrt::g_initialised) {
        return Fail(ACL_ERROR_UNINITIALIZE, "EE1004", "aclFinalize: aclInit was not called");
    }
    simrt::g_initialised = false;
    simrt::DestroyStreams(-1);
    simrt::ReleaseMemory(-1);
    return ACL_SUCCESS;
}

aclError aclrtGetDeviceCount(uint32_t* count) {
    if (count == nullptr) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtGetDeviceCount: null pointer");
    }
    const int status = simrt::AccessFault();
    if (status != ACL_SUCCESS) {
        return status;
    }
    if (SimRtPlatform() == nullptr) {
        return ACL_ERROR_RT_NO_DEVICE;
    }
    *count = static_cast<uint32_t>(simrt::VisibleDevices().size());
    return ACL_SUCCESS;
}

aclError aclrtSetDevice(int32_t deviceId) {
    {
        const std::lock_guard<std::mutex> lock(simrt::g_mutex);
        if (!simrt::g_initialised) {
            return Fail(ACL_ERROR_UNINITIALIZE, "EE1004", "aclrtSetDevice: aclInit was not called");
        }
    }
    int status = simrt::AccessFault();
    if (status == ACL_SUCCESS && SimRtPlatform() == nullptr) {
        status = ACL_ERROR_RT_SOC_VERSION;
    }
    if (status == ACL_SUCCESS) {
        status = simrt::CheckDevice("aclrtSetDevice", deviceId);
    }
    if (status == ACL_SUCCESS) {
        status = simrt::OpenFault(deviceId);
    }
    if (status != ACL_SUCCESS) {
        return status;
    }
    const std::lock_guard<std::mutex> lock(simrt::g_mutex);
    simrt::t_context = simrt::DefaultContext(deviceId);
    return ACL_SUCCESS;
}

aclError aclrtGetDevice(int32_t* deviceId) {
    if (deviceId == nullptr) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtGetDevice: null pointer");
    }
    const int status = simrt::RequireDevice("aclrtGetDevice");
    if (status == ACL_SUCCESS) {
        *deviceId = SimRtCurrentDevice();
    }
    return status;
}

aclError aclrtResetDevice(int32_t deviceId) {
    const int status = simrt::CheckDevice("aclrtResetDevice", deviceId);
    if (status != ACL_SUCCESS) {
        return status;
    }
    simrt::DestroyStreams(deviceId);
    simrt::ReleaseMemory(deviceId);
    if (SimRtCurrentDevice() == deviceId) {
        simrt::t_context = nullptr;
    }
    return ACL_SUCCESS;
}

aclError aclrtCreateContext(aclrtContext* context, int32_t deviceId) {
    if (context == nullptr) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtCreateContext: null pointer");
    }
    const int status = simrt::CheckDevice("aclrtCreateContext", deviceId);
    if (status != ACL_SUCCESS) {
        return status;
    }
    const std::lock_guard<std::mutex> lock(simrt::g_mutex);
    auto* created = new simrt::Context{deviceId};
    simrt::Contexts().insert(created);
    simrt::t_context = created;
    *context = created;
    return ACL_SUCCESS;
}

aclError aclrtDestroyContext(aclrtContext context) {
    const std::lock_guard<std::mutex> lock(simrt::g_mutex);
    auto* known = static_cast<simrt::Context*>(context);
    if (simrt::Contexts().erase(known) == 0) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID, "EE1001", "aclrtDestroyContext: unknown context");
    }
    if (simrt::t_context == known) {
        simrt::t_context = nullptr;
    }
    delete known;
    return ACL_SUCCESS;
}

aclError aclrtSetCurrentContext(aclrtContext context) {
    if (context == nullptr) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtSetCurrentContext: null context");
    }
    simrt::t_context = static_cast<simrt::Context*>(context);
    return ACL_SUCCESS;
}

aclError aclrtGetCurrentContext(aclrtContext* context) {
    if (context == nullptr) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtGetCurrentContext: null pointer");
    }
    const int status = simrt::RequireDevice("aclrtGetCurrentContext");
    *context = simrt::t_context;
    return status;
}

}  // extern "C"
