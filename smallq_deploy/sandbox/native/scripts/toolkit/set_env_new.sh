# Environment of CANN (simulated toolkit); source it in bash. The paths follow from where this file really is.
if [ -z "$BASH_SOURCE" ]; then
    echo "[ERROR] set_env.sh has to be sourced in bash" >&2
    return 1
fi

_cann_home=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
_cann_root=$(dirname "$_cann_home")

# _cann_kept = $1 without the entries of another CANN below the same root (cann, cann-<version>, cann_<version>).
_cann_strip() {
    local entry
    local IFS=:
    _cann_kept=""
    for entry in $1; do
        case "$entry" in
        "$_cann_root"/cann | "$_cann_root"/cann/* | "$_cann_root"/cann[-_]*) ;;
        *) [ -z "$entry" ] || _cann_kept="$_cann_kept:$entry" ;;
        esac
    done
    _cann_kept=${_cann_kept#:}
}

# Unguarded, as in a real toolkit: a caller under "set -u" has to define these first.
_cann_strip "$PATH"
_cann_path=$_cann_kept
_cann_strip "$LD_LIBRARY_PATH"
_cann_libraries=$_cann_kept
_cann_strip "$PYTHONPATH"
_cann_python=$_cann_kept
_cann_strip "$CMAKE_PREFIX_PATH"
_cann_cmake=$_cann_kept

export ASCEND_TOOLKIT_HOME=$_cann_home
export ASCEND_HOME_PATH=$_cann_home
export ASCEND_AICPU_PATH=$_cann_home
export ASCEND_OPP_PATH=$_cann_home/opp
export TOOLCHAIN_HOME=$_cann_home/toolkit
export PATH=$_cann_home/bin:$_cann_home/tools/ccec_compiler/bin${_cann_path:+:$_cann_path}
export PYTHONPATH=$_cann_home/python/site-packages:$_cann_home/opp/built-in/op_impl/ai_core/tbe${_cann_python:+:$_cann_python}
export CMAKE_PREFIX_PATH=$_cann_home/lib64/cmake${_cann_cmake:+:$_cann_cmake}

_cann_driver=$_cann_root/driver/lib64
_cann_own=$_cann_home/lib64:$_cann_home/lib64/plugin/opskernel:$_cann_home/lib64/plugin/nnengine:$_cann_home/opp/built-in/op_impl/ai_core/tbe/op_tiling/lib/linux/$(uname -m)
if [ -d "$_cann_driver/driver" ]; then
    _cann_own=$_cann_own:$_cann_driver:$_cann_driver/common:$_cann_driver/driver
else
    _cann_own=$_cann_own:$_cann_home/devlib
fi
export LD_LIBRARY_PATH=$_cann_own${_cann_libraries:+:$_cann_libraries}

unset -f _cann_strip
unset _cann_home _cann_root _cann_path _cann_libraries _cann_python _cann_cmake _cann_driver _cann_own _cann_kept
