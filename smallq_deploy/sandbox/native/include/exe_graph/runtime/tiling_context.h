// SPDX-License-Identifier: Apache-2.0
// Argument of a tiling function: shapes in; tiling key, block count, workspaces and tiling struct out.
#ifndef SIM_EXE_GRAPH_RUNTIME_TILING_CONTEXT_H_
#define SIM_EXE_GRAPH_RUNTIME_TILING_CONTEXT_H_

#include "exe_graph/runtime/extended_kernel_context.h"
#include "exe_graph/runtime/tiling_data.h"
#include "graph/ge_error_codes.h"

namespace fe {
class PlatFormInfos;
}

namespace gert {

class TilingContext : public ExtendedKernelContext {
public:
    static constexpr size_t kMaxWorkspaces = 16;

    TilingContext()
        : tiling_key_(0),
          block_dim_(0),
          schedule_mode_(0),
          workspace_num_(0),
          compile_info_(nullptr),
          platform_(nullptr) {
        for (size_t i = 0; i < kMaxWorkspaces; ++i) {
            workspaces_[i] = 0;
        }
    }

    const StorageShape* GetInputShape(size_t index) const {
        const SimTensorSlot* slot = Present(index);
        return slot != nullptr ? slot->shape : nullptr;
    }
    const StorageShape* GetOptionalInputShape(size_t ir_index) const {
        return ir_index < input_num_ ? inputs_[ir_index].shape : nullptr;
    }
    const StorageShape* GetRequiredInputShape(size_t ir_index) const { return GetOptionalInputShape(ir_index); }
    const StorageShape* GetOutputShape(size_t index) const {
        return index < output_num_ ? outputs_[index].shape : nullptr;
    }

    template <typename T>
    const T* GetCompileInfo() const {
        return static_cast<const T*>(compile_info_);
    }
    const void* GetCompileInfo() const { return compile_info_; }
    fe::PlatFormInfos* GetPlatformInfo() const { return platform_; }

    ge::graphStatus SetTilingKey(uint64_t tiling_key) {
        tiling_key_ = tiling_key;
        return ge::GRAPH_SUCCESS;
    }
    uint64_t GetTilingKey() const { return tiling_key_; }
    ge::graphStatus SetBlockDim(uint32_t block_dim) {
        block_dim_ = block_dim;
        return ge::GRAPH_SUCCESS;
    }
    uint32_t GetBlockDim() const { return block_dim_; }
    // 1 asks that all blocks start together (needed by a kernel that calls SyncAll).
    ge::graphStatus SetScheduleMode(uint32_t mode) {
        schedule_mode_ = mode;
        return ge::GRAPH_SUCCESS;
    }
    uint32_t GetScheduleMode() const { return schedule_mode_; }

    // Null when more than 16 workspaces are asked for.
    size_t* GetWorkspaceSizes(size_t count) {
        if (count > kMaxWorkspaces) {
            return nullptr;
        }
        workspace_num_ = count;
        return workspaces_;
    }
    size_t GetWorkspaceNum() const { return workspace_num_; }

    TilingData* GetRawTilingData() { return &tiling_data_; }
    template <typename T>
    T* GetTilingData() {
        if (sizeof(T) > tiling_data_.GetCapacity()) {
            return nullptr;
        }
        tiling_data_.SetDataSize(sizeof(T));
        return static_cast<T*>(tiling_data_.GetData());
    }

    void SimSetEnvironment(const void* compile_info, fe::PlatFormInfos* platform, const TilingData& buffer) {
        compile_info_ = compile_info;
        platform_ = platform;
        tiling_data_ = buffer;
    }

private:
    uint64_t tiling_key_;
    uint32_t block_dim_;
    uint32_t schedule_mode_;
    size_t workspace_num_;
    size_t workspaces_[kMaxWorkspaces];
    TilingData tiling_data_;
    const void* compile_info_;
    fe::PlatFormInfos* platform_;
};

}  // namespace gert

#endif  // SIM_EXE_GRAPH_RUNTIME_TILING_CONTEXT_H_
