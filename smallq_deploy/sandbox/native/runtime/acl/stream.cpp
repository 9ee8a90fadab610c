// SPDX-License-Identifier: Apache-2.0
// Streams: ordered queues, each with one worker thread. A stream that failed stays failed until it is destroyed.
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "acl/acl.h"
#include "internal.h"
#include "sim_runtime.h"

namespace simrt {
namespace {

struct Task {
    SimRtTask run;
    void* argument;
    void (*release)(void*);
};

constexpr size_t kTextCapacity = 64 * 1024;

class Stream {
public:
    explicit Stream(int32_t device) : device_(device), worker_([this] { Work(); }) {}
    ~Stream() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
        }
        wake_.notify_all();
        worker_.join();
    }

    int32_t Device() const { return device_; }

    void Push(const Task& task) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            tasks_.push_back(task);
        }
        wake_.notify_all();
    }

    bool Idle() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return tasks_.empty() && !busy_;
    }

    void Drain() {
        std::unique_lock<std::mutex> lock(mutex_);
        idle_.wait(lock, [this] { return tasks_.empty() && !busy_; });
    }

    // timeout in milliseconds, negative waits for ever.
    int Wait(int32_t timeout) {
        std::unique_lock<std::mutex> lock(mutex_);
        const auto done = [this] { return tasks_.empty() && !busy_; };
        if (timeout < 0) {
            idle_.wait(lock, done);
        } else if (!idle_.wait_for(lock, std::chrono::milliseconds(timeout), done)) {
            return Fail(ACL_ERROR_RT_STREAM_SYNC_TIMEOUT, "EE1002",
                        "the stream did not finish within " + std::to_string(timeout) + " ms");
        }
        if (status_ != ACL_SUCCESS && !text_.empty()) {
            SimRtLog(SIM_LOG_ERROR, "RUNTIME", text_.c_str());
            AddErrorText(text_);
        }
        return status_;
    }

private:
    void Work() {
        std::vector<char> text(kTextCapacity);
        std::unique_lock<std::mutex> lock(mutex_);
        while (true) {
            wake_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
            if (tasks_.empty()) {
                return;
            }
            const Task task = tasks_.front();
            tasks_.pop_front();
            busy_ = true;
            const bool skip = status_ != ACL_SUCCESS;
            lock.unlock();
            text[0] = '\0';
            const int status = skip ? ACL_SUCCESS : task.run(task.argument, text.data(), text.size());
            task.release(task.argument);
            lock.lock();
            busy_ = false;
            if (status != ACL_SUCCESS) {
                status_ = status;
                text_ = text.data();
            }
            if (tasks_.empty()) {
                idle_.notify_all();
            }
        }
    }

    const int32_t device_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::condition_variable idle_;
    std::deque<Task> tasks_;
    bool busy_ = false;
    bool stop_ = false;
    int status_ = ACL_SUCCESS;
    std::string text_;
    std::thread worker_;
};

using StreamPtr = std::shared_ptr<Stream>;

struct StreamTable {
    std::mutex mutex;
    std::map<void*, StreamPtr> created;
    std::map<int32_t, StreamPtr> defaults;
};

// Leaked on purpose: joining workers while the process exits could wait for a kernel for ever.
StreamTable& Table() {
    static StreamTable* table = new StreamTable();
    return *table;
}

// The stream behind a handle (null: the current device's default stream); an error text is set when it is unknown.
StreamPtr Find(aclrtStream handle, const char* function, int* status) {
    *status = RequireDevice(function);
    if (*status != ACL_SUCCESS) {
        return nullptr;
    }
    const std::lock_guard<std::mutex> lock(Table().mutex);
    if (handle == nullptr) {
        StreamPtr& stream = Table().defaults[SimRtCurrentDevice()];
        if (stream == nullptr) {
            stream = std::make_shared<Stream>(SimRtCurrentDevice());
        }
        return stream;
    }
    const auto found = Table().created.find(handle);
    if (found == Table().created.end()) {
        *status = Fail(ACL_ERROR_RT_PARAM_INVALID, "EE1001", std::string(function) + ": unknown or destroyed stream");
        return nullptr;
    }
    if (found->second->Device() != SimRtCurrentDevice()) {
        *status =
            Fail(ACL_ERROR_RT_STREAM_CONTEXT, "EE1001",
                 std::string(function) + ": the stream belongs to device " + std::to_string(found->second->Device()) +
                     ", the thread uses device " + std::to_string(SimRtCurrentDevice()));
        return nullptr;
    }
    return found->second;
}

