// SPDX-License-Identifier: Apache-2.0
// Shared by the sources of the acl runtime library.
#ifndef SIM_RUNTIME_ACL_INTERNAL_H_
#define SIM_RUNTIME_ACL_INTERNAL_H_

#include <cstdint>
#include <string>

#include "acl/acl.h"

namespace simrt {

std::string EnvOr(const char* name, const char* fallback);
void AddErrorText(const std::string& text);
// Records "<id>: <text>" for aclGetRecentErrMsg and returns code.
int Fail(int code, const char* id, const std::string& text);

// Values of <home>/<arch>-linux/data: devices and memory of one device in bytes.
uint32_t PhysicalDeviceCount();
uint64_t DeviceMemorySize();
// Physical id behind a logical one (ASCEND_RT_VISIBLE_DEVICES); -1 when there is none.
int32_t PhysicalDevice(int32_t device);

// ACL_SUCCESS, or the error for a call that needs a device but has none in this thread.
int RequireDevice(const char* function);

// Stops and joins the workers of a device's streams (all devices: -1).
void DestroyStreams(int32_t device);
// Waits for everything queued on a device; the first failure is returned and its text recorded.
int SynchronizeDevice(int32_t device);
// Waits as SynchronizeDevice does, without reporting anything.
void DrainDevice(int32_t device);
// Frees a device's memory.
void ReleaseMemory(int32_t device);

}  // namespace simrt

#endif  // SIM_RUNTIME_ACL_INTERNAL_H_
