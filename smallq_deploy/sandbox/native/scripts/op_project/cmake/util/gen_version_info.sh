#!/bin/bash
# gen_version_info.sh <toolkit home> <output directory>: the version.info of a vendor directory (simulated toolkit).
compiler=$(sed -n 's/^Version=//p' "$1/compiler/version.info" | head -n 1)
echo "custom_opp_compiler_version=$compiler" >"$2/version.info"
