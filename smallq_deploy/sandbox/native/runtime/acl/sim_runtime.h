// SPDX-License-Identifier: Apache-2.0
// Functions the simulated acl runtime offers to libnnopbase beside the public acl API. Not part of CANN's API.
#ifndef SIM_RUNTIME_ACL_SIM_RUNTIME_H_
#define SIM_RUNTIME_ACL_SIM_RUNTIME_H_

#include <stddef.h>
#include <stdint.h>

#include "common/sim_launch.h"
#include "platform/platform_infos_def.h"

#define SIM_RT_API __attribute__((visibility("default")))

extern "C" {

enum SimLogLevel { SIM_LOG_DEBUG = 0, SIM_LOG_INFO = 1, SIM_LOG_WARNING = 2, SIM_LOG_ERROR = 3 };

// One line into the log (ASCEND_GLOBAL_LOG_LEVEL, ASCEND_SLOG_PRINT_TO_STDOUT, ASCEND_PROCESS_LOG_PATH).
SIM_RT_API void SimRtLog(int level, const char* module, const char* text);
// Adds a text to what aclGetRecentErrMsg returns in this thread, and logs it as an error.
SIM_RT_API void SimRtError(const char* code, const char* text);
// True when SMALLQ_SIM_FAULT names the fault for the whole machine.
SIM_RT_API int SimRtFault(const char* name);
// True when SMALLQ_SIM_FAULT names the fault, or "<name>@<id>" with the physical id of this (logical) device.
SIM_RT_API int SimRtDeviceFault(const char* name, int32_t device);

// The SoC description, or null with an error text set. Values stay valid for the life of the process.
SIM_RT_API const fe::PlatFormInfos* SimRtPlatform(void);
// Lower-case Short_SoC_version, the name of the compute unit ("ascend910b"); null on failure.
SIM_RT_API const char* SimRtComputeUnit(void);
// Device of the calling thread, -1 when none was set.
SIM_RT_API int32_t SimRtCurrentDevice(void);

// A task returns an acl error code; text (at least 16 KiB) receives the message for aclGetRecentErrMsg.
typedef int (*SimRtTask)(void* argument, char* text, size_t capacity);
// Appends a task to a stream (null: the thread's default stream). release(argument) runs after it, or when it is
// dropped.
SIM_RT_API int SimRtEnqueue(void* stream, SimRtTask task, void* argument, void (*release)(void*));
// Live allocations of a device, sorted by address; returns how many there are and fills at most capacity.
SIM_RT_API size_t SimRtRegions(int32_t device, SimGmRegion* regions, size_t capacity);
// Whether [address, address + size) lies in one live allocation of the device.
SIM_RT_API int SimRtOnDevice(int32_t device, uint64_t address, uint64_t size);
}

#endif  // SIM_RUNTIME_ACL_SIM_RUNTIME_H_
