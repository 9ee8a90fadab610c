#!/bin/bash
# index_kernels.sh PYTHON KERNEL_BUILD OPS_INFO UNIT BINARIES OUTPUT: the lookup lists over all compiled kernels of a unit.
set -e
[ -f "$3" ] || exit 0
exec "$1" "$2" index --ops-info "$3" --unit "$4" --bin "$5" --out "$6"
