// SPDX-License-Identifier: Apache-2.0
// Events: points in a stream whose host times can be subtracted. Times are those of this machine, never of an NPU.
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "acl/acl.h"
#include "internal.h"
#include "sim_runtime.h"

namespace simrt {
namespace {

using Clock = std::chrono::steady_clock;

struct Event {
    std::mutex mutex;
    std::condition_variable changed;
    bool pending = false;
    bool reached = false;
    Clock::time_point time;
};

using EventPtr = std::shared_ptr<Event>;

struct EventTable {
    std::mutex mutex;
    std::map<void*, EventPtr> created;
};

EventTable& Table() {
    static EventTable* table = new EventTable();
    return *table;
}

EventPtr Find(aclrtEvent handle, const char* function) {
    const std::lock_guard<std::mutex> lock(Table().mutex);
    const auto found = Table().created.find(handle);
    if (found == Table().created.end()) {
        Fail(ACL_ERROR_RT_PARAM_INVALID, "EE1001", std::string(function) + ": unknown or destroyed event");
        return nullptr;
    }
    return found->second;
}

int Stamp(void* argument, char*, size_t) {
    Event& event = **static_cast<EventPtr*>(argument);
    const std::lock_guard<std::mutex> lock(event.mutex);
    event.time = Clock::now();
    event.reached = true;
    return ACL_SUCCESS;
}

// Also runs when a failed stream drops the task: whoever waits must not wait for ever.
void Finish(void* argument) {
    EventPtr* event = static_cast<EventPtr*>(argument);
    {
        const std::lock_guard<std::mutex> lock((*event)->mutex);
        (*event)->pending = false;
    }
    (*event)->changed.notify_all();
    delete event;
}

}  // namespace
}  // namespace simrt

using simrt::Event;
using simrt::EventPtr;
using simrt::Fail;

extern "C" {

aclError aclrtCreateEvent(aclrtEvent* event) {
    if (event == nullptr) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtCreateEvent: null pointer");
    }
    const int status = simrt::RequireDevice("aclrtCreateEvent");
    if (status == ACL_SUCCESS) {
        const EventPtr created = std::make_shared<Event>();
        const std::lock_guard<std::mutex> lock(simrt::Table().mutex);
        simrt::Table().created[created.get()] = created;
        *event = created.get();
    }
    return status;
}

aclError aclrtDestroyEvent(aclrtEvent event) {
    const std::lock_guard<std::mutex> lock(simrt::Table().mutex);
    if (simrt::Table().created.erase(event) == 0) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID, "EE1001", "aclrtDestroyEvent: unknown or destroyed event");
    }
    return ACL_SUCCESS;
}

aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream) {
    const EventPtr found = simrt::Find(event, "aclrtRecordEvent");
    if (found == nullptr) {
        return ACL_ERROR_RT_PARAM_INVALID;
    }
    {
        const std::lock_guard<std::mutex> lock(found->mutex);
        found->pending = true;
        found->reached = false;
    }
    auto* argument = new EventPtr(found);
    const int status = SimRtEnqueue(stream, &simrt::Stamp, argument, &simrt::Finish);
    if (status != ACL_SUCCESS) {
        const std::lock_guard<std::mutex> lock(found->mutex);
        found->pending = false;
    }
    return status;
}

aclError aclrtSynchronizeEvent(aclrtEvent event) {
    const EventPtr found = simrt::Find(event, "aclrtSynchronizeEvent");
    if (found == nullptr) {
        return ACL_ERROR_RT_PARAM_INVALID;
    }
    std::unique_lock<std::mutex> lock(found->mutex);
    found->changed.wait(lock, [&found] { return !found->pending; });
    return ACL_SUCCESS;
}

aclError aclrtEventElapsedTime(float* ms, aclrtEvent startEvent, aclrtEvent endEvent) {
    const EventPtr start = simrt::Find(startEvent, "aclrtEventElapsedTime");
    const EventPtr end = simrt::Find(endEvent, "aclrtEventElapsedTime");
    if (ms == nullptr || start == nullptr || end == nullptr) {
        return ACL_ERROR_RT_PARAM_INVALID;
    }
    if (!start->reached || !end->reached) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID, "EE1001", "aclrtEventElapsedTime: an event was not reached yet");
    }
    *ms = std::chrono::duration<float, std::milli>(end->time - start->time).count();
    return ACL_SUCCESS;
}

}  // extern "C"
