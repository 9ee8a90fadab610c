#!/bin/bash
# Build custom operators of this project into a .run package (simulated toolkit).
set -e

project_dir=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
build_dir=$project_dir/build
output_dir=$project_dir/output

op_name=""
compute_unit=""
ccache=""
cann=""
what=""
op_build_tool=""
ascend_cmake_dir=""
tiling_key=""
op_debug_config=""
ops_compile_options=""
parent_job=false
host_tiling=false
check_compatible=true
verbose=""

usage() {
    cat <<HELP
Usage: $0 [options]
Options:
  -h | --help                   show this text
  -n | --op-name NAMES          operators to build, separated by semicolons (default: all of src/)
                                example: -n "vec_add_sample"
  -c | --compute-unit UNITS     chips to build for, separated by semicolons (default: ascend910_93)
                                example: -c "ascend910b"
  -p | --package-path DIR       CANN home (default: ASCEND_HOME_PATH, then the parent of ASCEND_OPP_PATH)
  -b | --build PART             host, kernel, or the name of a CMake target (default: the package)
  --ccache PATH|off             compile the host libraries through ccache (default: used when it is found)
  --tiling-key KEYS             tiling keys, separated by semicolons (every key is in the simulated kernel)
  --op_debug_config TEXT        debug options of the kernel build
  --ops-compile-options TEXT    more options for the kernel compiler
  --op_build_tool FILE          another op_build program
  --ascend_cmake_dir DIR        another directory with the toolkit's packing scripts
  --enable_host_tiling          build tiling with the kernels
  --disable-check-compatible    do not compare this project's version with the toolkit's
  --parent_job                  leave the number of jobs to a surrounding make
  --clang                       accepted; the simulated toolkit has one compiler
  --verbose                     show the compiler's command lines
HELP
}

log() { echo "[$(date '+%Y-%m-%d %H:%M:%S')] $1"; }

while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help)
        usage
        exit 0
        ;;
    -n | --op-name) op_name="$2" && shift ;;
    -c | --compute-unit) compute_unit="$2" && shift ;;
    --ccache) ccache="$2" && shift ;;
    -p | --package-path) cann="$2" && shift ;;
    -b | --build) what="$2" && shift ;;
    # The list of changed files of a merge request: it changes nothing here.
    -f | --changed_list) shift ;;
    --parent_job) parent_job=true ;;
    --enable_host_tiling) host_tiling=true ;;
    --disable-check-compatible | --disable-check-compatiable) check_compatible=false ;;
    --op_build_tool) op_build_tool="$2" && shift ;;
    --ascend_cmake_dir) ascend_cmake_dir="$2" && shift ;;
    --verbose) verbose=--verbose ;;
    --clang) ;;
    --tiling-key | --tiling_key) tiling_key="$2" && shift ;;
    --op_debug_config) op_debug_config="$2" && shift ;;
    --ops-compile-options) ops_compile_options="$2" && shift ;;
    *)
        usage
        exit 1
        ;;
    esac
    shift
done

if [ "$(id -u)" = 0 ]; then
    ascend_root=/usr/local/Ascend
else
    ascend_root=$HOME/Ascend
fi
if [ -z "$cann" ]; then
    if [ -n "$ASCEND_HOME_PATH" ]; then
        cann=$ASCEND_HOME_PATH
    elif [ -n "$ASCEND_OPP_PATH" ]; then
        cann=$(dirname "$ASCEND_OPP_PATH")
    elif [ -d "$ascend_root/ascend-toolkit/latest" ]; then
        cann=$ascend_root/ascend-toolkit/latest
    elif [ -d "$ascend_root/latest" ]; then
        cann=$ascend_root/latest
    else
        log "Error: no CANN found: name its home with -p|--package-path, or source its set_env.sh first."
        exit 1
    fi
fi

# The toolkit's build environment; a toolkit without this file may still have everything on the caller's PATH.
source "$cann/bin/setenv.bash" || echo "0"
if ! command -v bisheng >/dev/null; then
    log "Error: bisheng compilation tool not found: is $cann a CANN toolkit, and was its set_env.sh sourced?"
    exit 1
fi

# build/ goes, output/ stays: a package of an earlier build is still in there.
rm -rf "$build_dir"
mkdir -p "$build_dir" "$output_dir"

options=(
    -DBUILD_OPEN_PROJECT=ON
    "-DCMAKE_CXX_FLAGS=-w"
    "-DCUSTOM_ASCEND_CANN_PACKAGE_PATH=$cann"
    "-DCHECK_COMPATIBLE=$check_compatible"
)
add() { [ -z "$2" ] || options+=("-D$1=$2"); }
add ASCEND_COMPUTE_UNIT "$compute_unit"
add ASCEND_OP_NAME "$op_name"
add OP_BUILD_TOOL "$op_build_tool"
add ASCEND_CMAKE_DIR "$ascend_cmake_dir"
add TILING_KEY "$tiling_key"
add OP_DEBUG_CONFIG "$op_debug_config"
add OPS_COMPILE_OPTIONS "$ops_compile_options"
[ "$host_tiling" = false ] || add ENABLE_HOST_TILING true

case "$ccache" in
off | false) ;;
'') add CMAKE_CXX_COMPILER_LAUNCHER "$(command -v ccache || true)" ;;
*) [ ! -f "$ccache" ] || add CMAKE_CXX_COMPILER_LAUNCHER "$ccache" ;;
esac

jobs=()
if [ "$parent_job" = false ]; then
    job_count=$(($(grep -c '^processor' /proc/cpuinfo) * 2))
    if [[ "$OPS_CPU_NUMBER" =~ ^[0-9]+$ ]]; then
        job_count=$OPS_CPU_NUMBER
    fi
    jobs=("-j$job_count")
fi

configure() {
    log "Info: cmake config ${options[*]} $* ."
    cmake "$project_dir" "${options[@]}" "$@"
}
build() { cmake --build . --target "$1" "${jobs[@]}" $verbose; }

cd "$build_dir"
case "$what" in
host)
    configure -DENABLE_OPS_KERNEL=OFF
    build package
    rm -rf "$output_dir"
    mkdir -p "$output_dir"
    cp "$build_dir"/*.run "$output_dir"
    ;;
kernel)
    configure -DENABLE_OPS_HOST=OFF
    build ops_kernel
    ;;
'')
    configure
    build package
    ;;
*)
    configure
    build "$what"
    ;;
esac
