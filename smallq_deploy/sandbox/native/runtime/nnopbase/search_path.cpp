// SPDX-License-Identifier: Apache-2.0
// The lookup rules of libnnopbase (opbase: indv_collector.cpp), including their lack of trimming.
#include "search_path.h"

#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "codes.h"

namespace nnop {
namespace {

std::string Env(const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
}

bool IsDirectory(const std::string& path) {
    struct stat info;
    return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

std::vector<std::string> Split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    size_t at = 0;
    while (true) {
        const size_t end = text.find(separator, at);
        parts.push_back(text.substr(at, end == std::string::npos ? end : end - at));
        if (end == std::string::npos) {
            return parts;
        }
        at = end + 1;
    }
}

// Every entry is itself a vendor directory.
void AddCustomPaths(std::vector<std::string>* bases) {
    for (const std::string& entry : Split(Env("ASCEND_CUSTOM_OPP_PATH"), ':')) {
        if (entry.empty()) {
            continue;
        }
        if (IsDirectory(entry)) {
            bases->push_back(entry);
        } else {
            LogWarning("ASCEND_CUSTOM_OPP_PATH entry " + entry + " is not a directory, skipped");
        }
    }
}

// The first line that is no comment and contains "priority" counts. Names are not trimmed: a blank belongs to the name.
void AddConfiguredVendors(const std::string& opp, std::vector<std::string>* bases) {
    const std::string config = opp + "/vendors/config.ini";
    std::ifstream file(config);
    std::string line;
    while (std::getline(file, line)) {
        const size_t equals = line.find('=');
        if (line.empty() || line[0] == '#' || line.find("priority") == std::string::npos ||
            equals == std::string::npos) {
            continue;
        }
        for (const std::string& name : Split(line.substr(equals + 1), ',')) {
            const std::string vendor = opp + "/vendors/" + name;
            if (!name.empty() && IsDirectory(vendor)) {
                bases->push_back(vendor);
            } else {
                LogWarning(config + " names \"" + name + "\", but " + vendor + " is not a directory");
            }
        }
        return;
    }
    LogInfo("no vendor list in " + config);
}

std::map<std::string, std::string> KeyValues(const std::string& path) {
    std::map<std::string, std::string> values;
    std::ifstream file(path);
    std::string line;
    while (std::getline(file, line)) {
        const size_t equals = line.find('=');
        if (equals != std::string::npos) {
            values[line.substr(0, equals)] = line.substr(equals + 1);
        }
    }
    return values;
}

int ReadScene(const std::string& home, const std::string& opp, std::string* scene) {
    for (const std::string& path :
         {home + "/share/info/opbase/scene.info", home + "/share/info/ops_base/scene.info", opp + "/scene.info"}) {
        std::map<std::string, std::string> values = KeyValues(path);
        if (!values["os"].empty() && !values["arch"].empty()) {
            *scene = values["os"] + "/" + values["arch"];
            return kOk;
        }
    }
    return Fail(kOppPathNotFound, "no scene.info with os and arch below " + home + "/share/info or " + opp);
}

}  // namespace

int ReadSearchPath(SearchPath* path) {
    const std::string home = Env("ASCEND_HOME_PATH");
    const std::string opp = Env("ASCEND_OPP_PATH");
    if (home.empty() || opp.empty()) {
        return Fail(kOppPathNotFound, std::string(home.empty() ? "ASCEND_HOME_PATH" : "ASCEND_OPP_PATH") +
                                          " is not set: source the toolkit's set_env.sh");
    }
    if (!IsDirectory(opp)) {
        return Fail(kOppPathNotFound, "ASCEND_OPP_PATH " + opp + " is not a directory");
    }
    path->bases.clear();
    AddCustomPaths(&path->bases);
    AddConfiguredVendors(opp, &path->bases);
    const std::string latest = home + "/opp_latest";
    path->bases.push_back((IsDirectory(latest) ? latest : opp) + "/built-in");
    return ReadScene(home, opp, &path->scene);
}

}  // namespace nnop
