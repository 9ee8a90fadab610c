// SPDX-License-Identifier: Apache-2.0
// UNPROVEN: written after the public interfaces of PyTorch and torch_npu, never compiled or run: no NPU was there.
//
// torch.ops.smallq.attention(q, k, v, scale=0., causal=False) -> Tensor, for NPU tensors [heads, length, head size] in
// float16. k and v may have fewer heads than q, when their number divides that of q. scale 0 stands for
// 1 / sqrt(head size). Needs an operator whose interface has version 2 (aclnnSmallqFlashAttentionV2).
#include <ATen/ATen.h>
#include <torch/library.h>
#include <torch_npu/csrc/core/npu/NPUStream.h>
#include <torch_npu/csrc/framework/OpCommand.h>

#include <memory>
#include <string>
#include <vector>

#include "acl/acl.h"
#include "aclnn_smallq_flash_attention_v2.h"

namespace smallq {
namespace {

void Check(int code, const char* call) {
    if (code != 0) {
        const char* text = aclGetRecentErrMsg();
        TORCH_CHECK(false, call, " returned ", code, ": ", text != nullptr ? text : "no message");
    }
}

struct Destroy {
    void operator()(aclTensor* tensor) const { aclDestroyTensor(tensor); }
};
using TensorPtr = std::unique_ptr<aclTensor, Destroy>;

// Describes memory that torch owns. Strides are passed on: the operator copies what is not dense.
TensorPtr Describe(const at::Tensor& tensor) {
    const std::vector<int64_t> storage = {static_cast<int64_t>(tensor.storage().nbytes() / tensor.element_size())};
    TensorPtr made(aclCreateTensor(tensor.sizes().data(), tensor.dim(), ACL_FLOAT16, tensor.strides().data(),
                                   tensor.storage_offset(), ACL_FORMAT_ND, storage.data(), storage.size(),
                                   const_cast<void*>(tensor.storage().data())));
    TORCH_CHECK(made != nullptr, "aclCreateTensor returned NULL");
    return made;
}

void CheckInputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    for (const at::Tensor* tensor : {&q, &k, &v}) {
        TORCH_CHECK(tensor->dim() == 3 && tensor->scalar_type() == at::kHalf,
                    "q, k and v must be float16 tensors [heads, length, head size]");
        TORCH_CHECK(tensor->device() == q.device(), "q, k and v must be on one device");
    }
}

at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, bool causal) {
    CheckInputs(q, k, v);
    const c10::OptionalDeviceGuard guard(q.device());
    at::Tensor out = at::empty({q.size(0), q.size(1), v.size(2)}, q.options());

    const TensorPtr tensors[] = {Describe(q), Describe(k), Describe(v), Describe(out)};
    uint64_t bytes = 0;
    aclOpExecutor* executor = nullptr;
    Check(aclnnSmallqFlashAttentionV2GetWorkspaceSize(tensors[0].get(), tensors[1].get(), tensors[2].get(), scale,
                                                      causal, tensors[3].get(), &bytes, &executor),
          "aclnnSmallqFlashAttentionV2GetWorkspaceSize");
    const at::Tensor workspace = at::empty({static_cast<int64_t>(bytes)}, q.options().dtype(at::kByte));

    // stream(false) does not drain torch_npu's task queue; the launch goes through that queue, so that it keeps its
    // place among the others. The lambda holds the tensors until it has run.
    const aclrtStream stream = c10_npu::getCurrentNPUStream().stream(false);
    at_npu::native::OpCommand::RunOpApi("SmallqFlashAttention", [=]() -> int {
        void* memory = bytes > 0 ? workspace.data_ptr() : nullptr;
        const at::Tensor held[] = {q, k, v, out};
        (void)held;
        return aclnnSmallqFlashAttentionV2(memory, bytes, executor, stream);
    });
    return out;
}

// Shapes alone, for torch.compile and fake tensors.
at::Tensor AttentionMeta(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, bool causal) {
    (void)k;
    (void)scale;
    (void)causal;
    return at::empty_symint({q.sym_size(0), q.sym_size(1), v.sym_size(2)}, q.options());
}

}  // namespace

TORCH_LIBRARY(smallq, library) {
    library.def("attention(Tensor q, Tensor k, Tensor v, float scale=0., bool causal=False) -> Tensor");
}

TORCH_LIBRARY_IMPL(smallq, PrivateUse1, library) { library.impl("attention", Attention); }

TORCH_LIBRARY_IMPL(smallq, Meta, library) { library.impl("attention", AttentionMeta); }

}  // namespace smallq
