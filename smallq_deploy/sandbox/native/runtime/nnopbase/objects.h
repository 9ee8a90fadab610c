// SPDX-License-Identifier: Apache-2.0
// Bodies of the opaque types of acl_meta.h.
#ifndef SIM_RUNTIME_NNOPBASE_OBJECTS_H_
#define SIM_RUNTIME_NNOPBASE_OBJECTS_H_

#include <cstdint>
#include <vector>

#include "aclnn/acl_meta.h"

struct aclTensor {
    std::vector<int64_t> dims;
    std::vector<int64_t> strides;
    int64_t offset;
    aclDataType dataType;
    aclFormat format;
    void* data;

    int64_t ElementCount() const;
    // Whether the elements lie dense and row-major; dimensions of size 1 do not count.
    bool Dense() const;
    uint64_t Address() const { return reinterpret_cast<uint64_t>(data) + offset * aclDataTypeSize(dataType); }
    // Bytes from Address() to the end of the last element the strides reach.
    uint64_t Extent() const;
};

struct aclScalar {
    std::vector<uint8_t> bytes;
    aclDataType dataType;
};
struct aclIntArray {
    std::vector<int64_t> values;
};
struct aclFloatArray {
    std::vector<float> values;
};
struct aclBoolArray {
    std::vector<uint8_t> values;
};
struct aclTensorList {
    std::vector<const aclTensor*> tensors;
};

#endif  // SIM_RUNTIME_NNOPBASE_OBJECTS_H_
