// SPDX-License-Identifier: Apache-2.0
// Log lines and the per-thread error text.
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <string>

#include "acl/acl.h"
#include "internal.h"
#include "sim_runtime.h"

namespace simrt {
namespace {

const char* const kLevelNames[] = {"DEBUG", "INFO", "WARNING", "ERROR"};

struct LogState {
    std::mutex mutex;
    int level = SIM_LOG_ERROR;
    bool to_stdout = false;
    std::FILE* file = nullptr;
};

std::string Timestamp(const char* format) {
    const std::time_t now = std::time(nullptr);
    std::tm parts;
    localtime_r(&now, &parts);
    char text[64];
    std::strftime(text, sizeof(text), format, &parts);
    return text;
}

// <path>/run/plog/plog-<pid>_<time>.log, the place CANN writes host logs to. Nothing is written without the variable.
std::FILE* OpenProcessLog() {
    const char* root = std::getenv("ASCEND_PROCESS_LOG_PATH");
    if (root == nullptr || *root == '\0') {
        return nullptr;
    }
    std::string path = root;
    mkdir(path.c_str(), 0750);
    for (const char* part : {"/run", "/plog"}) {
        path += part;
        mkdir(path.c_str(), 0750);
    }
    path += "/plog-" + std::to_string(getpid()) + "_" + Timestamp("%Y%m%d%H%M%S") + ".log";
    return std::fopen(path.c_str(), "ae");
}

LogState& State() {
    static LogState* state = [] {
        LogState* created = new LogState();
        const char* level = std::getenv("ASCEND_GLOBAL_LOG_LEVEL");
        if (level != nullptr && *level >= '0' && *level <= '4' && level[1] == '\0') {
            created->level = *level - '0';
        }
        for (const char* name : {"ASCEND_SLOG_PRINT_TO_STDOUT", "ASCEND_LOG_PRINT_TO_STDOUT"}) {
            const char* value = std::getenv(name);
            created->to_stdout = created->to_stdout || (value != nullptr && std::string(value) == "1");
        }
        created->file = OpenProcessLog();
        return created;
    }();
    return *state;
}

thread_local std::string t_pending;
thread_local std::string t_returned;

}  // namespace

std::string EnvOr(const char* name, const char* fallback) {
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0' ? value : fallback;
}

void AddErrorText(const std::string& text) {
    if (!t_pending.empty()) {
        t_pending += "\n";
    }
    t_pending += text;
}

int Fail(int code, const char* id, const std::string& text) {
    SimRtError(id, text.c_str());
    return code;
}

}  // namespace simrt

extern "C" {

void SimRtLog(int level, const char* module, const char* text) {
    simrt::LogState& state = simrt::State();
    if (level < state.level || level > SIM_LOG_ERROR || (!state.to_stdout && state.file == nullptr)) {
        return;
    }
    const std::string line = std::string("[") + simrt::kLevelNames[level] + "] " + module + "(" +
                             std::to_string(getpid()) + ",simulated):" + simrt::Timestamp("%Y-%m-%d-%H:%M:%S") + " " +
                             std::to_string(syscall(SYS_gettid)) + " " + text + "\n";
    const std::lock_guard<std::mutex> lock(state.mutex);
    if (state.to_stdout) {
        std::fputs(line.c_str(), stdout);
        std::fflush(stdout);
    }
    if (state.file != nullptr) {
        std::fputs(line.c_str(), state.file);
        std::fflush(state.file);
    }
}

void SimRtError(const char* code, const char* text) {
    const std::string line = std::string(code) + ": " + text;
    SimRtLog(SIM_LOG_ERROR, "ACL", line.c_str());
    simrt::AddErrorText(line);
}

int SimRtFault(const char* name) {
    const std::string faults = "," + simrt::EnvOr("SMALLQ_SIM_FAULT", "") + ",";
    return faults.find("," + std::string(name) + ",") != std::string::npos ? 1 : 0;
}

int SimRtDeviceFault(const char* name, int32_t device) {
    const std::string here = std::string(name) + "@" + std::to_string(simrt::PhysicalDevice(device));
    return SimRtFault(name) != 0 || SimRtFault(here.c_str()) != 0 ? 1 : 0;
}

const char* aclGetRecentErrMsg(void) {
    if (simrt::t_pending.empty()) {
        return nullptr;
    }
    simrt::t_returned.swap(simrt::t_pending);
    simrt::t_pending.clear();
    return simrt::t_returned.c_str();
}

}  // extern "C"
