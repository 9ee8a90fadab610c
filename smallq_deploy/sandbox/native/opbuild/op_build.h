// SPDX-License-Identifier: Apache-2.0
// Parts of op_build: reads operator definitions and tiling classes out of compiled libraries, writes generated files.
#ifndef SIM_OPBUILD_OP_BUILD_H_
#define SIM_OPBUILD_OP_BUILD_H_

#include <deque>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "register/op_def.h"

namespace opbuild {

// Ends the program with exit status 1 and "[ERROR] <text>".
class Error : public std::runtime_error {
public:
    explicit Error(const std::string& text) : std::runtime_error(text) {}
};

// A parameter list with the replacements of one compute unit applied.
using Params = std::vector<ops::OpParamDef>;
Params Resolve(const std::deque<ops::OpParamDef>& base, const std::deque<ops::OpParamDef>& replaced);

// SmallqFlashAttention -> smallq_flash_attention, HCPre -> hc_pre, Add3D -> add3_d.
std::string SnakeCase(const std::string& name);
// soft_max_scale -> softMaxScale.
std::string LowerCamel(const std::string& name);
// "float16", the spelling of ops-info files; throws for types op_build does not know.
std::string TypeText(ge::DataType type);
std::string FormatText(ge::Format format);
std::string JsonText(const std::string& text);

// Throws when a definition is incomplete or uses what the simulated toolkit does not support.
void CheckDefinition(const ops::OpDef& def);

// Contents of the generated files of one operator.
std::string AclnnHeader(const ops::OpDef& def);
std::string AclnnSource(const ops::OpDef& def);
std::string ProtoHeader(const ops::OpDef& def);
// aic-<unit>-ops-info.json of all operators configured for the unit.
std::string OpsInfo(const std::deque<ops::OpDef>& defs, const std::string& unit);

// Writes OUTDIR/<op>/kernel_tiling/kernel_tiling.h for every tiling class of the library.
void WriteTilingHeaders(const std::string& library, const std::string& directory);

void WriteFile(const std::string& path, const std::string& content);
// dlopen with all errors as Error.
void* OpenLibrary(const std::string& path);

}  // namespace opbuild

#endif  // SIM_OPBUILD_OP_BUILD_H_
