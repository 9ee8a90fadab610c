#!/bin/bash
# Build the operators of this project into build_out/custom_opp_<system>_<machine>.run (simulated toolkit).
# Settings come from CMakePresets.json. As with CANN's own script, only the last step decides the exit status.
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" || exit 1
target=${1:-package}

options=$(python3 cmake/util/preset_options.py CMakePresets.json "$PWD") || exit 1
mapfile -t options <<<"$options"

rm -rf build_out
mkdir -p build_out
cmake -S . -B build_out "${options[@]}"
cmake --build build_out --target binary "-j$(nproc)"
cmake --build build_out --target "$target" "-j$(nproc)"
