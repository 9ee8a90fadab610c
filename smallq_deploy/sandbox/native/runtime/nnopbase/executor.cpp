// SPDX-License-Identifier: Apache-2.0
// First phase of an aclnn call, in CANN's order: arguments, support list, kernel, tiling. Shape inference runs last:
// CANN leaves it out on this path, the simulated toolkit uses it to check the output the caller allocated.
#include "executor.h"

#include "codes.h"
#include "environment.h"
#include "graph/utils/type_utils.h"
#include "register/op_impl_registry.h"
#include "sim_runtime.h"
#include "tiling/platform/platform_ascendc.h"

namespace nnop {
namespace {

constexpr size_t kTilingCapacity = 64 * 1024;
constexpr uint64_t kCopyAlign = 512;

std::string ShapeText(const gert::Shape& shape) {
    std::string text;
    for (size_t i = 0; i < shape.GetDimNum(); ++i) {
        text += (i == 0 ? "" : ", ") + std::to_string(shape.GetDim(i));
    }
    return "[" + text + "]";
}

const char* TypeName(aclDataType type) { return ge::sim::DataTypeName(static_cast<ge::DataType>(type)); }

bool RowFits(const std::vector<TensorArg>& args, const NnopbaseTensorDesc* row, bool formats) {
    for (size_t i = 0; i < args.size(); ++i) {
        const aclTensor& tensor = args[i].tensor;
        if (args[i].given && (tensor.dataType != row[i].dataType || (formats && tensor.format != row[i].format))) {
            return false;
        }
    }
    return true;
}

std::string Given(const NnopbaseParam* params, const std::vector<TensorArg>& args) {
    std::string text;
    for (size_t i = 0; i < args.size(); ++i) {
        const aclTensor& tensor = args[i].tensor;
        if (args[i].given) {
            text += std::string(text.empty() ? "" : ", ") + params[i].name + " " + TypeName(tensor.dataType) + " " +
                    ge::sim::FormatName(static_cast<ge::Format>(tensor.format));
        }
    }
    return text;
}

std::string Supported(const NnopbaseOpInfo& info, const NnopbaseSupportRow& row) {
    std::string text;
    for (size_t i = 0; i < info.inputNum; ++i) {
        text += (i == 0 ? "" : ", ") + std::string(info.inputs[i].name) + " " + TypeName(row.inputs[i].dataType);
    }
    for (size_t i = 0; i < info.outputNum; ++i) {
        text += std::string(", ") + info.outputs[i].name + " " + TypeName(row.outputs[i].dataType);
    }
    return text;
}

}  // namespace

// Shapes and descriptions in the form the operator's functions read.
struct Executor::Slots {
    std::deque<gert::StorageShape> shapes;
    std::deque<gert::CompileTimeTensorDesc> descs;
    std::vector<gert::SimTensorSlot> inputs;
    std::vector<gert::SimTensorSlot> outputs;
    std::vector<const void*> attrs;

    void Add(const TensorArg& arg, std::vector<gert::SimTensorSlot>* slots) {
        if (!arg.given) {
            slots->push_back({nullptr, nullptr});
            return;
        }
        shapes.emplace_back();
        descs.emplace_back();
        for (const int64_t dim : arg.tensor.dims) {
            shapes.back().MutableOriginShape().AppendDim(dim);
            shapes.back().MutableStorageShape().AppendDim(dim);
        }
        descs.back().SetDataType(static_cast<ge::DataType>(arg.tensor.dataType));
        descs.back().SetOriginFormat(static_cast<ge::Format>(arg.tensor.format));
        descs.back().SetStorageFormat(static_cast<ge::Format>(arg.tensor.format));
        slots->push_back({&descs.back(), &shapes.back()});
    }

