// SPDX-License-Identifier: Apache-2.0
// Device memory: real mappings with a guard page on both sides and one shadow byte a byte ("was it ever written").
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "acl/acl.h"
#include "internal.h"
#include "sim_runtime.h"

namespace simrt {
namespace {

struct Allocation {
    uint64_t size;
    uint64_t mapped;
    int32_t device;
    uint8_t* shadow;
};

std::mutex g_mutex;
// By start address. Leaked on purpose: workers may still run while the process exits.
std::map<uint64_t, Allocation>& Table() {
    static auto* table = new std::map<uint64_t, Allocation>();
    return *table;
}

uint64_t Address(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }
uint64_t PageSize() { return static_cast<uint64_t>(sysconf(_SC_PAGESIZE)); }

// The allocation that holds the address, or null. The caller holds the lock.
const Allocation* Holding(uint64_t address, uint64_t* base) {
    auto next = Table().upper_bound(address);
    if (next == Table().begin()) {
        return nullptr;
    }
    --next;
    if (address >= next->first + next->second.size) {
        return nullptr;
    }
    *base = next->first;
    return &next->second;
}

// Marks n device bytes from address as written, or copies their state from another device range.
void MarkWritten(uint64_t address, uint64_t n, const uint8_t* state) {
    uint64_t base = 0;
    const Allocation* target = Holding(address, &base);
    if (state != nullptr) {
        std::memmove(target->shadow + (address - base), state, n);
    } else {
        std::memset(target->shadow + (address - base), 1, n);
    }
}

std::string Hex(const void* pointer) {
    char text[32];
    std::snprintf(text, sizeof(text), "%p", pointer);
    return text;
}

// Why [pointer, pointer + n) is not device memory, or an empty text.
std::string NotOnDevice(const char* role, const void* pointer, uint64_t n) {
    uint64_t base = 0;
    const Allocation* found = Holding(Address(pointer), &base);
    if (found == nullptr) {
        return std::string(role) + " " + Hex(pointer) + " is not device memory (a host pointer, or freed)";
    }
    if (n > base + found->size - Address(pointer)) {
        return std::string(role) + " " + Hex(pointer) + " + " + std::to_string(n) + " bytes runs past the end of a " +
               std::to_string(found->size) + " byte allocation";
    }
    return "";
}

std::string NotOnHost(const char* role, const void* pointer) {
    uint64_t base = 0;
    const bool device = Holding(Address(pointer), &base) != nullptr;
    return device ? std::string(role) + " " + Hex(pointer) + " is device memory, the copy kind says host" : "";
}

aclrtMemcpyKind Resolve(const void* dst, const void* src, aclrtMemcpyKind kind) {
    if (kind != ACL_MEMCPY_DEFAULT) {
        return kind;
    }
    uint64_t base = 0;
    const bool to_device = Holding(Address(dst), &base) != nullptr;
    const bool from_device = Holding(Address(src), &base) != nullptr;
    return static_cast<aclrtMemcpyKind>((to_device ? 1 : 0) + (from_device ? 2 : 0));
}

int CheckCopy(const void* dst, const void* src, size_t count, aclrtMemcpyKind kind) {
    const bool to_device = kind == ACL_MEMCPY_HOST_TO_DEVICE || kind == ACL_MEMCPY_DEVICE_TO_DEVICE;
    const bool from_device = kind == ACL_MEMCPY_DEVICE_TO_HOST || kind == ACL_MEMCPY_DEVICE_TO_DEVICE;
    std::string problem = to_device ? NotOnDevice("destination", dst, count) : NotOnHost("destination", dst);
    if (problem.empty()) {
        problem = from_device ? NotOnDevice("source", src, count) : NotOnHost("source", src);
    }
    return problem.empty() ? ACL_SUCCESS : Fail(ACL_ERROR_RT_PARAM_INVALID, "EE1001", "aclrtMemcpy: " + problem);
}

int Copy(void* dst, const void* src, size_t count, aclrtMemcpyKind requested) {
    const std::lock_guard<std::mutex> lock(g_mutex);
    const aclrtMemcpyKind kind = Resolve(dst, src, requested);
    const int status = CheckCopy(dst, src, count, kind);
    if (status != ACL_SUCCESS || count == 0) {
        return status;
    }
    std::memmove(dst, src, count);
    if (kind == ACL_MEMCPY_HOST_TO_DEVICE) {
        MarkWritten(Address(dst), count, nullptr);
    } else if (kind == ACL_MEMCPY_DEVICE_TO_DEVICE) {
        uint64_t base = 0;
        const Allocation* source = Holding(Address(src), &base);
        MarkWritten(Address(dst), count, source->shadow + (Address(src) - base));
    }
    return ACL_SUCCESS;
}

int Fill(void* dst, int32_t value, size_t count) {
    const std::lock_guard<std::mutex> lock(g_mutex);
    const std::string problem = NotOnDevice("destination", dst, count);
    if (!problem.empty()) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID, "EE1001", "aclrtMemset: " + problem);
    }
    std::memset(dst, value, count);
    MarkWritten(Address(dst), count, nullptr);
    return ACL_SUCCESS;
}

