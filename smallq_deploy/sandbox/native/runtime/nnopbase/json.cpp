// SPDX-License-Identifier: Apache-2.0
#include "json.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

namespace nnop {
namespace {

constexpr int kMaxDepth = 64;

class Parser {
public:
    explicit Parser(const std::string& text) : text_(text) {}

    bool Run(Json* value) { return Value(value, 0) && (Skip(), at_ == text_.size() || Error("text after the value")); }
    std::string Reason() const { return error_ + " at byte " + std::to_string(at_); }

private:
    bool Error(const char* reason) {
        error_ = reason;
        return false;
    }
    void Skip() {
        while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) != nullptr) {
            ++at_;
        }
    }
    bool Take(char expected) {
        Skip();
        if (at_ < text_.size() && text_[at_] == expected) {
            ++at_;
            return true;
        }
        return false;
    }
    bool Word(const char* word) {
        const size_t length = std::strlen(word);
        if (text_.compare(at_, length, word) != 0) {
            return Error("unknown word");
        }
        at_ += length;
        return true;
    }

    bool Value(Json* value, int depth) {
        Skip();
        if (at_ >= text_.size() || depth > kMaxDepth) {
            return Error("a value is missing or nested too deep");
        }
        switch (text_[at_]) {
            case '{':
                return Object(value, depth);
            case '[':
                return Array(value, depth);
            case '"':
                value->kind = Json::kString;
                return String(&value->text);
            case 't':
            case 'f':
                value->kind = Json::kBool;
                value->boolean = text_[at_] == 't';
                return Word(value->boolean ? "true" : "false");
            case 'n':
                return Word("null");
            default:
                return Number(value);
        }
    }

    bool Number(Json* value) {
        const char* start = text_.c_str() + at_;
        char* end = nullptr;
        value->kind = Json::kNumber;
        value->number = std::strtod(start, &end);
        at_ += static_cast<size_t>(end - start);
        return end != start || Error("not a value");
    }

    bool Array(Json* value, int depth) {
        value->kind = Json::kArray;
        Take('[');
        if (Take(']')) {
            return true;
        }
        do {
            value->items.emplace_back();
            if (!Value(&value->items.back(), depth + 1)) {
                return false;
            }
        } while (Take(','));
        return Take(']') || Error("',' or ']' expected");
    }

    bool Object(Json* value, int depth) {
        value->kind = Json::kObject;
        Take('{');
        if (Take('}')) {
            return true;
        }
        do {
            std::string name;
            Skip();
            if (!String(&name) || (!Take(':') && !Error("':' expected")) || !Value(&value->members[name], depth + 1)) {
                return false;
            }
        } while (Take(','));
        return Take('}') || Error("',' or '}' expected");
    }

    // \u escapes keep their code below 256 and become '?' above: names and paths here are ASCII.
    bool String(std::string* value) {
        if (at_ >= text_.size() || text_[at_] != '"') {
            return Error("a string is missing");
        }
        for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
            if (text_[at_] != '\\') {
                value->push_back(text_[at_]);
                continue;
            }
            ++at_;
            const char escape = at_ < text_.size() ? text_[at_] : '\0';
            const char* found = std::strchr("n\nt\tr\rb\bf\f\"\"\\\\//", escape);
            if (escape == 'u' && at_ + 4 < text_.size()) {
                const long code = std::strtol(text_.substr(at_ + 1, 4).c_str(), nullptr, 16);
                value->push_back(code < 256 ? static_cast<char>(code) : '?');
                at_ += 4;
            } else if (escape != '\0' && found != nullptr) {
                value->push_back(found[1]);
            } else {
                return Error("bad escape");
            }
        }
        if (at_ >= text_.size()) {
            return Error("unterminated string");
        }
        ++at_;
        return true;
    }

    const std::string& text_;
    size_t at_ = 0;
    std::string error_;
};

}  // namespace

const Json* Json::Find(const std::string& name) const {
    const auto found = members.find(name);
    return found != members.end() ? &found->second : nullptr;
}

std::string Json::Text(const std::string& name) const {
    const Json* found = Find(name);
    return found != nullptr ? found->text : "";
}

bool ParseJson(const std::string& text, Json* value, std::string* error) {
    Parser parser(text);
    if (!parser.Run(value)) {
        *error = parser.Reason();
        return false;
    }
    return true;
}

bool ReadJson(const std::string& path, Json* value, std::string* error) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        *error = "cannot read " + path;
        return false;
    }
    std::stringstream content;
    content << file.rdbuf();
    if (!ParseJson(content.str(), value, error)) {
        *error = path + ": " + *error;
        return false;
    }
    return true;
}

}  // namespace nnop
