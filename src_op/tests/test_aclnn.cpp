// SPDX-License-Identifier: Apache-2.0
// Calls the installed operator through its generated aclnn API, for one case that environment variables describe:
//   NUM_HEADS Q_LEN KV_LEN HEAD_DIM IO_DIR          required
//   HEAD_DIM_V (HEAD_DIM)  KV_HEADS (NUM_HEADS)     value head size, heads of keys and values
//   CAUSAL (0)  DTYPE (float16, or bfloat16)        mask; type of all tensors
//   DEVICE_ID (0)  REPEAT (5)                       timed calls after the first
// Reads IO_DIR/{q,k,v}.bin and writes IO_DIR/o.bin: raw, dense, [heads, length, head size]. It does not compare
// anything: run_model_tests.py does. Exit status: 0 done, 2 wrong usage, 3 an acl or aclnn call failed.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "acl/acl.h"
#include "aclnn_smallq_flash_attention.h"
// Version 2 of the interface has the scale and the causal mask; an operator without it can still be tested.
#if __has_include("aclnn_smallq_flash_attention_v2.h")
#include "aclnn_smallq_flash_attention_v2.h"
#define HAS_CAUSAL 1
#else
#define HAS_CAUSAL 0
#endif

namespace {

constexpr int kUsage = 2;
constexpr int kCallFailed = 3;
constexpr size_t kElementBytes = 2;

class Failure : public std::runtime_error {
public:
    Failure(int exitStatus, const std::string& text) : std::runtime_error(text), status(exitStatus) {}
    const int status;
};

// Throws when a call returned a code, with the code and what the toolkit says about it.
void Check(int code, const char* call) {
    if (code == 0) {
        return;
    }
    const char* text = aclGetRecentErrMsg();
    throw Failure(kCallFailed, std::string(call) + " returned " + std::to_string(code) + (text != nullptr ? ": " : "") +
                                   (text != nullptr ? text : ""));
}

// What a destructor finds can only be said.
void Report(int code, const char* call) {
    if (code != 0) {
        const char* text = aclGetRecentErrMsg();
        std::fprintf(stderr, "%s returned %d: %s\n", call, code, text != nullptr ? text : "no message");
    }
}

// ---- the case -------------------------------------------------------------------------------------------------------

std::string Text(const char* name, const char* fallback) {
    const char* value = std::getenv(name);
    if (value != nullptr && *value != '\0') {
        return value;
    }
    if (fallback == nullptr) {
        throw Failure(kUsage, std::string("set ") + name + ": the case is given by environment variables");
    }
    return fallback;
}

int64_t Number(const char* name, const std::string& text, int64_t least) {
    char* end = nullptr;
    const long long value = std::strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0' || value < least) {
        throw Failure(kUsage, std::string(name) + " must be a number of at least " + std::to_string(least) + ", got '" +
                                  text + "'");
    }
    return value;
}

int64_t Required(const char* name) { return Number(name, Text(name, nullptr), 1); }

int64_t Optional(const char* name, int64_t fallback, int64_t least) {
    return Number(name, Text(name, std::to_string(fallback).c_str()), least);
}

struct Case {
    int64_t heads = Required("NUM_HEADS");
    int64_t qLen = Required("Q_LEN");
    int64_t kvLen = Required("KV_LEN");
    int64_t headDim = Required("HEAD_DIM");
    int64_t headDimV = Optional("HEAD_DIM_V", headDim, 1);
    int64_t kvHeads = Optional("KV_HEADS", heads, 1);
    bool causal = Optional("CAUSAL", 0, 0) != 0;
    aclDataType type = ACL_FLOAT16;
    int32_t device = static_cast<int32_t>(Optional("DEVICE_ID", 0, 0));
    int64_t repeat = Optional("REPEAT", 5, 0);
    std::string folder = Text("IO_DIR", nullptr);

    Case() {
        const std::string name = Text("DTYPE", "float16");
        if (name != "float16" && name != "bfloat16") {
            throw Failure(kUsage, "DTYPE must be float16 or bfloat16, got '" + name + "'");
        }
        type = name == "float16" ? ACL_FLOAT16 : ACL_BF16;
    }
};

// ---- everything that has to be given back
// -----------------------------------------------------------------------------

