// SPDX-License-Identifier: Apache-2.0
#include "launch.h"

#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "acl/acl_rt.h"
#include "environment.h"
#include "sim_runtime.h"
#include "tiling/platform/platform_ascendc.h"

namespace nnop {
namespace {

constexpr size_t kMessageCapacity = 48 * 1024;
constexpr uint32_t kReportCapacity = 16 * 1024;

std::vector<SimGmRegion> Regions(int32_t device) {
    std::vector<SimGmRegion> regions(SimRtRegions(device, nullptr, 0));
    regions.resize(SimRtRegions(device, regions.data(), regions.size()));
    return regions;
}

// Address of the "written" state of a device byte.
uint8_t* Shadow(const std::vector<SimGmRegion>& regions, uint64_t address) {
    auto next = std::upper_bound(regions.begin(), regions.end(), address,
                                 [](uint64_t at, const SimGmRegion& region) { return at < region.base; });
    --next;
    return next->shadow + (address - next->base);
}

uint32_t EnvNumber(const char* name, uint32_t fallback) {
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0' ? static_cast<uint32_t>(std::strtoul(value, nullptr, 10)) : fallback;
}

uint64_t Bytes(const aclTensor& tensor) {
    return static_cast<uint64_t>(tensor.ElementCount()) * aclDataTypeSize(tensor.dataType);
}

std::string Hex(uint64_t value) {
    char text[32];
    std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

int StatusCode(int status) {
    switch (status) {
        case SIM_OK:
            return ACL_SUCCESS;
        case SIM_FINDING:
            return ACL_ERROR_RT_VECTOR_CORE_EXCEPTION;
        case SIM_HANG:
            return ACL_ERROR_RT_VECTOR_CORE_TIMEOUT;
        default:
            return ACL_ERROR_RT_INTERNAL_ERROR;
    }
}

// One line a launch; the file may be shared by several processes, so the line is one write.
bool AppendLine(const char* path, const std::string& line) {
    std::ofstream file(path, std::ios::app);
    file << line + "\n" << std::flush;
    return file.good();
}

}  // namespace

Launch::Launch(const Executor& executor, int32_t device, void* workspace)
    : op_type_(executor.Info().opType),
      plan_(executor.Plan()),
      inputs_(executor.Inputs()),
      outputs_(executor.Outputs()),
      device_(device),
      workspace_(reinterpret_cast<uint64_t>(workspace)) {
    for (size_t i = 0; i < inputs_.size(); ++i) {
        names_.push_back(executor.Info().inputs[i].name);
    }
    for (size_t i = 0; i < outputs_.size(); ++i) {
        names_.push_back(executor.Info().outputs[i].name);
    }
}

uint64_t Launch::Argument(const TensorArg& arg) const {
    if (!arg.given) {
        return 0;
    }
    const uint64_t copies = workspace_ + plan_.kernel_workspace;
    return arg.copy_offset >= 0 ? copies + static_cast<uint64_t>(arg.copy_offset) : arg.tensor.Address();
}

int Launch::CheckTensor(const char* name, const TensorArg& arg, std::string* text) const {
    if (!arg.given || SimRtOnDevice(device_, arg.tensor.Address(), arg.tensor.Extent()) != 0) {
        return ACL_SUCCESS;
    }
    *text = "EZ9999: " + op_type_ + ": tensor " + name + " at " + Hex(arg.tensor.Address()) + ", " +
            std::to_string(arg.tensor.Extent()) + " bytes, does not lie in memory of device " +
            std::to_string(device_) + " (a host pointer, freed memory, or an allocation that is too small)";
    return ACL_ERROR_RT_VECTOR_CORE_EXCEPTION;
}

// Gathers a strided input into its dense copy, element by element, together with the "written" state.
int Launch::CopyDense(const TensorArg& arg, const std::vector<SimGmRegion>& regions) const {
    const aclTensor& tensor = arg.tensor;
    const size_t element = aclDataTypeSize(tensor.dataType);
    const int64_t count = tensor.ElementCount();
    const uint64_t target = Argument(arg);
    if (count == 0) {
        return ACL_SUCCESS;
    }
    if (SimRtOnDevice(device_, target, Bytes(tensor)) == 0) {
        return ACL_ERROR_RT_VECTOR_CORE_EXCEPTION;
    }
    const uint8_t* source_shadow = Shadow(regions, tensor.Address());
    uint8_t* target_shadow = Shadow(regions, target);
    std::vector<int64_t> index(tensor.dims.size(), 0);
    for (int64_t i = 0; i < count; ++i) {
        int64_t offset = 0;
        for (size_t d = 0; d < index.size(); ++d) {
            offset += index[d] * tensor.strides[d];
        }
        const uint64_t from = static_cast<uint64_t>(offset) * element;
        const uint64_t to = static_cast<uint64_t>(i) * element;
        std::memcpy(reinterpret_cast<void*>(target + to), reinterpret_cast<const void*>(tensor.Address() + from),
                    element);
        std::memcpy(target_shadow + to, source_shadow + from, element);
        for (size_t d = index.size(); d-- > 0 && ++index[d] == tensor.dims[d];) {
            index[d] = 0;
        }
    }
    return ACL_SUCCESS;
}

int Launch::Run(std::string* text) const {
    const std::vector<SimGmRegion> regions = Regions(device_);
    std::vector<uint64_t> arguments;
    int status = ACL_SUCCESS;
    for (size_t i = 0; i < inputs_.size() && status == ACL_SUCCESS; ++i) {
        status = CheckTensor(names_[i].c_str(), inputs_[i], text);
        arguments.push_back(Argument(inputs_[i]));
        if (status == ACL_SUCCESS && inputs_[i].copy_offset >= 0) {
            status = CopyDense(inputs_[i], regions);
        }
    }
    for (size_t i = 0; i < outputs_.size() && status == ACL_SUCCESS; ++i) {
        status = CheckTensor(names_[inputs_.size() + i].c_str(), outputs_[i], text);
        arguments.push_back(Argument(outputs_[i]));
    }
    if (status != ACL_SUCCESS) {
        return status;
    }
    if (SimRtDeviceFault("dies", device_) != 0) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    fe::PlatFormInfos infos = *SimRtPlatform();
    const platform_ascendc::PlatformAscendC platform(&infos);
    std::vector<char> message(kMessageCapacity, '\0');
    uint64_t ub_size = 0;
    platform.GetCoreMemSize(platform_ascendc::CoreMemType::UB, ub_size);
    SimLaunch launch = {};
    launch.abi = SIM_LAUNCH_ABI;
    launch.blockDim = plan_.block_dim;
    launch.tilingKey = plan_.tiling_key;
    launch.tilingData = plan_.tiling_data.data();
    launch.tilingSize = plan_.tiling_data.size();
    launch.gmArgs = arguments.data();
    launch.gmArgCount = static_cast<uint32_t>(arguments.size());
    const bool user_workspace = plan_.kernel_workspace > plan_.system_workspace;
    launch.workspace = user_workspace ? workspace_ + plan_.system_workspace : 0;
    launch.regions = regions.data();
    launch.regionCount = static_cast<uint32_t>(regions.size());
    launch.coreNumAiv = platform.GetCoreNumAiv();
    launch.ubSize = ub_size;
    launch.threads = EnvNumber("SMALLQ_SIM_THREADS", 0);
    launch.strict = EnvNumber("SMALLQ_SIM_STRICT", 1);
    launch.message = message.data();
    launch.messageCapacity = kMessageCapacity;
    const char* report_file = getenv("SMALLQ_SIM_REPORT");
    const bool reports = report_file != nullptr && report_file[0] != '\0';
    std::vector<char> report_text(reports ? kReportCapacity : 0, '\0');
    SimReport report = {kReportCapacity, 0, report_text.data()};
    launch.report = reports ? &report : nullptr;
    status = StatusCode(plan_.kernel->launch(&launch));
    if (status != ACL_SUCCESS) {
        const char* what = status == ACL_ERROR_RT_VECTOR_CORE_TIMEOUT ? "would hang" : "failed";
        *text = "EZ9999: kernel of " + op_type_ + " " + what + " in the simulated toolkit (" + plan_.kernel->path +
                ")\n" + message.data();
    } else if (SimRtDeviceFault("wrong_numbers", device_) != 0 && !outputs_.empty() && Bytes(outputs_[0].tensor) > 0) {
        const size_t element = aclDataTypeSize(outputs_[0].tensor.dataType);
        reinterpret_cast<uint8_t*>(outputs_[0].tensor.Address())[element - 1] ^= 0x44U;
    }
    if (reports && status == ACL_SUCCESS && !AppendLine(report_file, report_text.data())) {
        *text = "EZ9999: SMALLQ_SIM_REPORT: cannot append to " + std::string(report_file) + "\n";
        status = ACL_ERROR_RT_INTERNAL_ERROR;
    }
    return status;
}

}  // namespace nnop
