#!/bin/bash
# compile_kernel.sh PYTHON KERNEL_BUILD OPS_INFO UNIT OPERATOR SOURCES TILING BINARIES [compiler options]
# Compiles one operator's kernels for one unit. A failure is printed and ends with 0: the package is made without them.
python=$1 kernel_build=$2 ops_info=$3 unit=$4 operator=$5 sources=$6 tiling=$7 binaries=$8
shift 8

mkdir -p "$binaries"
if [ ! -f "$ops_info" ]; then
    echo "[$unit] no operator has a configuration for this unit: nothing to compile for $operator"
    exit 0
fi
if ! "$python" "$kernel_build" compile --ops-info "$ops_info" --unit "$unit" --op "$operator" --src "$sources" \
    --tiling "$tiling" --bin "$binaries" -- "$@"; then
    echo "[ERROR] [$unit] $operator: kernel compilation failed, $operator.json not generated!" >&2
fi
exit 0