class Session {
public:
    explicit Session(int32_t device) : device_(device) {
        Check(aclInit(nullptr), "aclInit");
        int code = aclrtSetDevice(device_);
        const char* call = "aclrtSetDevice";
        opened_ = code == 0;
        if (opened_) {
            code = aclrtCreateStream(&stream_);
            call = "aclrtCreateStream";
        }
        if (code != 0) {
            // The destructor of an object that was never complete does not run.
            try {
                Check(code, call);
            } catch (const Failure&) {
                Close();
                throw;
            }
        }
    }
    ~Session() { Close(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    aclrtStream Stream() const { return stream_; }

private:
    void Close() {
        if (stream_ != nullptr) {
            Report(aclrtDestroyStream(stream_), "aclrtDestroyStream");
        }
        if (opened_) {
            Report(aclrtResetDevice(device_), "aclrtResetDevice");
        }
        Report(aclFinalize(), "aclFinalize");
    }

    const int32_t device_;
    bool opened_ = false;
    aclrtStream stream_ = nullptr;
};

class DeviceMemory {
public:
    explicit DeviceMemory(size_t bytes) : bytes_(bytes) {
        if (bytes_ > 0) {
            Check(aclrtMalloc(&memory_, bytes_, ACL_MEM_MALLOC_HUGE_FIRST), "aclrtMalloc");
        }
    }
    ~DeviceMemory() {
        if (memory_ != nullptr) {
            Report(aclrtFree(memory_), "aclrtFree");
        }
    }
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;
    void* Get() const { return memory_; }
    size_t Bytes() const { return bytes_; }

private:
    const size_t bytes_;
    void* memory_ = nullptr;
};

// A dense tensor [heads, length, head size] in device memory.
class DeviceTensor {
public:
    DeviceTensor(int64_t heads, int64_t length, int64_t size, aclDataType type)
        : memory_(static_cast<size_t>(heads * length * size) * kElementBytes) {
        const int64_t dims[] = {heads, length, size};
        const int64_t strides[] = {length * size, size, 1};
        tensor_ = aclCreateTensor(dims, 3, type, strides, 0, ACL_FORMAT_ND, dims, 3, memory_.Get());
        if (tensor_ == nullptr) {
            Check(1, "aclCreateTensor");
        }
    }
    ~DeviceTensor() { Report(aclDestroyTensor(tensor_), "aclDestroyTensor"); }
    DeviceTensor(const DeviceTensor&) = delete;
    DeviceTensor& operator=(const DeviceTensor&) = delete;
    const aclTensor* Get() const { return tensor_; }

    void Upload(const std::string& path) {
        std::vector<char> host(memory_.Bytes());
        std::ifstream file(path, std::ios::binary);
        file.read(host.data(), static_cast<std::streamsize>(host.size()));
        if (file.gcount() != static_cast<std::streamsize>(host.size()) ||
            file.peek() != std::ifstream::traits_type::eof()) {
            throw Failure(kUsage, path + " cannot be read or does not have " + std::to_string(host.size()) + " bytes");
        }
        Check(aclrtMemcpy(memory_.Get(), host.size(), host.data(), host.size(), ACL_MEMCPY_HOST_TO_DEVICE),
              "aclrtMemcpy to the device");
    }

    void Download(const std::string& path) const {
        std::vector<char> host(memory_.Bytes());
        Check(aclrtMemcpy(host.data(), host.size(), memory_.Get(), host.size(), ACL_MEMCPY_DEVICE_TO_HOST),
              "aclrtMemcpy from the device");
        std::ofstream file(path, std::ios::binary);
        file.write(host.data(), static_cast<std::streamsize>(host.size()));
        file.close();
        if (!file) {
            throw Failure(kUsage, "cannot write " + path);
        }
    }

private:
    DeviceMemory memory_;
    aclTensor* tensor_ = nullptr;
};

class Event {
public:
    Event() { Check(aclrtCreateEvent(&event_), "aclrtCreateEvent"); }
    ~Event() { Report(aclrtDestroyEvent(event_), "aclrtDestroyEvent"); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    aclrtEvent Get() const { return event_; }

private:
    aclrtEvent event_ = nullptr;
};

// ---- the call -------------------------------------------------------------------------------------------------------

int FirstPhase(const Case& the, const DeviceTensor& q, const DeviceTensor& k, const DeviceTensor& v,
               const DeviceTensor& out, uint64_t* bytes, aclOpExecutor** executor) {
#if HAS_CAUSAL
    if (the.causal) {
        return aclnnSmallqFlashAttentionV2GetWorkspaceSize(q.Get(), k.Get(), v.Get(), 0.0, true, out.Get(), bytes,
                                                           executor);
    }
#else
    if (the.causal) {
        throw Failure(kCallFailed, "the installed operator has no causal mask: its interface has no version 2");
    }
#endif
    return aclnnSmallqFlashAttentionGetWorkspaceSize(q.Get(), k.Get(), v.Get(), out.Get(), bytes, executor);
}

int SecondPhase(const Case& the, void* workspace, uint64_t bytes, aclOpExecutor* executor, aclrtStream stream) {
#if HAS_CAUSAL
    if (the.causal) {
        return aclnnSmallqFlashAttentionV2(workspace, bytes, executor, stream);
    }
#endif
    (void)the;
    return aclnnSmallqFlashAttention(workspace, bytes, executor, stream);
}

// One call; returns microseconds between two events around it.
double CallOperator(const Case& the, const DeviceTensor& q, const DeviceTensor& k, const DeviceTensor& v,
                    const DeviceTensor& out, aclrtStream stream) {
    uint64_t bytes = 0;
    aclOpExecutor* executor = nullptr;
    Check(FirstPhase(the, q, k, v, out, &bytes, &executor), "aclnnSmallqFlashAttentionGetWorkspaceSize");
    const DeviceMemory workspace(bytes);
    const Event start;
    const Event end;
    Check(aclrtRecordEvent(start.Get(), stream), "aclrtRecordEvent");
    Check(SecondPhase(the, workspace.Get(), bytes, executor, stream), "aclnnSmallqFlashAttention");
    Check(aclrtRecordEvent(end.Get(), stream), "aclrtRecordEvent");
    Check(aclrtSynchronizeStream(stream), "aclrtSynchronizeStream");
    float milliseconds = 0;
    Check(aclrtEventElapsedTime(&milliseconds, start.Get(), end.Get()), "aclrtEventElapsedTime");
    return static_cast<double>(milliseconds) * 1e3;
}

double Median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const size_t half = values.size() / 2;
    return values.size() % 2 != 0 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// A simulated toolkit says so in its install record: its times are not those of an NPU.
bool Simulated() {
    const std::string home = Text("ASCEND_HOME_PATH", "");
    for (const char* arch : {"x86_64", "aarch64"}) {
        std::ifstream file(home + "/" + arch + "-linux/ascend_toolkit_install.info");
        for (std::string line; std::getline(file, line);) {
            if (line.find("simulated") != std::string::npos) {
                return true;
            }
        }
    }
    return false;
}

void Run(const Case& the) {
    const Session session(the.device);
    std::printf("device %d is open\n", the.device);
    std::fflush(stdout);
    DeviceTensor q(the.heads, the.qLen, the.headDim, the.type);
    DeviceTensor k(the.kvHeads, the.kvLen, the.headDim, the.type);
    DeviceTensor v(the.kvHeads, the.kvLen, the.headDimV, the.type);
    const DeviceTensor out(the.heads, the.qLen, the.headDimV, the.type);
    q.Upload(the.folder + "/q.bin");
    k.Upload(the.folder + "/k.bin");
    v.Upload(the.folder + "/v.bin");
    const double first = CallOperator(the, q, k, v, out, session.Stream());
    std::vector<double> times;
    for (int64_t call = 0; call < the.repeat; ++call) {
        times.push_back(CallOperator(the, q, k, v, out, session.Stream()));
    }
    out.Download(the.folder + "/o.bin");
    const std::string warm =
        times.empty() ? "first call" : "median of " + std::to_string(the.repeat) + " after warm-up";
    std::printf("time_us %.1f %s (%s)\n", times.empty() ? first : Median(times), Simulated() ? "simulated" : "measured",
                warm.c_str());
}

}  // namespace

int main() {
    try {
        Run(Case());
    } catch (const Failure& failure) {
        std::fprintf(stderr, "test_aclnn: %s\n", failure.what());
        return failure.status;
    }
    return 0;
}
