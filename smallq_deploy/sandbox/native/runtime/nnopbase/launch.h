// SPDX-License-Identifier: Apache-2.0
// Second phase of an aclnn call: everything the stream's worker needs to run the kernel.
#ifndef SIM_RUNTIME_NNOPBASE_LAUNCH_H_
#define SIM_RUNTIME_NNOPBASE_LAUNCH_H_

#include <cstdint>
#include <string>
#include <vector>

#include "executor.h"

namespace nnop {

class Launch {
public:
    Launch(const Executor& executor, int32_t device, void* workspace);

    // Runs on the worker thread. Returns an acl error code and its text.
    int Run(std::string* text) const;

private:
    int CheckTensor(const char* name, const TensorArg& arg, std::string* text) const;
    int CopyDense(const TensorArg& arg, const std::vector<SimGmRegion>& regions) const;
    uint64_t Argument(const TensorArg& arg) const;

    std::string op_type_;
    LaunchPlan plan_;
    std::vector<TensorArg> inputs_;
    std::vector<TensorArg> outputs_;
    std::vector<std::string> names_;
    int32_t device_;
    uint64_t workspace_;
};

}  // namespace nnop

#endif  // SIM_RUNTIME_NNOPBASE_LAUNCH_H_
