// SPDX-License-Identifier: Apache-2.0
// gert::Shape: up to 25 dimensions, no heap.
#ifndef SIM_EXE_GRAPH_RUNTIME_SHAPE_H_
#define SIM_EXE_GRAPH_RUNTIME_SHAPE_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace gert {

class Shape {
public:
    static constexpr size_t kMaxDimNum = 25;
    static constexpr int64_t kInvalidDimValue = INT64_MIN;

    Shape() : dim_num_(0) { Clear(); }
    Shape(std::initializer_list<int64_t> dims) : dim_num_(0) {
        Clear();
        for (const int64_t dim : dims) {
            AppendDim(dim);
        }
    }

    bool operator==(const Shape& other) const {
        if (dim_num_ != other.dim_num_) {
            return false;
        }
        for (size_t i = 0; i < dim_num_; ++i) {
            if (dims_[i] != other.dims_[i]) {
                return false;
            }
        }
        return true;
    }
    bool operator!=(const Shape& other) const { return !(*this == other); }

    // Number of elements; 1 for a scalar, -1 when a dimension is unknown.
    int64_t GetShapeSize() const {
        int64_t size = 1;
        for (size_t i = 0; i < dim_num_; ++i) {
            if (dims_[i] < 0) {
                return -1;
            }
            size *= dims_[i];
        }
        return size;
    }

    bool IsScalar() const { return dim_num_ == 0; }
    void SetScalar() { dim_num_ = 0; }
    size_t GetDimNum() const { return dim_num_; }
    void SetDimNum(size_t dim_num) { dim_num_ = dim_num > kMaxDimNum ? +kMaxDimNum : dim_num; }
    int64_t GetDim(size_t index) const { return index < dim_num_ ? dims_[index] : INT64_MIN; }
    void SetDim(size_t index, int64_t value) {
        if (index < kMaxDimNum) {
            dims_[index] = value;
        }
    }
    Shape& AppendDim(int64_t value) {
        if (dim_num_ < kMaxDimNum) {
            dims_[dim_num_++] = value;
        }
        return *this;
    }
    // The caller keeps index < GetDimNum().
    const int64_t& operator[](size_t index) const { return dims_[index]; }
    int64_t& operator[](size_t index) { return dims_[index]; }

private:
    void Clear() {
        for (size_t i = 0; i < kMaxDimNum; ++i) {
            dims_[i] = 0;
        }
    }

    size_t dim_num_;
    int64_t dims_[kMaxDimNum];
};

}  // namespace gert

#endif  // SIM_EXE_GRAPH_RUNTIME_SHAPE_H_
