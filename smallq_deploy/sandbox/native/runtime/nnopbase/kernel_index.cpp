// SPDX-License-Identifier: Apache-2.0
#include "kernel_index.h"

#include <dlfcn.h>
#include <unistd.h>

#include <sstream>

#include "codes.h"
#include "json.h"
#include "sha256.h"

namespace nnop {
namespace {

// "<OpType>/d=<deterministic>,p=<precision mode>/<dtype>,<format>/..." with one part a tensor.
bool KeyMatches(const std::string& key, const std::string& op_type, const std::vector<KeyPart>& tensors) {
    std::vector<std::string> parts;
    std::stringstream stream(key);
    for (std::string part; std::getline(stream, part, '/');) {
        parts.push_back(part);
    }
    if (parts.size() != tensors.size() + 2 || parts[0] != op_type || parts[1] != "d=0,p=0") {
        return false;
    }
    for (size_t i = 0; i < tensors.size(); ++i) {
        const std::string wanted = std::to_string(tensors[i].data_type) + "," + std::to_string(tensors[i].format);
        if (!tensors[i].absent && parts[i + 2] != wanted) {
            return false;
        }
    }
    return true;
}

// The description beside an object. As in CANN the FIRST ".o" of the path counts, so a parent directory with ".o" in
// its name leads astray.
std::string DescriptionPath(const std::string& object) {
    const size_t at = object.find(".o");
    return at == std::string::npos ? "" : object.substr(0, at + 1) + "json";
}

}  // namespace

void KernelIndex::AddOperator(const std::string& base, const std::string& op_type, const Json& description) {
    const Json* list = description.Find("binaryList");
    for (const Json& binary : list != nullptr ? list->items : std::vector<Json>()) {
        Entry entry;
        entry.op_type = op_type;
        entry.object = base + "/op_impl/ai_core/tbe/kernel/" + binary.Text("binPath");
        const Json* keys = binary.Find("simplifiedKey");
        for (const Json& key : keys != nullptr ? keys->items : std::vector<Json>()) {
            entry.keys.push_back(key.text);
        }
        entries_.push_back(entry);
    }
}

void KernelIndex::Load(const SearchPath& path, const std::string& unit) {
    unit_ = unit;
    for (const std::string& base : path.bases) {
        const std::string file = base + "/op_impl/ai_core/tbe/kernel/config/" + unit + "/binary_info_config.json";
        searched_.push_back(file);
        if (access(file.c_str(), F_OK) != 0) {
            LogInfo("no kernel index " + file);
            continue;
        }
        Json index;
        std::string error;
        if (!ReadJson(file, &index, &error)) {
            broken_ += "; " + error;
            LogWarning(error);
            continue;
        }
        for (const auto& item : index.members) {
            AddOperator(base, item.first, item.second);
        }
    }
}

int KernelIndex::Find(const std::string& op_type, const std::vector<KeyPart>& tensors,
                      std::shared_ptr<const Kernel>* kernel) {
    bool known = false;
    for (const Entry& entry : entries_) {
        known = known || entry.op_type == op_type;
        for (const std::string& key : entry.keys) {
            if (KeyMatches(key, op_type, tensors)) {
                return Open(entry.object, kernel);
            }
        }
    }
    if (!broken_.empty()) {
        return Fail(kLoadJsonFailed, "a kernel index cannot be parsed" + broken_);
    }
    std::string text = "no kernel of operator " + op_type + " for " + unit_;
    text += known ? ": it is indexed, but not for these data types and formats. Indexes read:"
                  : ": no kernel index has an entry. Looked in:";
    for (const std::string& file : searched_) {
        text += "\n  " + file + (access(file.c_str(), F_OK) == 0 ? "" : " (missing)");
    }
    return Fail(kFindKernelError, text);
}

int KernelIndex::Open(const std::string& object, std::shared_ptr<const Kernel>* kernel) {
    const auto found = opened_.find(object);
    if (found != opened_.end()) {
        *kernel = found->second;
        return kOk;
    }
    const std::string description_path = DescriptionPath(object);
    Json description;
    std::string error;
    if (!ReadJson(description_path, &description, &error)) {
        return Fail(kOpFileInvalid, "the description of kernel " + object + " is unusable: " + error);
    }
    const std::string digest = FileSha256(object);
    if (digest.empty()) {
        return Fail(kOpFileInvalid, "kernel file " + object + " is missing or unreadable");
    }
    if (digest != description.Text("sha256")) {
        return Fail(kOpFileInvalid, "kernel file " + object + " does not have the sha256 that " + description_path +
                                        " gives: one of the two was replaced");
    }
    void* handle = dlopen(object.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        return Fail(kOpFileInvalid, std::string("kernel file cannot be loaded: ") + dlerror());
    }
    auto opened = std::make_shared<Kernel>();
    opened->path = object;
    opened->launch = reinterpret_cast<SimKernelLaunchFn>(dlsym(handle, SIM_KERNEL_LAUNCH_SYMBOL));
    if (opened->launch == nullptr) {
        return Fail(kOpFileInvalid, "kernel file " + object + " was not built for the simulated toolkit");
    }
    LogInfo("kernel " + object);
    opened_[object] = opened;
    *kernel = opened;
    return kOk;
}

}  // namespace nnop