std::vector<StreamPtr> StreamsOf(int32_t device, bool remove) {
    std::vector<StreamPtr> streams;
    const std::lock_guard<std::mutex> lock(Table().mutex);
    for (auto item = Table().created.begin(); item != Table().created.end();) {
        const bool match = device < 0 || item->second->Device() == device;
        if (match) {
            streams.push_back(item->second);
        }
        item = match && remove ? Table().created.erase(item) : std::next(item);
    }
    for (auto item = Table().defaults.begin(); item != Table().defaults.end();) {
        const bool match = item->second != nullptr && (device < 0 || item->first == device);
        if (match) {
            streams.push_back(item->second);
        }
        item = match && remove ? Table().defaults.erase(item) : std::next(item);
    }
    return streams;
}

}  // namespace

void DestroyStreams(int32_t device) { StreamsOf(device, true).clear(); }

void DrainDevice(int32_t device) {
    for (const StreamPtr& stream : StreamsOf(device, false)) {
        stream->Drain();
    }
}

int SynchronizeDevice(int32_t device) {
    int result = ACL_SUCCESS;
    for (const StreamPtr& stream : StreamsOf(device, false)) {
        const int status = stream->Wait(-1);
        result = result == ACL_SUCCESS ? status : result;
    }
    return result;
}

}  // namespace simrt

extern "C" {

int SimRtEnqueue(void* stream, SimRtTask task, void* argument, void (*release)(void*)) {
    int status = ACL_SUCCESS;
    const simrt::StreamPtr found = simrt::Find(stream, "enqueue", &status);
    if (found == nullptr) {
        release(argument);
        return status;
    }
    found->Push({task, argument, release});
    return ACL_SUCCESS;
}

aclError aclrtCreateStream(aclrtStream* stream) {
    if (stream == nullptr) {
        return simrt::Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtCreateStream: null pointer");
    }
    const int status = simrt::RequireDevice("aclrtCreateStream");
    if (status != ACL_SUCCESS) {
        return status;
    }
    const auto created = std::make_shared<simrt::Stream>(SimRtCurrentDevice());
    const std::lock_guard<std::mutex> lock(simrt::Table().mutex);
    simrt::Table().created[created.get()] = created;
    *stream = created.get();
    return ACL_SUCCESS;
}

aclError aclrtDestroyStream(aclrtStream stream) {
    int status = ACL_SUCCESS;
    if (stream == nullptr) {
        return simrt::Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtDestroyStream: null pointer");
    }
    simrt::StreamPtr found = simrt::Find(stream, "aclrtDestroyStream", &status);
    if (found != nullptr) {
        const std::lock_guard<std::mutex> lock(simrt::Table().mutex);
        simrt::Table().created.erase(stream);
    }
    return status;
}

aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, int32_t timeout) {
    if (timeout < -1) {
        return simrt::Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "the timeout must be -1 or more milliseconds");
    }
    int status = ACL_SUCCESS;
    const simrt::StreamPtr found = simrt::Find(stream, "aclrtSynchronizeStream", &status);
    return found == nullptr ? status : found->Wait(timeout);
}

aclError aclrtSynchronizeStream(aclrtStream stream) { return aclrtSynchronizeStreamWithTimeout(stream, -1); }

aclError aclrtStreamQuery(aclrtStream stream, aclrtStreamStatus* status) {
    if (status == nullptr) {
        return simrt::Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtStreamQuery: null pointer");
    }
    int result = ACL_SUCCESS;
    const simrt::StreamPtr found = simrt::Find(stream, "aclrtStreamQuery", &result);
    if (found != nullptr) {
        *status = found->Idle() ? ACL_STREAM_STATUS_COMPLETE : ACL_STREAM_STATUS_NOT_READY;
    }
    return result;
}

aclError aclrtSynchronizeDevice(void) {
    const int status = simrt::RequireDevice("aclrtSynchronizeDevice");
    return status != ACL_SUCCESS ? status : simrt::SynchronizeDevice(SimRtCurrentDevice());
}

}  // extern "C"