void Unmap(uint64_t base, const Allocation& allocation) {
    const uint64_t page = PageSize();
    munmap(reinterpret_cast<void*>(base - page), allocation.mapped + 2 * page);
    munmap(allocation.shadow, allocation.mapped);
}

uint64_t UsedBytes(int32_t device) {
    uint64_t used = 0;
    for (const auto& item : Table()) {
        used += item.second.device == device ? item.second.mapped : 0;
    }
    return used;
}

int CheckCopyArguments(const char* function, const void* dst, size_t dest_max, const void* src, size_t count,
                       int kind) {
    if ((dst == nullptr || src == nullptr) && count != 0) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", std::string(function) + ": a pointer is null");
    }
    if (count > dest_max) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001",
                    std::string(function) + ": " + std::to_string(count) + " bytes do not fit into " +
                        std::to_string(dest_max));
    }
    if (kind < ACL_MEMCPY_HOST_TO_HOST || kind > ACL_MEMCPY_DEFAULT) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001",
                    std::string(function) + ": unknown copy kind " + std::to_string(kind));
    }
    return RequireDevice(function);
}

struct CopyTask {
    void* dst;
    const void* src;
    size_t count;
    aclrtMemcpyKind kind;
    int32_t value;
};

// A failing asynchronous copy leaves its text in the worker's thread; hand it to the stream.
int Forward(int status, char* text, size_t capacity) {
    const char* message = status != ACL_SUCCESS ? aclGetRecentErrMsg() : nullptr;
    std::snprintf(text, capacity, "%s", message != nullptr ? message : "");
    return status;
}

int RunCopy(void* argument, char* text, size_t capacity) {
    const CopyTask* task = static_cast<CopyTask*>(argument);
    return Forward(Copy(task->dst, task->src, task->count, task->kind), text, capacity);
}

int RunFill(void* argument, char* text, size_t capacity) {
    const CopyTask* task = static_cast<CopyTask*>(argument);
    return Forward(Fill(task->dst, task->value, task->count), text, capacity);
}

void DeleteCopyTask(void* argument) { delete static_cast<CopyTask*>(argument); }

}  // namespace

void ReleaseMemory(int32_t device) {
    const std::lock_guard<std::mutex> lock(g_mutex);
    for (auto item = Table().begin(); item != Table().end();) {
        if (device < 0 || item->second.device == device) {
            Unmap(item->first, item->second);
            item = Table().erase(item);
        } else {
            ++item;
        }
    }
}

}  // namespace simrt

using simrt::Fail;

extern "C" {

size_t SimRtRegions(int32_t device, SimGmRegion* regions, size_t capacity) {
    const std::lock_guard<std::mutex> lock(simrt::g_mutex);
    size_t count = 0;
    for (const auto& item : simrt::Table()) {
        if (item.second.device == device) {
            if (count < capacity) {
                regions[count] = {item.first, item.second.size, item.second.shadow};
            }
            ++count;
        }
    }
    return count;
}

int SimRtOnDevice(int32_t device, uint64_t address, uint64_t size) {
    const std::lock_guard<std::mutex> lock(simrt::g_mutex);
    uint64_t base = 0;
    const simrt::Allocation* found = simrt::Holding(address, &base);
    return found != nullptr && found->device == device && size <= base + found->size - address ? 1 : 0;
}

aclError aclrtMalloc(void** devPtr, size_t size, aclrtMemMallocPolicy policy) {
    if (devPtr == nullptr || size == 0 || policy < ACL_MEM_MALLOC_HUGE_FIRST || policy > 7) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtMalloc: null pointer, size 0 or unknown policy");
    }
    const int status = simrt::RequireDevice("aclrtMalloc");
    if (status != ACL_SUCCESS) {
        return status;
    }
    const int32_t device = SimRtCurrentDevice();
    const uint64_t page = simrt::PageSize();
    const uint64_t total = simrt::DeviceMemorySize();
    const std::lock_guard<std::mutex> lock(simrt::g_mutex);
    const uint64_t used = simrt::UsedBytes(device);
    if (SimRtDeviceFault("oom", device) != 0 || size > total || used + size > total) {
        return Fail(ACL_ERROR_RT_DEVICE_OOM, "EL0004",
                    "device " + std::to_string(device) + " is out of memory: asked for " + std::to_string(size) +
                        " bytes, " + std::to_string(used) + " of " + std::to_string(total) + " in use");
    }
    const uint64_t mapped = (size + page - 1) / page * page;
    void* area = mmap(nullptr, mapped + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void* shadow = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED || shadow == MAP_FAILED) {
        return Fail(ACL_ERROR_RT_MEMORY_ALLOCATION, "EL0004", "the host has no address space for device memory");
    }
    void* start = static_cast<uint8_t*>(area) + page;
    mprotect(start, mapped, PROT_READ | PROT_WRITE);
    simrt::Table()[simrt::Address(start)] = {size, mapped, device, static_cast<uint8_t*>(shadow)};
    *devPtr = start;
    return ACL_SUCCESS;
}

