// SPDX-License-Identifier: Apache-2.0
// Kernel lookup: binary_info_config.json of every base directory, then the .json and .o it names.
#ifndef SIM_RUNTIME_NNOPBASE_KERNEL_INDEX_H_
#define SIM_RUNTIME_NNOPBASE_KERNEL_INDEX_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/sim_launch.h"
#include "search_path.h"

namespace nnop {

// Data type and format of one tensor; absent stands for an optional tensor that was not given and matches any entry.
struct KeyPart {
    bool absent;
    int data_type;
    int format;
};

struct Kernel {
    std::string path;
    SimKernelLaunchFn launch = nullptr;
};

class KernelIndex {
public:
    // Reads the indexes of one compute unit. A broken one is remembered and reported when a lookup fails.
    void Load(const SearchPath& path, const std::string& unit);
    // Finds, checks and opens the kernel for a call. Returns an aclnn code; the error text is recorded.
    int Find(const std::string& op_type, const std::vector<KeyPart>& tensors, std::shared_ptr<const Kernel>* kernel);

private:
    struct Entry {
        std::string op_type;
        std::vector<std::string> keys;
        std::string object;
    };
    void AddOperator(const std::string& base, const std::string& op_type, const struct Json& description);
    int Open(const std::string& object, std::shared_ptr<const Kernel>* kernel);

    std::string unit_;
    std::vector<Entry> entries_;
    std::vector<std::string> searched_;
    std::string broken_;
    std::map<std::string, std::shared_ptr<const Kernel>> opened_;
};

}  // namespace nnop

#endif  // SIM_RUNTIME_NNOPBASE_KERNEL_INDEX_H_
