// SPDX-License-Identifier: Apache-2.0
// op_build LIBRARY OUTDIR                  aclnn sources, prototypes, ops-info files from operator definitions
// op_build --tiling-header LIBRARY OUTDIR  kernel_tiling.h from registered tiling classes
#include "op_build.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>

#include "sim/op_library.h"

namespace opbuild {
namespace {

struct TypeName {
    ge::DataType type;
    const char* text;
};

const TypeName kTypes[] = {{ge::DT_FLOAT, "float32"}, {ge::DT_FLOAT16, "float16"}, {ge::DT_BF16, "bfloat16"},
                           {ge::DT_INT8, "int8"},     {ge::DT_UINT8, "uint8"},     {ge::DT_INT16, "int16"},
                           {ge::DT_UINT16, "uint16"}, {ge::DT_INT32, "int32"},     {ge::DT_UINT32, "uint32"},
                           {ge::DT_INT64, "int64"},   {ge::DT_UINT64, "uint64"},   {ge::DT_DOUBLE, "double"},
                           {ge::DT_BOOL, "bool"}};

void CheckParams(const std::string& op, const char* role, const std::deque<ops::OpParamDef>& params, size_t* rows) {
    std::set<std::string> names;
    for (const ops::OpParamDef& param : params) {
        const std::string where = op + ": " + role + " " + param.name;
        if (!names.insert(param.name).second) {
            throw Error(where + " is defined twice");
        }
        if (param.param_type != ops::REQUIRED && param.param_type != ops::OPTIONAL) {
            throw Error(where + ": ParamType must be REQUIRED or OPTIONAL, the simulated toolkit has no others");
        }
        if (param.data_types.empty() || param.data_types.size() != param.formats.size()) {
            throw Error(where + ": DataType and Format need the same number of entries, at least one");
        }
        if (!param.unknown_shape_formats.empty() && param.unknown_shape_formats.size() != param.formats.size()) {
            throw Error(where + ": UnknownShapeFormat needs as many entries as Format");
        }
        if (*rows != 0 && *rows != param.data_types.size()) {
            throw Error(where + ": every input and output needs the same number of data types");
        }
        *rows = param.data_types.size();
    }
}

// Only what a caller may leave out can be missing from an older version of the interface.
void CheckVersions(const ops::OpDef& def) {
    for (const ops::OpParamDef& input : def.inputs) {
        if (input.version != 0 && !IsOptional(input)) {
            throw Error(def.type + ": input " + input.name + " has a Version: only an OPTIONAL input can have one");
        }
    }
    for (const ops::OpParamDef& output : def.outputs) {
        if (output.version != 0) {
            throw Error(def.type + ": output " + output.name + " has a Version: outputs cannot have one");
        }
    }
    for (const ops::OpAttrDef& attr : def.attrs) {
        if (attr.version != 0 && (attr.attr_type != ops::OPTIONAL || !attr.has_default)) {
            throw Error(def.type + ": attribute " + attr.name +
                        " has a Version: only an OPTIONAL attribute with a default value can have one");
        }
    }
}

void Generate(const std::string& library, const std::string& directory) {
    const char* const expected[][2] = {{"OPS_ACLNN_GEN", "1"}, {"OPS_PROTO_SEPARATE", "1"}};
    for (const auto& item : expected) {
        const char* value = std::getenv(item[0]);
        if (value == nullptr || std::strcmp(value, item[1]) != 0) {
            throw Error(std::string("set ") + item[0] + "=" + item[1] + ": other modes are not supported");
        }
    }
    void* handle = OpenLibrary(library);
    const auto table = reinterpret_cast<const void* (*)()>(dlsym(handle, "SimOpDefTable"));
    const auto string_abi = reinterpret_cast<int (*)()>(dlsym(handle, "SimOpDefStringAbi"));
    if (table == nullptr || string_abi == nullptr) {
        std::printf("[INFO] %s defines no operator\n", library.c_str());
        return;
    }
    if (string_abi() != _GLIBCXX_USE_CXX11_ABI) {
        throw Error(library + " must be compiled with -D_GLIBCXX_USE_CXX11_ABI=0");
    }
    const auto& defs = *static_cast<const std::deque<ops::OpDef>*>(table());
    std::set<std::string> units;
    for (const ops::OpDef& def : defs) {
        CheckDefinition(def);
        const std::string snake = SnakeCase(def.type);
        for (const uint32_t version : InterfaceVersions(def)) {
            const std::string file = directory + "/" + AclnnFile(def, version);
            WriteFile(file + ".h", AclnnHeader(def, version));
            WriteFile(file + ".cpp", AclnnSource(def, version));
        }
        WriteFile(directory + "/" + snake + "_proto.h", ProtoHeader(def));
        for (const auto& config : def.aicore.configs) {
            units.insert(config.first);
        }
    }
    for (const std::string& unit : units) {
        WriteFile(directory + "/aic-" + unit + "-ops-info.json", OpsInfo(defs, unit));
    }
}

}  // namespace

Params Resolve(const std::deque<ops::OpParamDef>& base, const std::deque<ops::OpParamDef>& replaced) {
    Params params(base.begin(), base.end());
    for (const ops::OpParamDef& replacement : replaced) {
        for (ops::OpParamDef& param : params) {
            if (param.name == replacement.name) {
                param = replacement;
            }
        }
    }
    return params;
}

std::string SnakeCase(const std::string& name) {
    const auto upper = [&](size_t i) { return std::isupper(static_cast<unsigned char>(name[i])) != 0; };
    const auto lower = [&](size_t i) {
        return i < name.size() && std::islower(static_cast<unsigned char>(name[i])) != 0;
    };
    std::string snake;
    for (size_t i = 0; i < name.size(); ++i) {
        const bool boundary = i > 0 && upper(i) && name[i - 1] != '_' && (!upper(i - 1) || lower(i + 1));
        snake += boundary ? "_" : "";
        snake += static_cast<char>(std::tolower(static_cast<unsigned char>(name[i])));
    }
    return snake;
}

std::string LowerCamel(const std::string& name) {
    std::string camel;
    bool raise = false;
    for (const char c : name) {
        if (c == '_') {
            raise = !camel.empty();
            continue;
        }
        const unsigned char byte = static_cast<unsigned char>(c);
        camel += static_cast<char>(raise ? std::toupper(byte) : camel.empty() ? std::tolower(byte) : byte);
        raise = false;
    }
    return camel;
}

std::string TypeText(ge::DataType type) {
    for (const TypeName& known : kTypes) {
        if (known.type == type) {
            return known.text;
        }
    }
    throw Error("data type number " + std::to_string(type) + " is not supported by the simulated toolkit");
}

std::string FormatText(ge::Format format) {
    switch (format) {
        case ge::FORMAT_ND:
            return "ND";
        case ge::FORMAT_NCHW:
            return "NCHW";
        case ge::FORMAT_NHWC:
            return "NHWC";
        case ge::FORMAT_NCL:
            return "NCL";
        default:
            throw Error("format number " + std::to_string(format) + " is not supported by the simulated toolkit");
    }
}

std::string JsonText(const std::string& text) {
    std::string quoted = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            quoted += '\\';
        }
        quoted += c;
    }
    return quoted + "\"";
}

