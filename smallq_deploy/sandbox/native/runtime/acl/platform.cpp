// SPDX-License-Identifier: Apache-2.0
// The SoC description and the device list, read from the toolkit's data directory.
#include <sys/utsname.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include "internal.h"
#include "sim_runtime.h"

namespace simrt {
namespace {

std::string Trim(const std::string& text) {
    const size_t first = text.find_first_not_of(" \t\r\n");
    if (first == std::string::npos) {
        return "";
    }
    return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

struct Ini {
    // A deque: the entries below point into its strings.
    std::deque<std::string> texts;
    std::vector<fe::SimPlatformEntry> entries;

    const char* Keep(const std::string& text) {
        texts.push_back(text);
        return texts.back().c_str();
    }

    bool Read(const std::string& path) {
        std::ifstream file(path);
        std::string line;
        const char* section = "";
        while (std::getline(file, line)) {
            line = Trim(line);
            const size_t equals = line.find('=');
            if (line.empty() || line[0] == '#') {
                continue;
            }
            if (line.front() == '[' && line.back() == ']') {
                section = Keep(line.substr(1, line.size() - 2));
            } else if (equals != std::string::npos) {
                entries.push_back({section, Keep(Trim(line.substr(0, equals))), Keep(Trim(line.substr(equals + 1)))});
            }
        }
        return !entries.empty();
    }

    void Set(const char* section, const char* key, const std::string& value) {
        for (fe::SimPlatformEntry& entry : entries) {
            if (std::string(entry.section) == section && std::string(entry.key) == key) {
                entry.value = Keep(value);
            }
        }
    }

    std::string Find(const char* section, const char* key) const {
        for (const fe::SimPlatformEntry& entry : entries) {
            if (std::string(entry.section) == section && std::string(entry.key) == key) {
                return entry.value;
            }
        }
        return "";
    }
};

struct Machine {
    std::string error;
    std::string soc;
    std::string unit;
    uint32_t devices = 0;
    Ini platform;
    fe::PlatFormInfos infos;
};

std::string DataDirectory() {
    utsname host;
    uname(&host);
    return EnvOr("ASCEND_HOME_PATH", "") + "/" + host.machine + "-linux/data";
}

std::string Lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
    return text;
}

Machine* ReadMachine() {
    Machine* machine = new Machine();
    if (EnvOr("ASCEND_HOME_PATH", "").empty()) {
        machine->error = "ASCEND_HOME_PATH is not set: source the toolkit's set_env.sh before starting the process";
        return machine;
    }
    Ini devices;
    const std::string conf = DataDirectory() + "/sim/devices.conf";
    if (!devices.Read(conf)) {
        machine->error = "cannot read " + conf + ": ASCEND_HOME_PATH is not a simulated toolkit";
        return machine;
    }
    machine->soc = devices.Find("", "soc");
    const std::string count = EnvOr("SMALLQ_SIM_DEVICES", devices.Find("", "devices").c_str());
    machine->devices = static_cast<uint32_t>(std::strtoul(count.c_str(), nullptr, 10));
    const std::string ini = DataDirectory() + "/platform_config/" + machine->soc + ".ini";
    if (!machine->platform.Read(ini)) {
        machine->error = "cannot read the SoC description " + ini;
        return machine;
    }
    if (SimRtFault("soc_mismatch") != 0) {
        machine->soc = "Ascend310P3";
        machine->platform.Set("version", "SoC_version", machine->soc);
        machine->platform.Set("version", "Short_SoC_version", "Ascend310P");
    }
    machine->unit = Lower(machine->platform.Find("version", "Short_SoC_version"));
    machine->infos = fe::PlatFormInfos(machine->platform.entries.data(), machine->platform.entries.size());
    return machine;
}

const Machine& TheMachine() {
    static const Machine* machine = ReadMachine();
    return *machine;
}

bool Readable(const Machine& machine) {
    if (!machine.error.empty()) {
        SimRtError("EE1003", machine.error.c_str());
        return false;
    }
    return true;
}

}  // namespace

uint32_t PhysicalDeviceCount() { return TheMachine().devices; }

uint64_t DeviceMemorySize() {
    const std::string size = TheMachine().platform.Find("SoCInfo", "memory_size");
    return std::strtoull(size.c_str(), nullptr, 10);
}

}  // namespace simrt

extern "C" {

const fe::PlatFormInfos* SimRtPlatform(void) {
    return simrt::Readable(simrt::TheMachine()) ? &simrt::TheMachine().infos : nullptr;
}

const char* SimRtComputeUnit(void) {
    return simrt::Readable(simrt::TheMachine()) ? simrt::TheMachine().unit.c_str() : nullptr;
}

const char* aclrtGetSocName(void) {
    return simrt::Readable(simrt::TheMachine()) ? simrt::TheMachine().soc.c_str() : nullptr;
}

}  // extern "C"
