// SPDX-License-Identifier: Apache-2.0
// Where operators are looked for: vendor directories in priority order.
#ifndef SIM_RUNTIME_NNOPBASE_SEARCH_PATH_H_
#define SIM_RUNTIME_NNOPBASE_SEARCH_PATH_H_

#include <string>
#include <vector>

namespace nnop {

struct SearchPath {
    // Base directories, first wins: ASCEND_CUSTOM_OPP_PATH entries, vendors of config.ini, built-in.
    std::vector<std::string> bases;
    // "linux/x86_64", the sub-directory of host libraries, from scene.info.
    std::string scene;
};

// Reads the environment and the files it names. Returns an aclnn code; the error text is recorded.
int ReadSearchPath(SearchPath* path);

}  // namespace nnop

#endif  // SIM_RUNTIME_NNOPBASE_SEARCH_PATH_H_
