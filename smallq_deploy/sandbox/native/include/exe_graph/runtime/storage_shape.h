// SPDX-License-Identifier: Apache-2.0
// A tensor's logical shape beside the shape it has in memory.
#ifndef SIM_EXE_GRAPH_RUNTIME_STORAGE_SHAPE_H_
#define SIM_EXE_GRAPH_RUNTIME_STORAGE_SHAPE_H_

#include "exe_graph/runtime/shape.h"

namespace gert {

class StorageShape {
public:
    StorageShape() {}
    StorageShape(std::initializer_list<int64_t> origin, std::initializer_list<int64_t> storage)
        : origin_(origin), storage_(storage) {}

    const Shape& GetOriginShape() const { return origin_; }
    const Shape& GetStorageShape() const { return storage_; }
    Shape& MutableOriginShape() { return origin_; }
    Shape& MutableStorageShape() { return storage_; }

private:
    Shape origin_;
    Shape storage_;
};

}  // namespace gert

#endif  // SIM_EXE_GRAPH_RUNTIME_STORAGE_SHAPE_H_