aclError aclrtFree(void* devPtr) {
    if (devPtr == nullptr) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtFree: null pointer");
    }
    // A kernel may still use the memory; its own failure is reported by the next synchronisation, not here.
    const int32_t device = SimRtCurrentDevice();
    if (device >= 0) {
        simrt::DrainDevice(device);
    }
    const std::lock_guard<std::mutex> lock(simrt::g_mutex);
    const auto found = simrt::Table().find(simrt::Address(devPtr));
    if (found == simrt::Table().end()) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID, "EE1001",
                    "aclrtFree: " + simrt::Hex(devPtr) + " is not the start of a device allocation");
    }
    simrt::Unmap(found->first, found->second);
    simrt::Table().erase(found);
    return ACL_SUCCESS;
}

aclError aclrtMallocHost(void** hostPtr, size_t size) {
    if (hostPtr == nullptr || size == 0) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtMallocHost: null pointer or size 0");
    }
    *hostPtr = std::malloc(size);
    return *hostPtr != nullptr ? ACL_SUCCESS : ACL_ERROR_BAD_ALLOC;
}

aclError aclrtFreeHost(void* hostPtr) {
    if (hostPtr == nullptr) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtFreeHost: null pointer");
    }
    std::free(hostPtr);
    return ACL_SUCCESS;
}

aclError aclrtMemcpy(void* dst, size_t destMax, const void* src, size_t count, aclrtMemcpyKind kind) {
    const int status = simrt::CheckCopyArguments("aclrtMemcpy", dst, destMax, src, count, kind);
    return status != ACL_SUCCESS ? status : simrt::Copy(dst, src, count, kind);
}

aclError aclrtMemcpyAsync(void* dst, size_t destMax, const void* src, size_t count, aclrtMemcpyKind kind,
                          aclrtStream stream) {
    const int status = simrt::CheckCopyArguments("aclrtMemcpyAsync", dst, destMax, src, count, kind);
    if (status != ACL_SUCCESS) {
        return status;
    }
    auto* task = new simrt::CopyTask{dst, src, count, kind, 0};
    return SimRtEnqueue(stream, &simrt::RunCopy, task, &simrt::DeleteCopyTask);
}

aclError aclrtMemset(void* devPtr, size_t maxCount, int32_t value, size_t count) {
    const int status = simrt::CheckCopyArguments("aclrtMemset", devPtr, maxCount, devPtr, count, 0);
    return status != ACL_SUCCESS ? status : simrt::Fill(devPtr, value, count);
}

aclError aclrtMemsetAsync(void* devPtr, size_t maxCount, int32_t value, size_t count, aclrtStream stream) {
    const int status = simrt::CheckCopyArguments("aclrtMemsetAsync", devPtr, maxCount, devPtr, count, 0);
    if (status != ACL_SUCCESS) {
        return status;
    }
    auto* task = new simrt::CopyTask{devPtr, nullptr, count, ACL_MEMCPY_DEFAULT, value};
    return SimRtEnqueue(stream, &simrt::RunFill, task, &simrt::DeleteCopyTask);
}

aclError aclrtGetMemInfo(aclrtMemAttr attr, size_t* free, size_t* total) {
    if (free == nullptr || total == nullptr || attr < ACL_DDR_MEM || attr > ACL_HBM_MEM_NORMAL) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtGetMemInfo: null pointer or unknown memory kind");
    }
    const int status = simrt::RequireDevice("aclrtGetMemInfo");
    if (status != ACL_SUCCESS) {
        return status;
    }
    const std::lock_guard<std::mutex> lock(simrt::g_mutex);
    *total = simrt::DeviceMemorySize();
    *free = *total - simrt::UsedBytes(SimRtCurrentDevice());
    return ACL_SUCCESS;
}

}  // extern "C"
