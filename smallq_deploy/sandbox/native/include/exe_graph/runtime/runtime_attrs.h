// SPDX-License-Identifier: Apache-2.0
// Attribute values of one call, by definition order. Values are stored as int64_t, float, bool, char[] or vectors.
#ifndef SIM_EXE_GRAPH_RUNTIME_RUNTIME_ATTRS_H_
#define SIM_EXE_GRAPH_RUNTIME_RUNTIME_ATTRS_H_

#include <cstddef>
#include <cstdint>

#include "exe_graph/runtime/continuous_vector.h"

namespace gert {

class RuntimeAttrs {
public:
    RuntimeAttrs() : values_(nullptr), num_(0) {}
    RuntimeAttrs(const void* const* values, size_t num) : values_(values), num_(num) {}

    size_t GetAttrNum() const { return num_; }
    // Null when the index is outside the attribute list.
    template <typename T>
    const T* GetAttrPointer(size_t index) const {
        return index < num_ ? static_cast<const T*>(values_[index]) : nullptr;
    }
    const int64_t* GetInt(size_t index) const { return GetAttrPointer<int64_t>(index); }
    const float* GetFloat(size_t index) const { return GetAttrPointer<float>(index); }
    const bool* GetBool(size_t index) const { return GetAttrPointer<bool>(index); }
    const char* GetStr(size_t index) const { return GetAttrPointer<char>(index); }
    const TypedContinuousVector<int64_t>* GetListInt(size_t index) const {
        return GetAttrPointer<TypedContinuousVector<int64_t>>(index);
    }
    const TypedContinuousVector<float>* GetListFloat(size_t index) const {
        return GetAttrPointer<TypedContinuousVector<float>>(index);
    }

private:
    const void* const* values_;
    size_t num_;
};

}  // namespace gert

#endif  // SIM_EXE_GRAPH_RUNTIME_RUNTIME_ATTRS_H_
