// SPDX-License-Identifier: Apache-2.0
// Text of the prototype headers and of the operator information.
#include <string>
#include <vector>

#include "op_build.h"

namespace opbuild {
namespace {

std::string CommaList(const std::vector<std::string>& items) {
    std::string text;
    for (const std::string& item : items) {
        text += (text.empty() ? "" : ",") + item;
    }
    return text;
}

std::string InfoEntry(const std::string& key, const std::vector<std::pair<std::string, std::string>>& values) {
    std::string text = "    " + JsonText(key) + ": {\n";
    for (size_t i = 0; i < values.size(); ++i) {
        text += "      " + JsonText(values[i].first) + ": " + JsonText(values[i].second) +
                (i + 1 < values.size() ? ",\n" : "\n");
    }
    return text + "    }";
}

std::string ParamEntry(const std::string& key, const ops::OpParamDef& param) {
    std::vector<std::string> types;
    std::vector<std::string> formats;
    std::vector<std::string> unknown;
    for (size_t i = 0; i < param.data_types.size(); ++i) {
        types.push_back(TypeText(param.data_types[i]));
        formats.push_back(FormatText(param.formats[i]));
        unknown.push_back(
            FormatText(param.unknown_shape_formats.empty() ? param.formats[i] : param.unknown_shape_formats[i]));
    }
    return InfoEntry(key, {{"name", param.name},
                           {"dtype", CommaList(types)},
                           {"format", CommaList(formats)},
                           {"unknownshape_format", CommaList(unknown)},
                           {"shape", "all"},
                           {"paramType", IsOptional(param) ? "optional" : "required"}});
}

const char* AttrTypeText(ops::SimAttrType type) {
    switch (type) {
        case ops::SimAttrType::kBool:
            return "bool";
        case ops::SimAttrType::kFloat:
            return "float";
        case ops::SimAttrType::kInt:
            return "int";
        case ops::SimAttrType::kString:
            return "str";
        case ops::SimAttrType::kListBool:
            return "listBool";
        case ops::SimAttrType::kListFloat:
            return "listFloat";
        default:
            return "listInt";
    }
}

// "dynamicShapeSupport.flag" -> entry "dynamicShapeSupport" with member "flag".
std::string SettingEntry(const std::string& key, const std::string& value) {
    const size_t dot = key.rfind('.');
    return dot == std::string::npos ? InfoEntry(key, {{"value", value}})
                                    : InfoEntry(key.substr(0, dot), {{key.substr(dot + 1), value}});
}

std::string OperatorInfo(const ops::OpDef& def, const ops::OpAICoreConfig& config) {
    std::vector<std::string> entries;
    const Params inputs = Resolve(def.inputs, config.inputs);
    const Params outputs = Resolve(def.outputs, config.outputs);
    for (size_t i = 0; i < inputs.size(); ++i) {
        entries.push_back(ParamEntry("input" + std::to_string(i), inputs[i]));
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
        entries.push_back(ParamEntry("output" + std::to_string(i), outputs[i]));
    }
    std::vector<std::string> names;
    for (const ops::OpAttrDef& attr : def.attrs) {
        names.push_back(attr.name);
    }
    if (!names.empty()) {
        entries.push_back(InfoEntry("attr", {{"list", CommaList(names)}}));
    }
    for (const ops::OpAttrDef& attr : def.attrs) {
        const bool optional = attr.attr_type == ops::OPTIONAL;
        std::vector<std::pair<std::string, std::string>> values = {{"type", AttrTypeText(attr.value_type)},
                                                                   {"value", "all"},
                                                                   {"paramType", optional ? "optional" : "required"}};
        if (optional) {
            values.push_back({"defaultValue", attr.default_value});
        }
        entries.push_back(InfoEntry("attr_" + attr.name, values));
    }
    bool has_file = false;
    for (const auto& setting : config.settings) {
        entries.push_back(SettingEntry(setting.first, setting.second));
        has_file = has_file || setting.first == "opFile.value";
    }
    if (!has_file) {
        entries.push_back(InfoEntry("opFile", {{"value", SnakeCase(def.type)}}));
        entries.push_back(InfoEntry("opInterface", {{"value", SnakeCase(def.type)}}));
    }
    std::string text = "  " + JsonText(def.type) + ": {\n";
    for (size_t i = 0; i < entries.size(); ++i) {
        text += entries[i] + (i + 1 < entries.size() ? ",\n" : "\n");
    }
    return text + "  }";
}

const char* ProtoTypeText(ops::SimAttrType type) {
    switch (type) {
        case ops::SimAttrType::kBool:
            return "Bool";
        case ops::SimAttrType::kFloat:
            return "Float";
        case ops::SimAttrType::kInt:
            return "Int";
        case ops::SimAttrType::kString:
            return "String";
        case ops::SimAttrType::kListBool:
            return "ListBool";
        case ops::SimAttrType::kListFloat:
            return "ListFloat";
        default:
            return "ListInt";
    }
}

std::string ProtoDefault(const ops::OpAttrDef& attr) {
    std::string value = attr.default_value;
    if (attr.value_type == ops::SimAttrType::kString) {
        return JsonText(value);
    }
    if (!value.empty() && value.front() == '[') {
        value = "{" + value.substr(1, value.size() - 2) + "}";
    }
    return value;
}

}  // namespace

std::string Guard(const std::string& file) {
    std::string guard;
    for (const char c : file) {
        guard += c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
    return guard + "_";
}

std::string ProtoHeader(const ops::OpDef& def) {
    const std::string guard = Guard(SnakeCase(def.type) + "_proto.h");
    std::string text = std::string(kNotice) + "#ifndef " + guard + "\n#define " + guard +
                       "\n\n#include \"graph/operator_reg.h\"\n\nnamespace ge {\n\nREG_OP(" + def.type + ")\n";
    for (const ops::OpParamDef& param : def.inputs) {
        text += std::string(IsOptional(param) ? "    .OPTIONAL_INPUT(" : "    .INPUT(") + param.name +
                ", ge::TensorType::ALL())\n";
    }
    for (const ops::OpParamDef& param : def.outputs) {
        text += "    .OUTPUT(" + param.name + ", ge::TensorType::ALL())\n";
    }
    for (const ops::OpAttrDef& attr : def.attrs) {
        const std::string head = attr.name + ", " + ProtoTypeText(attr.value_type);
        text += attr.attr_type == ops::OPTIONAL ? "    .ATTR(" + head + ", " + ProtoDefault(attr) + ")\n"
                                                : "    .REQUIRED_ATTR(" + head + ")\n";
    }
    return text + "    .OP_END_FACTORY_REG(" + def.type + ")\n\n}  // namespace ge\n\n#endif  // " + guard + "\n";
}

std::string OpsInfo(const std::deque<ops::OpDef>& defs, const std::string& unit) {
    std::string text;
    for (const ops::OpDef& def : defs) {
        for (const auto& config : def.aicore.configs) {
            if (config.first == unit) {
                text += (text.empty() ? "" : ",\n") + OperatorInfo(def, config.second);
            }
        }
    }
    return "{\n" + text + "\n}\n";
}

}  // namespace opbuild
