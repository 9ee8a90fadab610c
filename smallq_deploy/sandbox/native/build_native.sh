#!/bin/bash
# Compiles the simulated toolkit's host libraries and op_build.
#   bash build_native.sh OUTDIR
# -> OUTDIR/{libacl_rt.so,libascendcl.so,libnnopbase.so,op_build}   for CANN 8.5 and later
#    OUTDIR/pre85/{libascendcl.so,libnnopbase.so}                   for older versions, which have no libacl_rt.so
# CXX (default g++) names the compiler, SMALLQ_BUILD_JOBS (default 2) how many compilations run at once.
# Warnings do not stop the build here, since a newer compiler may have more of them; the tests compile with -Werror.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: bash build_native.sh OUTDIR" >&2
    exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1/pre85"
out=$(cd "$1" && pwd)
work=$(mktemp -d "$out/.objects-XXXXXX")
trap 'rm -rf "$work"' EXIT
cxx=${CXX:-g++}
common=(-std=c++17 -O2 -fPIC -Wall -Wextra -DFUNC_VISIBILITY
    -I "$here" -I "$here/include" -I "$here/runtime/acl" -I "$here/runtime/nnopbase")
jobs=${SMALLQ_BUILD_JOBS:-2}
running=0

# compile PREFIX SOURCE FLAG...: starts one compilation, first waiting for a free place.
compile() {
    local prefix=$1 source=$2
    shift 2
    if [ "$running" -ge "$jobs" ]; then
        wait -n
        running=$((running - 1))
    fi
    "$cxx" "${common[@]}" "$@" -c "$source" -o "$work/${prefix}_$(basename "$source" .cpp).o" &
    running=$((running + 1))
}

for source in "$here"/runtime/nnopbase/*.cpp; do
    compile nnop "$source" -fvisibility=hidden
done
for source in "$here"/runtime/acl/*.cpp; do
    compile acl "$source" -fvisibility=hidden
done
# op_build shares C++ objects with operator libraries, which use the old string ABI.
for source in "$here"/opbuild/*.cpp; do
    compile opbuild "$source" -D_GLIBCXX_USE_CXX11_ABI=0
done
while [ "$running" -gt 0 ]; do
    wait -n
    running=$((running - 1))
done

link=("$cxx" -shared -Wl,--no-undefined -Wl,--no-as-needed)
"${link[@]}" -Wl,-soname,libacl_rt.so "$work"/acl_*.o -o "$out/libacl_rt.so" -pthread
"${link[@]}" -Wl,-soname,libascendcl.so "$work"/acl_*.o -o "$out/pre85/libascendcl.so" -pthread
"${link[@]}" -Wl,-soname,libnnopbase.so "$work"/nnop_*.o -o "$out/libnnopbase.so" -L "$out" -lacl_rt -ldl -pthread
"${link[@]}" -Wl,-soname,libnnopbase.so "$work"/nnop_*.o -o "$out/pre85/libnnopbase.so" \
    -L "$out/pre85" -lascendcl -ldl -pthread
"$cxx" "$work"/opbuild_*.o -o "$out/op_build" -ldl

# From 8.5 on libascendcl.so is only an old name. A filter library lists the same symbols for the linker, and the loader
# takes every one of them from libacl_rt.so, so a process never has two runtimes.
{
    echo '.text'
    nm -D --defined-only "$out/libacl_rt.so" | while read -r _ kind name; do
        if [ "$kind" = T ] && [[ $name == acl* ]]; then
            printf '.globl %s\n.type %s,%%function\n%s: .byte 0\n' "$name" "$name" "$name"
        fi
    done
    echo '.section .note.GNU-stack,"",%progbits'
} >"$work/filter.s"
"$cxx" -c "$work/filter.s" -o "$work/filter.o"
"$cxx" -shared -nostdlib -Wl,-soname,libascendcl.so -Wl,-F,libacl_rt.so "$work/filter.o" -o "$out/libascendcl.so" \
    -L "$out" -Wl,--no-as-needed -lacl_rt
