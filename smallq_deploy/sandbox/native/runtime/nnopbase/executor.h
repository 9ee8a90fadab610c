// SPDX-License-Identifier: Apache-2.0
// One aclnn call between its two phases.
#ifndef SIM_RUNTIME_NNOPBASE_EXECUTOR_H_
#define SIM_RUNTIME_NNOPBASE_EXECUTOR_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "exe_graph/runtime/continuous_vector.h"
#include "exe_graph/runtime/storage_shape.h"
#include "exe_graph/runtime/tiling_context.h"
#include "kernel_index.h"
#include "objects.h"
#include "register/op_impl_registry.h"
#include "sim/nnopbase_api.h"

namespace nnop {

// A tensor argument as it was in the first phase; the caller may destroy its aclTensor after the second.
struct TensorArg {
    bool given = false;
    aclTensor tensor;
    // Byte offset in the workspace of the dense copy of a strided input; -1 when no copy is needed.
    int64_t copy_offset = -1;
};

struct AttrValue {
    int64_t integer = 0;
    float real = 0;
    bool boolean = false;
    std::string text;
    std::vector<int64_t> integers;
    std::vector<float> reals;
    std::vector<uint8_t> booleans;
    gert::ContinuousVector list;
    const void* pointer = nullptr;
};

// What tiling decided.
struct LaunchPlan {
    std::shared_ptr<const Kernel> kernel;
    std::vector<uint8_t> tiling_data;
    uint64_t tiling_key = 0;
    uint32_t block_dim = 0;
    uint64_t kernel_workspace = 0;
    uint64_t total_workspace = 0;
    uint64_t system_workspace = 0;
};

class Executor {
public:
    explicit Executor(const NnopbaseOpInfo* info);

    void SetTensor(bool input, const aclTensor* tensor, size_t index);
    // The slot to fill; the caller sets pointer.
    AttrValue* Attr(size_t index) { return &attrs_[index]; }
    void Remember(int code) { error_ = error_ == 0 ? code : error_; }

    // Checks, lookup, tiling, shape inference. Returns an aclnn code.
    int Prepare();
    const LaunchPlan& Plan() const { return plan_; }
    const NnopbaseOpInfo& Info() const { return *info_; }
    const std::vector<TensorArg>& Inputs() const { return inputs_; }
    const std::vector<TensorArg>& Outputs() const { return outputs_; }
    bool repeatable = false;

private:
    struct Slots;

    int CheckSupport(const char* unit) const;
    int CheckLayouts();
    int RunTiling(Slots* slots);
    int CheckShapes(Slots* slots) const;

    const NnopbaseOpInfo* info_;
    int error_ = 0;
    std::vector<TensorArg> inputs_;
    std::vector<TensorArg> outputs_;
    std::deque<AttrValue> attrs_;
    LaunchPlan plan_;
};

}  // namespace nnop

#endif  // SIM_RUNTIME_NNOPBASE_EXECUTOR_H_
