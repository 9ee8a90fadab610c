// SPDX-License-Identifier: Apache-2.0
// A list attribute as tiling sees it: a pointer and a length.
#ifndef SIM_EXE_GRAPH_RUNTIME_CONTINUOUS_VECTOR_H_
#define SIM_EXE_GRAPH_RUNTIME_CONTINUOUS_VECTOR_H_

#include <cstddef>

namespace gert {

class ContinuousVector {
public:
    ContinuousVector() : size_(0), data_(nullptr) {}
    ContinuousVector(size_t size, const void* data) : size_(size), data_(data) {}
    size_t GetSize() const { return size_; }
    const void* GetData() const { return data_; }

private:
    size_t size_;
    const void* data_;
};

template <typename T>
class TypedContinuousVector : public ContinuousVector {
public:
    const T* GetData() const { return static_cast<const T*>(ContinuousVector::GetData()); }
};

}  // namespace gert

#endif  // SIM_EXE_GRAPH_RUNTIME_CONTINUOUS_VECTOR_H_