    void Fill(const char* op_type, gert::ExtendedKernelContext* context) {
        context->SimSetNode(op_type, op_type, gert::RuntimeAttrs(attrs.data(), attrs.size()));
        context->SimSetTensors(inputs.data(), inputs.size(), outputs.data(), outputs.size());
    }
};

Executor::Executor(const NnopbaseOpInfo* info)
    : info_(info), inputs_(info->inputNum), outputs_(info->outputNum), attrs_(info->attrNum) {}

void Executor::SetTensor(bool input, const aclTensor* tensor, size_t index) {
    TensorArg& arg = input ? inputs_[index] : outputs_[index];
    const NnopbaseParam& param = input ? info_->inputs[index] : info_->outputs[index];
    arg.given = tensor != nullptr;
    if (arg.given) {
        arg.tensor = *tensor;
    } else if (param.required) {
        Remember(Fail(kParamNullptr, std::string(info_->opType) + ": " + param.name + " must not be null"));
    }
}

int Executor::CheckSupport(const char* unit) const {
    const NnopbaseUnitSupport* support = nullptr;
    std::string units;
    for (size_t i = 0; i < info_->unitNum; ++i) {
        units += std::string(units.empty() ? "" : ", ") + info_->units[i].unit;
        support = std::string(unit) == info_->units[i].unit ? &info_->units[i] : support;
    }
    if (support == nullptr) {
        return Fail(kFindKernelError,
                    std::string(info_->opType) + " was defined for " + units + " (AddConfig), this device is " + unit);
    }
    for (size_t row = 0; row < support->rowNum; ++row) {
        if (RowFits(inputs_, support->rows[row].inputs, true) && RowFits(outputs_, support->rows[row].outputs, true)) {
            return kOk;
        }
    }
    std::string text = std::string(info_->opType) +
                       ": data types or formats are not supported: " + Given(info_->inputs, inputs_) + ", " +
                       Given(info_->outputs, outputs_) + ". Supported:";
    for (size_t row = 0; row < support->rowNum; ++row) {
        text += "\n  " + Supported(*info_, support->rows[row]);
    }
    return Fail(kParamInvalid, text);
}

// Places dense copies of strided inputs; refuses strided tensors the operator does not declare AutoContiguous.
int Executor::CheckLayouts() {
    uint64_t copies = 0;
    for (size_t i = 0; i < inputs_.size(); ++i) {
        TensorArg& arg = inputs_[i];
        const int mode = info_->inputs[i].copyMode;
        if (!arg.given || mode == 2 || arg.tensor.Dense()) {
            continue;
        }
        if (mode == 0) {
            return Fail(kParamInvalid, std::string(info_->opType) + ": " + info_->inputs[i].name +
                                           " is not contiguous and the operator does not declare AutoContiguous");
        }
        const uint64_t bytes = static_cast<uint64_t>(arg.tensor.ElementCount()) * aclDataTypeSize(arg.tensor.dataType);
        arg.copy_offset = static_cast<int64_t>(copies);
        copies += (bytes + kCopyAlign - 1) / kCopyAlign * kCopyAlign;
    }
    for (size_t i = 0; i < outputs_.size(); ++i) {
        if (outputs_[i].given && !outputs_[i].tensor.Dense()) {
            return Fail(kParamInvalid,
                        std::string(info_->opType) + ": output " + info_->outputs[i].name + " must be contiguous");
        }
    }
    plan_.total_workspace = copies;
    return kOk;
}

int Executor::RunTiling(Slots* slots) {
    int code = kOk;
    Environment* environment = Environment::Get(&code);
    const FoundImpl found = environment->libraries.Tiling(info_->opType);
    const std::string op = info_->opType;
    if (found.impl == nullptr) {
        return Fail(kTilingError,
                    "no libcust_opmaster_rt2.0.so has a tiling function of " + op + environment->libraries.Problems());
    }
    const void* compile_info = nullptr;
    if (!environment->CompileInfo(found.impl, &compile_info)) {
        return Fail(kTilingError, "the tiling-parse function of " + op + " failed (" + found.library + ")");
    }
    plan_.tiling_data.assign(kTilingCapacity, 0);
    gert::TilingContext context;
    slots->Fill(info_->opType, &context);
    context.SimSetEnvironment(compile_info, &environment->platform,
                              gert::TilingData(plan_.tiling_data.data(), plan_.tiling_data.size()));
    if (found.impl->tiling(&context) != ge::GRAPH_SUCCESS) {
        return Fail(kTilingError, "the tiling function of " + op + " refused the call (" + found.library + ")");
    }
    const size_t size = context.GetRawTilingData()->GetDataSize();
    if (context.GetBlockDim() == 0 || size > kTilingCapacity) {
        return Fail(kTilingError, "the tiling function of " + op + " set block dim " +
                                      std::to_string(context.GetBlockDim()) + " and " + std::to_string(size) +
                                      " bytes of tiling data");
    }
    plan_.tiling_data.resize(size);
    plan_.tiling_key = context.GetTilingKey();
    plan_.block_dim = context.GetBlockDim();
    const size_t count = context.GetWorkspaceNum();
    const size_t* sizes = context.GetWorkspaceSizes(count);
    for (size_t i = 0; i < count; ++i) {
        plan_.kernel_workspace += sizes[i];
    }
    plan_.kernel_workspace = (plan_.kernel_workspace + kCopyAlign - 1) / kCopyAlign * kCopyAlign;
    plan_.total_workspace += plan_.kernel_workspace;
    plan_.system_workspace = platform_ascendc::PlatformAscendC(&environment->platform).GetLibApiWorkSpaceSize();
    return kOk;
}

int Executor::CheckShapes(Slots* slots) const {
    int code = kOk;
    const FoundImpl found = Environment::Get(&code)->libraries.InferShape(info_->opType);
    if (found.impl == nullptr) {
        LogInfo(std::string("no shape inference for ") + info_->opType);
        return kOk;
    }
    std::vector<gert::Shape> given;
    for (gert::SimTensorSlot& slot : slots->outputs) {
        given.push_back(slot.shape != nullptr ? slot.shape->GetOriginShape() : gert::Shape());
    }
    gert::InferShapeContext context;
    slots->Fill(info_->opType, &context);
    if (found.impl->infer_shape(&context) != ge::GRAPH_SUCCESS) {
        return Fail(kInferShapeError, std::string("shape inference of ") + info_->opType + " failed");
    }
    for (size_t i = 0; i < given.size(); ++i) {
        if (slots->outputs[i].shape != nullptr && slots->outputs[i].shape->GetOriginShape() != given[i]) {
            return Fail(kParamInvalid, std::string(info_->opType) + ": " + info_->outputs[i].name + " has shape " +
                                           ShapeText(given[i]) + ", the inputs give " +
                                           ShapeText(slots->outputs[i].shape->GetOriginShape()));
        }
    }
    if (found.impl->infer_data_type == nullptr) {
        return kOk;
    }
    std::vector<ge::DataType> types(outputs_.size(), ge::DT_UNDEFINED);
    gert::InferDataTypeContext type_context;
    slots->Fill(info_->opType, &type_context);
    type_context.SimSetOutputTypes(types.data());
    if (found.impl->infer_data_type(&type_context) != ge::GRAPH_SUCCESS) {
        return Fail(kInferShapeError, std::string("data type inference of ") + info_->opType + " failed");
    }
    for (size_t i = 0; i < types.size(); ++i) {
        if (outputs_[i].given && types[i] != static_cast<ge::DataType>(outputs_[i].tensor.dataType)) {
            return Fail(kParamInvalid, std::string(info_->opType) + ": " + info_->outputs[i].name + " is " +
                                           TypeName(outputs_[i].tensor.dataType) + ", the inputs give " +
                                           ge::sim::DataTypeName(types[i]));
        }
    }
    return kOk;
}

int Executor::Prepare() {
    if (error_ != kOk) {
        return error_;
    }
    int code = kOk;
    Environment* environment = Environment::Get(&code);
    if (environment == nullptr) {
        return code;
    }
    code = CheckSupport(environment->unit.c_str());
    if (code == kOk) {
        code = CheckLayouts();
    }
    if (code != kOk) {
        return code;
    }
    std::vector<KeyPart> key;
    Slots slots;
    for (const TensorArg& arg : inputs_) {
        key.push_back({!arg.given, arg.given ? arg.tensor.dataType : 0, arg.given ? arg.tensor.format : 0});
        slots.Add(arg, &slots.inputs);
    }
    for (const TensorArg& arg : outputs_) {
        key.push_back({!arg.given, arg.given ? arg.tensor.dataType : 0, arg.given ? arg.tensor.format : 0});
        slots.Add(arg, &slots.outputs);
    }
    for (const AttrValue& attr : attrs_) {
        slots.attrs.push_back(attr.pointer);
    }
    code = environment->kernels.Find(info_->opType, key, &plan_.kernel);
    if (code == kOk) {
        code = RunTiling(&slots);
    }
    return code == kOk ? CheckShapes(&slots) : code;
}

}  // namespace nnop
