// SPDX-License-Identifier: Apache-2.0
// Host libraries of the vendors: tiling (libcust_opmaster_rt2.0.so) and shape inference (libcust_opsproto_rt2.0.so).
#ifndef SIM_RUNTIME_NNOPBASE_OP_LIBRARIES_H_
#define SIM_RUNTIME_NNOPBASE_OP_LIBRARIES_H_

#include <string>
#include <vector>

#include "register/op_impl_registry.h"
#include "search_path.h"

namespace nnop {

struct FoundImpl {
    const gert::SimOpImpl* impl;
    std::string library;
};

class OpLibraries {
public:
    // Opens every library of the search path that exists; one that cannot be opened is remembered.
    void Load(const SearchPath& path);
    // First library in priority order that registered a tiling function; impl is null when there is none.
    FoundImpl Tiling(const std::string& op_type) const;
    FoundImpl InferShape(const std::string& op_type) const;
    // What went wrong while loading, for an error text; empty when nothing did.
    const std::string& Problems() const { return problems_; }

private:
    struct Library {
        std::string path;
        std::vector<const gert::SimOpImpl*> impls;
    };
    void Open(const std::string& path, std::vector<Library>* libraries);

    std::vector<Library> tiling_;
    std::vector<Library> proto_;
    std::string problems_;
};

}  // namespace nnop

#endif  // SIM_RUNTIME_NNOPBASE_OP_LIBRARIES_H_
