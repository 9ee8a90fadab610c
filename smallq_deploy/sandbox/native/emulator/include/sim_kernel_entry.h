// SPDX-License-Identifier: Apache-2.0
// The exported launch function of a simulated kernel object. The kernel compiler of the sandbox appends this header and
// one SIM_EXPORT_KERNEL(entry) to the kernel source.
#ifndef SMALLQ_SIM_KERNEL_ENTRY_H_
#define SMALLQ_SIM_KERNEL_ENTRY_H_

#include <utility>

#include "emu/launch.h"
#include "kernel_operator.h"

namespace emu {

template <typename... Args, size_t... Index>
void CallKernel(void (*kernel)(Args...), const std::vector<uint8_t*>& values, std::index_sequence<Index...>) {
    kernel(values[Index]...);
}

// Text of what is wrong with a launch, empty if nothing is.
inline std::string LaunchFault(const SimLaunch& launch, size_t kernelArguments) {
    if (launch.gmArgCount + 2 != kernelArguments) {
        return "the kernel takes " + std::to_string(kernelArguments) + " arguments, the launch has " +
               std::to_string(launch.gmArgCount) + " tensors, a workspace and a tiling";
    }
    if (launch.blockDim == 0) {
        return "blockDim is 0";
    }
    if (launch.coreNumAiv == 0) {
        return "the simulated chip has no vector cores";
    }
    if (launch.ubSize < kRepeatBytes || launch.ubSize > (uint64_t{1} << 24)) {
        return "ubSize " + std::to_string(launch.ubSize) + " is not the size of a unified buffer";
    }
    if ((launch.gmArgCount != 0 && launch.gmArgs == nullptr) ||
        (launch.regionCount != 0 && launch.regions == nullptr)) {
        return "a table of the launch is missing";
    }
    return std::string();
}

template <typename... Args>
int LaunchKernel(SimLaunch* launch, void (*kernel)(Args...)) noexcept {
    if (launch == nullptr || launch->abi != SIM_LAUNCH_ABI) {
        return SIM_BAD_LAUNCH;  // another layout: not even the message field can be trusted
    }
    try {
        const std::string fault = LaunchFault(*launch, sizeof...(Args));
        if (!fault.empty()) {
            LaunchRunner::WriteMessage(*launch, "BAD_LAUNCH: " + fault + "\n");
            return SIM_BAD_LAUNCH;
        }
        std::vector<uint8_t*> values;
        for (uint32_t i = 0; i < launch->gmArgCount; ++i) {
            values.push_back(reinterpret_cast<uint8_t*>(launch->gmArgs[i]));
        }
        values.push_back(reinterpret_cast<uint8_t*>(launch->workspace));
        values.push_back(static_cast<uint8_t*>(const_cast<void*>(launch->tilingData)));
        LaunchRunner runner(*launch,
                            [kernel, &values] { CallKernel(kernel, values, std::index_sequence_for<Args...>()); });
        return runner.Run();
    } catch (const std::exception& error) {  // the host ran out of memory or threads
        LaunchRunner::WriteMessage(*launch, std::string("BAD_LAUNCH: ") + error.what() + "\n");
        return SIM_BAD_LAUNCH;
    }
}

}  // namespace emu

#define SIM_EXPORT_KERNEL(kernel)                                                                       \
    extern "C" __attribute__((visibility("default"))) int smallq_sim_kernel_launch(SimLaunch* launch) { \
        return emu::LaunchKernel(launch, kernel);                                                       \
    }

#endif  // SMALLQ_SIM_KERNEL_ENTRY_H_
