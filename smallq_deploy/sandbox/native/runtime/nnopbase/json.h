// SPDX-License-Identifier: Apache-2.0
// A small JSON reader for index and kernel files.
#ifndef SIM_RUNTIME_NNOPBASE_JSON_H_
#define SIM_RUNTIME_NNOPBASE_JSON_H_

#include <map>
#include <string>
#include <vector>

namespace nnop {

struct Json {
    enum Kind { kNull, kBool, kNumber, kString, kArray, kObject };

    Kind kind = kNull;
    bool boolean = false;
    double number = 0;
    std::string text;
    std::vector<Json> items;
    std::map<std::string, Json> members;

    // The member, or null when this is no object or has none of that name.
    const Json* Find(const std::string& name) const;
    // The member's text, or an empty text.
    std::string Text(const std::string& name) const;
};

// False with a reason when the text is not one JSON value.
bool ParseJson(const std::string& text, Json* value, std::string* error);
// Reads a file and parses it; false with a reason.
bool ReadJson(const std::string& path, Json* value, std::string* error);

}  // namespace nnop

#endif  // SIM_RUNTIME_NNOPBASE_JSON_H_
