// SPDX-License-Identifier: Apache-2.0
// The generated aclnn API: headers and sources of every interface version.
//
// A parameter with Version(n) is part of version n and later only. The highest version calls the runtime; the others
// pass their arguments on to it, with null and the default values for what they do not have (asc-devkit,
// OpParamDef::Version).
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "op_build.h"

namespace opbuild {
namespace {

struct Argument {
    std::string type;
    std::string name;
    std::string call;
    uint32_t version;
    const ops::OpAttrDef* attr;  // null for a tensor
};

// C type, the call that passes the value, and whether an optional one gets the suffix.
struct AttrKind {
    const char* type;
    const char* add;
    bool suffix;
};

AttrKind KindOf(ops::SimAttrType type) {
    switch (type) {
        case ops::SimAttrType::kBool:
            return {"bool ", "NnopbaseAddBoolAttr", false};
        case ops::SimAttrType::kFloat:
            return {"double ", "NnopbaseAddFloatAttr", false};
        case ops::SimAttrType::kInt:
            return {"int64_t ", "NnopbaseAddIntAttr", false};
        case ops::SimAttrType::kString:
            return {"char *", "NnopbaseAddStringAttr", true};
        case ops::SimAttrType::kListBool:
            return {"const aclBoolArray *", "NnopbaseAddBoolArrayAttr", true};
        case ops::SimAttrType::kListFloat:
            return {"const aclFloatArray *", "NnopbaseAddFloatArrayAttr", true};
        default:
            return {"const aclIntArray *", "NnopbaseAddIntArrayAttr", true};
    }
}

uint32_t Highest(const ops::OpDef& def) { return InterfaceVersions(def).back(); }

// Inputs, attributes, outputs. One output is always called "out", several get the suffix "Out".
std::vector<Argument> Arguments(const ops::OpDef& def) {
    std::vector<Argument> arguments;
    for (size_t i = 0; i < def.inputs.size(); ++i) {
        const std::string name = LowerCamel(def.inputs[i].name) + (IsOptional(def.inputs[i]) ? "Optional" : "");
        arguments.push_back({"const aclTensor *", name, "NnopbaseAddInput(handle, " + name + ", " + std::to_string(i),
                             def.inputs[i].version, nullptr});
    }
    for (size_t i = 0; i < def.attrs.size(); ++i) {
        const AttrKind kind = KindOf(def.attrs[i].value_type);
        const bool suffix = kind.suffix && def.attrs[i].attr_type == ops::OPTIONAL;
        const std::string name = LowerCamel(def.attrs[i].name) + (suffix ? "Optional" : "");
        arguments.push_back({kind.type, name, std::string(kind.add) + "(handle, " + name + ", " + std::to_string(i),
                             def.attrs[i].version, &def.attrs[i]});
    }
    for (size_t i = 0; i < def.outputs.size(); ++i) {
        const std::string base = def.outputs.size() == 1 ? "out" : LowerCamel(def.outputs[i].name) + "Out";
        const std::string name = base + (IsOptional(def.outputs[i]) ? "Optional" : "");
        arguments.push_back(
            {"const aclTensor *", name, "NnopbaseAddOutput(handle, " + name + ", " + std::to_string(i), 0, nullptr});
    }
    return arguments;
}

std::string FunctionName(const ops::OpDef& def, uint32_t version) {
    return "aclnn" + def.type + (version != 0 ? "V" + std::to_string(version) : "");
}

std::string FirstPhase(const ops::OpDef& def, uint32_t version) {
    std::string text = "aclnnStatus " + FunctionName(def, version) + "GetWorkspaceSize(\n";
    for (const Argument& argument : Arguments(def)) {
        if (argument.version <= version) {
            text += "    " + argument.type + argument.name + ",\n";
        }
    }
    return text + "    uint64_t *workspaceSize,\n    aclOpExecutor **executor)";
}

std::string SecondPhase(const ops::OpDef& def, uint32_t version) {
    return "aclnnStatus " + FunctionName(def, version) +
           "(\n    void *workspace,\n    uint64_t workspaceSize,\n    aclOpExecutor *executor,\n"
           "    aclrtStream stream)";
}

// What a version without the attribute passes on: a literal, or an array made once and kept.
std::string DefaultArgument(const ops::OpAttrDef& attr) {
    std::string value = attr.default_value;
    if (attr.value_type == ops::SimAttrType::kString) {
        return "const_cast<char *>(" + JsonText(value) + ")";
    }
    if (value.empty() || value.front() != '[') {
        return value;
    }
    const char* const names[] = {"Bool", "bool", "Float", "float", "Int", "int64_t"};
    const size_t at = attr.value_type == ops::SimAttrType::kListBool    ? 0
                      : attr.value_type == ops::SimAttrType::kListFloat ? 2
                                                                        : 4;
    value = value.substr(1, value.size() - 2);
    const size_t count = value.empty() ? 0 : 1 + static_cast<size_t>(std::count(value.begin(), value.end(), ','));
    // One element is added, since a C array cannot be empty.
    return std::string("[] {\n            static const ") + names[at + 1] + " values[] = {" + value +
           (value.empty() ? "0" : "") + "};\n            static const acl" + names[at] + "Array *array = aclCreate" +
           names[at] + "Array(values, " + std::to_string(count) + ");\n            return array;\n        }()";
}

std::string ParamTable(const char* table, const Params& params, const std::string& single) {
    std::string text = std::string("const NnopbaseParam ") + table + "[] = {\n";
    for (const ops::OpParamDef& param : params) {
        const int mode = param.ignore_contiguous ? 2 : param.auto_contiguous ? 1 : 0;
        const std::string name = params.size() == 1 && !single.empty() ? single : LowerCamel(param.name);
        text +=
            "    {\"" + name + "\", " + (IsOptional(param) ? "false" : "true") + ", " + std::to_string(mode) + "},\n";
    }
    return text + "};\n";
}

std::string DescList(const Params& params, size_t row) {
    std::string text;
    for (const ops::OpParamDef& param : params) {
        text += text.empty() ? "" : ", ";
        text += "{static_cast<aclDataType>(" + std::to_string(param.data_types[row]) + "), static_cast<aclFormat>(" +
                std::to_string(param.formats[row]) + ")}";
    }
    return "{" + text + "}";
}

std::string SupportTables(const ops::OpDef& def) {
    std::string tables;
    std::string units;
    for (size_t u = 0; u < def.aicore.configs.size(); ++u) {
        const ops::OpAICoreConfig& config = def.aicore.configs[u].second;
        const Params inputs = Resolve(def.inputs, config.inputs);
        const Params outputs = Resolve(def.outputs, config.outputs);
        const std::string unit = std::to_string(u);
        std::string rows;
        const size_t count = inputs[0].data_types.size();
        for (size_t row = 0; row < count; ++row) {
            const std::string id = unit + "_" + std::to_string(row);
            tables += "const NnopbaseTensorDesc kInputs" + id + "[] = " + DescList(inputs, row) + ";\n";
            tables += "const NnopbaseTensorDesc kOutputs" + id + "[] = " + DescList(outputs, row) + ";\n";
            rows += (row == 0 ? "" : ", ") + ("{kInputs" + id) + ", kOutputs" + id + "}";
        }
        tables += "const NnopbaseSupportRow kRows" + unit + "[] = {" + rows + "};\n";
        units += "    {\"" + def.aicore.configs[u].first + "\", kRows" + unit + ", " + std::to_string(count) + "},\n";
    }
    if (units.empty()) {
        return "const NnopbaseUnitSupport *const kUnits = nullptr;\n";
    }
    return tables + "const NnopbaseUnitSupport kUnits[] = {\n" + units + "};\n";
}

// The highest version: tables of what is supported, and the calls that fill an executor.
std::string CompleteSource(const ops::OpDef& def, uint32_t version) {
    const Params inputs(def.inputs.begin(), def.inputs.end());
    const Params outputs(def.outputs.begin(), def.outputs.end());
    std::string text = "#include \"sim/nnopbase_api.h\"\n\nnamespace {\n\n";
    text += ParamTable("kInputs", inputs, "") + ParamTable("kOutputs", outputs, "out") + SupportTables(def);
    text += "const NnopbaseOpInfo kOp = {\"" + def.type + "\", kInputs, " + std::to_string(inputs.size()) +
            ", kOutputs, " + std::to_string(outputs.size()) + ", " + std::to_string(def.attrs.size()) + ", kUnits, " +
            std::to_string(def.aicore.configs.size()) + "};\n\n}  // namespace\n\nextern \"C\" {\n\n";
    text += FirstPhase(def, version) + " {\n    void *handle = NnopbaseGetExecutor(&kOp);\n";
    for (const Argument& argument : Arguments(def)) {
        text += "    " + argument.call + ");\n";
    }
    return text + "    return NnopbaseRunForWorkspace(handle, workspaceSize, executor);\n}\n\n" +
           SecondPhase(def, version) +
           " {\n    return NnopbaseRunWithWorkspace(executor, stream, workspace, workspaceSize);\n}\n\n}\n";
}

// A lower version: everything it does not have is passed as null or as its default.
std::string ForwardingSource(const ops::OpDef& def, uint32_t version) {
    const std::string target = FunctionName(def, Highest(def));
    std::string text = "#include \"" + AclnnFile(def, Highest(def)) + ".h\"\n\nextern \"C\" {\n\n";
    text += FirstPhase(def, version) + " {\n    return " + target + "GetWorkspaceSize(\n";
    for (const Argument& argument : Arguments(def)) {
        const std::string missing = argument.attr != nullptr ? DefaultArgument(*argument.attr) : "nullptr";
        text += "        " + (argument.version <= version ? argument.name : missing) + ",\n";
    }
    return text + "        workspaceSize,\n        executor);\n}\n\n" + SecondPhase(def, version) + " {\n    return " +
           target + "(workspace, workspaceSize, executor, stream);\n}\n\n}\n";
}

}  // namespace

std::vector<uint32_t> InterfaceVersions(const ops::OpDef& def) {
    std::set<uint32_t> versions = {0};
    for (const ops::OpParamDef& input : def.inputs) {
        versions.insert(input.version);
    }
    for (const ops::OpAttrDef& attr : def.attrs) {
        versions.insert(attr.version);
    }
    return std::vector<uint32_t>(versions.begin(), versions.end());
}

std::string AclnnFile(const ops::OpDef& def, uint32_t version) {
    return "aclnn_" + SnakeCase(def.type) + (version != 0 ? "_v" + std::to_string(version) : "");
}

std::string AclnnHeader(const ops::OpDef& def, uint32_t version) {
    const std::string guard = Guard(AclnnFile(def, version) + ".h");
    return std::string(kNotice) + "#ifndef " + guard + "\n#define " + guard +
           "\n\n#include \"aclnn/acl_meta.h\"\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n"
           "// Checks the arguments and returns the workspace bytes and the executor for one call.\n"
           "__attribute__((visibility(\"default\")))\n" +
           FirstPhase(def, version) +
           ";\n\n// Starts the operator on the stream and uses the executor up.\n"
           "__attribute__((visibility(\"default\")))\n" +
           SecondPhase(def, version) + ";\n\n#ifdef __cplusplus\n}\n#endif\n\n#endif  // " + guard + "\n";
}

std::string AclnnSource(const ops::OpDef& def, uint32_t version) {
    return std::string(kNotice) + "#include \"" + AclnnFile(def, version) + ".h\"\n\n" +
           (version == Highest(def) ? CompleteSource(def, version) : ForwardingSource(def, version));
}

}  // namespace opbuild
