// SPDX-License-Identifier: Apache-2.0
// Key/value view of the SoC description that platform_config/<Soc>.ini holds.
#ifndef SIM_PLATFORM_PLATFORM_INFOS_DEF_H_
#define SIM_PLATFORM_PLATFORM_INFOS_DEF_H_

#include <cstddef>
#include <cstring>
#include <string>

namespace fe {

// One "key=value" line of the ini file and the section it stands in.
struct SimPlatformEntry {
    const char* section;
    const char* key;
    const char* value;
};

class PlatFormInfos {
public:
    PlatFormInfos() : entries_(nullptr), count_(0) {}
    PlatFormInfos(const SimPlatformEntry* entries, size_t count) : entries_(entries), count_(count) {}

    // False when the ini file has no such key; value is then unchanged.
    bool GetPlatformRes(const std::string& label, const std::string& key, std::string& value) const {
        const char* found = SimFind(label.c_str(), key.c_str());
        if (found == nullptr) {
            return false;
        }
        value = found;
        return true;
    }

    const char* SimFind(const char* section, const char* key) const {
        for (size_t i = 0; i < count_; ++i) {
            if (std::strcmp(entries_[i].section, section) == 0 && std::strcmp(entries_[i].key, key) == 0) {
                return entries_[i].value;
            }
        }
        return nullptr;
    }

private:
    const SimPlatformEntry* entries_;
    size_t count_;
};

}  // namespace fe

#endif  // SIM_PLATFORM_PLATFORM_INFOS_DEF_H_