void CheckDefinition(const ops::OpDef& def) {
    size_t rows = 0;
    if (def.inputs.empty() || def.outputs.empty()) {
        throw Error(def.type + ": an operator needs at least one input and one output");
    }
    CheckParams(def.type, "input", def.inputs, &rows);
    CheckParams(def.type, "output", def.outputs, &rows);
    for (const ops::OpParamDef& output : def.outputs) {
        for (const ops::OpParamDef& input : def.inputs) {
            if (input.name == output.name) {
                throw Error(def.type + ": " + input.name + " is input and output; the simulated toolkit has no Ref");
            }
        }
    }
    for (const ops::OpAttrDef& attr : def.attrs) {
        if (attr.value_type == ops::SimAttrType::kUnset) {
            throw Error(def.type + ": attribute " + attr.name + " has no type");
        }
    }
    CheckVersions(def);
    for (const auto& config : def.aicore.configs) {
        size_t config_rows = 0;
        const Params inputs = Resolve(def.inputs, config.second.inputs);
        const Params outputs = Resolve(def.outputs, config.second.outputs);
        CheckParams(def.type, "input", std::deque<ops::OpParamDef>(inputs.begin(), inputs.end()), &config_rows);
        CheckParams(def.type, "output", std::deque<ops::OpParamDef>(outputs.begin(), outputs.end()), &config_rows);
    }
}

void WriteFile(const std::string& path, const std::string& content) {
    std::ofstream file(path);
    file << content;
    file.close();
    if (!file) {
        throw Error("cannot write " + path);
    }
}

void* OpenLibrary(const std::string& path) {
    // A name without '/' would make dlopen search the library path.
    const std::string name = path.find('/') == std::string::npos ? "./" + path : path;
    void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        throw Error(std::string("cannot open library: ") + dlerror());
    }
    const auto abi = reinterpret_cast<int (*)()>(dlsym(handle, "SimOpLibraryAbi"));
    if (abi != nullptr && abi() != SIM_OP_LIBRARY_ABI) {
        throw Error(path + " was built with the headers of another simulated toolkit");
    }
    return handle;
}

}  // namespace opbuild

int main(int argc, char** argv) {
    const bool tiling = argc == 4 && std::strcmp(argv[1], "--tiling-header") == 0;
    if (argc != 3 && !tiling) {
        std::fprintf(stderr, "usage: op_build LIBRARY OUTDIR\n       op_build --tiling-header LIBRARY OUTDIR\n");
        return 1;
    }
    try {
        const std::string directory = argv[argc - 1];
        mkdir(directory.c_str(), 0777);
        if (tiling) {
            opbuild::WriteTilingHeaders(argv[2], directory);
        } else {
            opbuild::Generate(argv[1], directory);
        }
    } catch (const opbuild::Error& error) {
        std::fprintf(stderr, "[ERROR] op_build: %s\n", error.what());
        return 1;
    }
    return 0;
}
