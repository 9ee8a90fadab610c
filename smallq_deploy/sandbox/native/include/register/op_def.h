// SPDX-License-Identifier: Apache-2.0
// Operator definitions: class X : public OpDef with Input(), Output(), Attr(), AICore().AddConfig().
//
// The classes only collect data; op_build (compiled from the same header and string ABI) reads their public fields.
#ifndef SIM_REGISTER_OP_DEF_H_
#define SIM_REGISTER_OP_DEF_H_

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "graph/types.h"

namespace ops {

enum Option { IGNORE = 0, OPTIONAL = 1, REQUIRED = 2, DYNAMIC = 3, VIRTUAL = 4 };

enum class SimAttrType { kUnset, kBool, kFloat, kInt, kString, kListBool, kListFloat, kListInt };

class OpParamDef {
public:
    explicit OpParamDef(const char* param_name) : name(param_name) {}

    OpParamDef& ParamType(Option type) {
        param_type = type;
        return *this;
    }
    OpParamDef& DataType(std::vector<ge::DataType> types) {
        data_types = std::move(types);
        return *this;
    }
    OpParamDef& Format(std::vector<ge::Format> values) {
        formats = std::move(values);
        return *this;
    }
    OpParamDef& UnknownShapeFormat(std::vector<ge::Format> values) {
        unknown_shape_formats = std::move(values);
        return *this;
    }
    OpParamDef& AutoContiguous() {
        auto_contiguous = true;
        return *this;
    }
    // The aclnn interface version the parameter came with; 0 is the one without a number. asc-devkit,
    // OpParamDef::Version.
    OpParamDef& Version(uint32_t number) {
        version = number;
        return *this;
    }
    OpParamDef& IgnoreContiguous() {
        ignore_contiguous = true;
        return *this;
    }

    std::string name;
    Option param_type = IGNORE;
    std::vector<ge::DataType> data_types;
    std::vector<ge::Format> formats;
    std::vector<ge::Format> unknown_shape_formats;
    uint32_t version = 0;
    bool auto_contiguous = false;
    bool ignore_contiguous = false;
};

class OpAttrDef {
public:
    explicit OpAttrDef(const char* attr_name) : name(attr_name) {}

    OpAttrDef& AttrType(Option option) {
        attr_type = option;
        return *this;
    }
    // As OpParamDef::Version.
    OpAttrDef& Version(uint32_t number) {
        version = number;
        return *this;
    }
    OpAttrDef& Bool() { return Declare(SimAttrType::kBool); }
    OpAttrDef& Bool(bool value) { return Set(SimAttrType::kBool, value ? "true" : "false"); }
    OpAttrDef& Float() { return Declare(SimAttrType::kFloat); }
    OpAttrDef& Float(float value) { return Set(SimAttrType::kFloat, std::to_string(value)); }
    OpAttrDef& Int() { return Declare(SimAttrType::kInt); }
    OpAttrDef& Int(int64_t value) { return Set(SimAttrType::kInt, std::to_string(value)); }
    OpAttrDef& String() { return Declare(SimAttrType::kString); }
    OpAttrDef& String(const char* value) { return Set(SimAttrType::kString, value); }
    OpAttrDef& ListBool() { return Declare(SimAttrType::kListBool); }
    OpAttrDef& ListBool(const std::vector<bool>& values) {
        std::string text;
        for (size_t i = 0; i < values.size(); ++i) {
            text += (i == 0 ? "" : ",") + std::string(values[i] ? "true" : "false");
        }
        return Set(SimAttrType::kListBool, "[" + text + "]");
    }
    OpAttrDef& ListFloat() { return Declare(SimAttrType::kListFloat); }
    OpAttrDef& ListFloat(const std::vector<float>& values) { return Set(SimAttrType::kListFloat, Join(values)); }
    OpAttrDef& ListInt() { return Declare(SimAttrType::kListInt); }
    OpAttrDef& ListInt(const std::vector<int64_t>& values) { return Set(SimAttrType::kListInt, Join(values)); }

