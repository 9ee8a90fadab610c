// SPDX-License-Identifier: Apache-2.0
// aclTensor and the other objects an aclnn caller creates. Invalid arguments give a null pointer and an error text.
#include "objects.h"

#include <string>

#include "exe_graph/runtime/shape.h"
#include "sim_runtime.h"

namespace {

constexpr uint64_t kMaxRank = gert::Shape::kMaxDimNum;

std::nullptr_t Refuse(const std::string& text) {
    SimRtError("EZ1001", text.c_str());
    return nullptr;
}

template <typename T>
int Destroy(const T* object, const char* function) {
    if (object == nullptr) {
        SimRtError("EZ1001", (std::string(function) + ": null pointer").c_str());
        return 161001;
    }
    delete object;
    return OK;
}

template <typename Array, typename T>
Array* CreateArray(const T* value, uint64_t size, const char* function) {
    if (value == nullptr && size != 0) {
        return Refuse(std::string(function) + ": null pointer");
    }
    Array* array = new Array();
    array->values.assign(value, value + size);
    return array;
}

}  // namespace

int64_t aclTensor::ElementCount() const {
    int64_t count = 1;
    for (const int64_t dim : dims) {
        count *= dim;
    }
    return count;
}

bool aclTensor::Dense() const {
    int64_t expected = 1;
    for (size_t i = dims.size(); i-- > 0;) {
        if (dims[i] != 1 && strides[i] != expected) {
            return false;
        }
        expected *= dims[i];
    }
    return true;
}

uint64_t aclTensor::Extent() const {
    if (ElementCount() == 0) {
        return 0;
    }
    int64_t last = 0;
    for (size_t i = 0; i < dims.size(); ++i) {
        last += (dims[i] - 1) * strides[i];
    }
    return static_cast<uint64_t>(last + 1) * aclDataTypeSize(dataType);
}

extern "C" {

aclTensor* aclCreateTensor(const int64_t* viewDims, uint64_t viewDimsNum, aclDataType dataType, const int64_t* stride,
                           int64_t offset, aclFormat format, const int64_t* storageDims, uint64_t storageDimsNum,
                           void* tensorData) {
    if ((viewDims == nullptr && viewDimsNum != 0) || (storageDims == nullptr && storageDimsNum != 0)) {
        return Refuse("aclCreateTensor: the dimension array is null");
    }
    if (viewDimsNum > kMaxRank || offset < 0 || aclDataTypeSize(dataType) == 0) {
        return Refuse("aclCreateTensor: more than 25 dimensions, a negative offset or an unsupported data type " +
                      std::to_string(dataType));
    }
    aclTensor* tensor = new aclTensor();
    tensor->dims.assign(viewDims, viewDims + viewDimsNum);
    tensor->strides.assign(viewDimsNum, 1);
    tensor->offset = offset;
    tensor->dataType = dataType;
    tensor->format = format;
    tensor->data = tensorData;
    bool valid = true;
    for (size_t i = viewDimsNum; i-- > 0;) {
        const int64_t dense = i + 1 < viewDimsNum ? tensor->strides[i + 1] * tensor->dims[i + 1] : 1;
        tensor->strides[i] = stride != nullptr ? stride[i] : dense;
        valid = valid && tensor->dims[i] >= 0 && tensor->strides[i] >= 0;
    }
    if (!valid) {
        delete tensor;
        return Refuse("aclCreateTensor: a dimension or stride is negative");
    }
    return tensor;
}

aclScalar* aclCreateScalar(void* value, aclDataType dataType) {
    const size_t size = aclDataTypeSize(dataType);
    if (value == nullptr || size == 0) {
        return Refuse("aclCreateScalar: null pointer or unsupported data type");
    }
    const uint8_t* bytes = static_cast<const uint8_t*>(value);
    return new aclScalar{std::vector<uint8_t>(bytes, bytes + size), dataType};
}

aclIntArray* aclCreateIntArray(const int64_t* value, uint64_t size) {
    return CreateArray<aclIntArray>(value, size, "aclCreateIntArray");
}
aclFloatArray* aclCreateFloatArray(const float* value, uint64_t size) {
    return CreateArray<aclFloatArray>(value, size, "aclCreateFloatArray");
}
aclBoolArray* aclCreateBoolArray(const bool* value, uint64_t size) {
    return CreateArray<aclBoolArray>(value, size, "aclCreateBoolArray");
}
aclTensorList* aclCreateTensorList(const aclTensor* const* value, uint64_t size) {
    if (value == nullptr && size != 0) {
        return Refuse("aclCreateTensorList: null pointer");
    }
    return new aclTensorList{std::vector<const aclTensor*>(value, value + size)};
}

aclnnStatus aclDestroyTensor(const aclTensor* tensor) { return Destroy(tensor, "aclDestroyTensor"); }
aclnnStatus aclDestroyScalar(const aclScalar* scalar) { return Destroy(scalar, "aclDestroyScalar"); }
aclnnStatus aclDestroyIntArray(const aclIntArray* array) { return Destroy(array, "aclDestroyIntArray"); }
aclnnStatus aclDestroyFloatArray(const aclFloatArray* array) { return Destroy(array, "aclDestroyFloatArray"); }
aclnnStatus aclDestroyBoolArray(const aclBoolArray* array) { return Destroy(array, "aclDestroyBoolArray"); }
aclnnStatus aclDestroyTensorList(const aclTensorList* array) {
    if (array != nullptr) {
        for (const aclTensor* tensor : array->tensors) {
            delete tensor;
        }
    }
    return Destroy(array, "aclDestroyTensorList");
}

aclnnStatus aclGetViewShape(const aclTensor* tensor, int64_t** viewDims, uint64_t* viewDimsNum) {
    if (tensor == nullptr || viewDims == nullptr || viewDimsNum == nullptr) {
        return 161001;
    }
    *viewDimsNum = tensor->dims.size();
    *viewDims = new int64_t[tensor->dims.size()];
    for (size_t i = 0; i < tensor->dims.size(); ++i) {
        (*viewDims)[i] = tensor->dims[i];
    }
    return OK;
}

aclnnStatus aclGetDataType(const aclTensor* tensor, aclDataType* dataType) {
    if (tensor == nullptr || dataType == nullptr) {
        return 161001;
    }
    *dataType = tensor->dataType;
    return OK;
}

aclnnStatus aclGetFormat(const aclTensor* tensor, aclFormat* format) {
    if (tensor == nullptr || format == nullptr) {
        return 161001;
    }
    *format = tensor->format;
    return OK;
}

aclnnStatus aclnnInit(const char*) { return OK; }
aclnnStatus aclnnFinalize() { return OK; }

}  // extern "C"
