// SPDX-License-Identifier: Apache-2.0
// What generated aclnn_<op>.cpp files call in libnnopbase. Internal to the simulated toolkit.
#ifndef SIM_SIM_NNOPBASE_API_H_
#define SIM_SIM_NNOPBASE_API_H_

#include <cstddef>
#include <cstdint>

#include "acl/acl_rt.h"
#include "aclnn/acl_meta.h"

extern "C" {

typedef struct NnopbaseTensorDesc {
    aclDataType dataType;
    aclFormat format;
} NnopbaseTensorDesc;

// One combination of data types and formats the operator supports.
typedef struct NnopbaseSupportRow {
    const NnopbaseTensorDesc* inputs;
    const NnopbaseTensorDesc* outputs;
} NnopbaseSupportRow;

// The combinations of one compute unit ("ascend910b").
typedef struct NnopbaseUnitSupport {
    const char* unit;
    const NnopbaseSupportRow* rows;
    size_t rowNum;
} NnopbaseUnitSupport;

// copyMode: 0 the tensor must be dense, 1 a strided tensor is copied first (AutoContiguous), 2 strides are ignored.
typedef struct NnopbaseParam {
    const char* name;
    bool required;
    int copyMode;
} NnopbaseParam;

typedef struct NnopbaseOpInfo {
    const char* opType;
    const NnopbaseParam* inputs;
    size_t inputNum;
    const NnopbaseParam* outputs;
    size_t outputNum;
    size_t attrNum;
    const NnopbaseUnitSupport* units;
    size_t unitNum;
} NnopbaseOpInfo;

// A fresh executor for one call. The Add functions keep the first error, which NnopbaseRunForWorkspace returns.
ACL_FUNC_VISIBILITY void* NnopbaseGetExecutor(const NnopbaseOpInfo* info);
ACL_FUNC_VISIBILITY void NnopbaseAddInput(void* executor, const aclTensor* tensor, size_t index);
ACL_FUNC_VISIBILITY void NnopbaseAddOutput(void* executor, const aclTensor* tensor, size_t index);
ACL_FUNC_VISIBILITY void NnopbaseAddIntAttr(void* executor, int64_t value, size_t index);
ACL_FUNC_VISIBILITY void NnopbaseAddFloatAttr(void* executor, double value, size_t index);
ACL_FUNC_VISIBILITY void NnopbaseAddBoolAttr(void* executor, bool value, size_t index);
ACL_FUNC_VISIBILITY void NnopbaseAddStringAttr(void* executor, const char* value, size_t index);
ACL_FUNC_VISIBILITY void NnopbaseAddIntArrayAttr(void* executor, const aclIntArray* array, size_t index);
ACL_FUNC_VISIBILITY void NnopbaseAddFloatArrayAttr(void* executor, const aclFloatArray* array, size_t index);
ACL_FUNC_VISIBILITY void NnopbaseAddBoolArrayAttr(void* executor, const aclBoolArray* array, size_t index);

// First phase: checks, kernel lookup, tiling. On success *out owns the executor, on failure it is gone.
ACL_FUNC_VISIBILITY aclnnStatus NnopbaseRunForWorkspace(void* executor, uint64_t* workspaceSize, aclOpExecutor** out);
// Second phase: puts the launch on the stream and uses the executor up.
ACL_FUNC_VISIBILITY aclnnStatus NnopbaseRunWithWorkspace(aclOpExecutor* executor, aclrtStream stream, void* workspace,
                                                         uint64_t workspaceSize);
}

#endif  // SIM_SIM_NNOPBASE_API_H_