    std::string name;
    Option attr_type = REQUIRED;
    SimAttrType value_type = SimAttrType::kUnset;
    std::string default_value;
    bool has_default = false;
    uint32_t version = 0;

private:
    OpAttrDef& Declare(SimAttrType type) {
        value_type = type;
        return *this;
    }
    OpAttrDef& Set(SimAttrType type, const std::string& value) {
        default_value = value;
        has_default = true;
        return Declare(type);
    }
    template <typename T>
    static std::string Join(const std::vector<T>& values) {
        std::string text;
        for (size_t i = 0; i < values.size(); ++i) {
            text += (i == 0 ? "" : ",") + std::to_string(values[i]);
        }
        return "[" + text + "]";
    }
};

// Per compute unit settings. Inputs and outputs given here replace those of the same name for that unit.
class OpAICoreConfig {
public:
    OpParamDef& Input(const char* name) { return Add(inputs, name); }
    OpParamDef& Output(const char* name) { return Add(outputs, name); }
    OpAICoreConfig& DynamicCompileStaticFlag(bool flag) { return Flag("dynamicCompileStatic.flag", flag); }
    OpAICoreConfig& DynamicFormatFlag(bool flag) { return Flag("dynamicFormat.flag", flag); }
    OpAICoreConfig& DynamicRankSupportFlag(bool flag) { return Flag("dynamicRankSupport.flag", flag); }
    OpAICoreConfig& DynamicShapeSupportFlag(bool flag) { return Flag("dynamicShapeSupport.flag", flag); }
    OpAICoreConfig& NeedCheckSupportFlag(bool flag) { return Flag("needCheckSupport.flag", flag); }
    OpAICoreConfig& PrecisionReduceFlag(bool flag) { return Flag("precision_reduce.flag", flag); }
    OpAICoreConfig& ExtendCfgInfo(const char* key, const char* value) {
        for (std::pair<std::string, std::string>& item : settings) {
            if (item.first == key) {
                item.second = value;
                return *this;
            }
        }
        settings.push_back(std::make_pair(std::string(key), std::string(value)));
        return *this;
    }

    std::deque<OpParamDef> inputs;
    std::deque<OpParamDef> outputs;
    std::vector<std::pair<std::string, std::string>> settings;

private:
    OpAICoreConfig& Flag(const char* key, bool flag) { return ExtendCfgInfo(key, flag ? "true" : "false"); }
    static OpParamDef& Add(std::deque<OpParamDef>& list, const char* name) {
        list.push_back(OpParamDef(name));
        return list.back();
    }
};

class OpAICoreDef {
public:
    OpAICoreDef& AddConfig(const char* soc) {
        OpAICoreConfig defaults;
        defaults.DynamicCompileStaticFlag(true)
            .DynamicFormatFlag(true)
            .DynamicRankSupportFlag(true)
            .DynamicShapeSupportFlag(true);
        return AddConfig(soc, defaults);
    }
    OpAICoreDef& AddConfig(const char* soc, const OpAICoreConfig& config) {
        configs.push_back(std::make_pair(std::string(soc), config));
        return *this;
    }

    std::vector<std::pair<std::string, OpAICoreConfig>> configs;
};

class OpDef {
public:
    explicit OpDef(const char* op_type) : type(op_type) {}

    // References stay valid while more parameters are added.
    OpParamDef& Input(const char* name) { return Add(inputs, name); }
    OpParamDef& Output(const char* name) { return Add(outputs, name); }
    OpAttrDef& Attr(const char* name) {
        attrs.push_back(OpAttrDef(name));
        return attrs.back();
    }
    OpAICoreDef& AICore() { return aicore; }

    std::string type;
    std::deque<OpParamDef> inputs;
    std::deque<OpParamDef> outputs;
    std::deque<OpAttrDef> attrs;
    OpAICoreDef aicore;

private:
    static OpParamDef& Add(std::deque<OpParamDef>& list, const char* name) {
        list.push_back(OpParamDef(name));
        return list.back();
    }
};

}  // namespace ops

#endif  // SIM_REGISTER_OP_DEF_H_
