// SPDX-License-Identifier: Apache-2.0
// Byte buffer that carries the tiling struct to the kernel.
#ifndef SIM_EXE_GRAPH_RUNTIME_TILING_DATA_H_
#define SIM_EXE_GRAPH_RUNTIME_TILING_DATA_H_

#include <cstddef>
#include <cstring>

namespace gert {

class TilingData {
public:
    TilingData() : data_(nullptr), capacity_(0), size_(0) {}
    TilingData(void* data, size_t capacity) : data_(data), capacity_(capacity), size_(0) {}

    void* GetData() { return data_; }
    const void* GetData() const { return data_; }
    size_t GetCapacity() const { return capacity_; }
    size_t GetDataSize() const { return size_; }
    // A size beyond the capacity is kept as given: the runtime refuses it after tiling.
    void SetDataSize(size_t size) { size_ = size; }

private:
    void* data_;
    size_t capacity_;
    size_t size_;
};

}  // namespace gert

#endif  // SIM_EXE_GRAPH_RUNTIME_TILING_DATA_H_
