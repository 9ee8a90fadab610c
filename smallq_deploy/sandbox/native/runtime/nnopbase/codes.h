// SPDX-License-Identifier: Apache-2.0
// aclnn error codes; values as in CANN's opdev/op_errno.h.
#ifndef SIM_RUNTIME_NNOPBASE_CODES_H_
#define SIM_RUNTIME_NNOPBASE_CODES_H_

#include <string>

namespace nnop {

constexpr int kOk = 0;
constexpr int kParamNullptr = 161001;
constexpr int kParamInvalid = 161002;
constexpr int kInferShapeError = 561001;
constexpr int kTilingError = 561002;
constexpr int kFindKernelError = 561003;
constexpr int kInnerNullptr = 561103;
constexpr int kOppPathNotFound = 561107;
constexpr int kLoadJsonFailed = 561108;
constexpr int kOpFileInvalid = 561113;

// Records the text for aclGetRecentErrMsg and returns code.
int Fail(int code, const std::string& text);
void LogInfo(const std::string& text);
void LogWarning(const std::string& text);

}  // namespace nnop

#endif  // SIM_RUNTIME_NNOPBASE_CODES_H_
