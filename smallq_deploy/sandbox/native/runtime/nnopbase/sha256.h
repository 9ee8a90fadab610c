// SPDX-License-Identifier: Apache-2.0
// SHA-256 (FIPS 180-4) of a file.
#ifndef SIM_RUNTIME_NNOPBASE_SHA256_H_
#define SIM_RUNTIME_NNOPBASE_SHA256_H_

#include <string>

namespace nnop {

// 64 lower-case hex digits, or an empty text when the file cannot be read.
std::string FileSha256(const std::string& path);

}  // namespace nnop

#endif  // SIM_RUNTIME_NNOPBASE_SHA256_H_
