#!/bin/bash
# Self-extracting archive of a custom-operator package: this text, then one gzip'd tar from the line after "skip" on.
# Written by the simulated toolkit's packer. The option rules are those of CANN's packages: a lone --check goes on to
# install, unknown options print the help and end with 1, a damaged payload ends with 2.

CRCsum="@CRC@"
MD5="@MD5@"
SHA="@SHA@"
label="@LABEL@"
script="@SCRIPT@"
scriptargs="@SCRIPTARGS@"
targetdir="@ARCHIVEDIR@"
filesizes="@FILESIZE@"
totalsize="@FILESIZE@"
usize="@USIZE@"
skip="@SKIP@"
helpheader='@HELPHEADER@'
packed_on="@DATE@"

# The payload is unpacked below TMPDIR, which is the home directory unless the caller says otherwise (not /tmp).
export TMPDIR="${TMPDIR:-$HOME}"
[ -d "$TMPDIR" ] || TMPDIR="$PWD"
unset CDPATH

started_in="$PWD"
quiet=n
keep=n
passed=()

say() { [ "$quiet" = y ] || printf '%s' "$1" >&2; }

usage() {
    cat >&2 <<HELP
Usage: $0 [options]
Options:
  --help | -h              show this text
  --info                   show what the archive is: label, sizes, the script it runs
  --list                   list the files in the archive
  --check                  verify the archive; without --noexec the package is then installed
  --quiet                  print less
  --nox11                  do not open an xterm (this archive never does)
  --noexec                 do not run the embedded script
  --extract=<dir>          unpack into <dir> and keep it; add --noexec to unpack only
  --tar arg1 [arg2 ...]    run tar on the payload
$helpheader
HELP
}

header_bytes() { head -n "$skip" "$0" | wc -c | tr -d ' '; }
payload() { tail -c "+$(($(header_bytes) + 1))" "$0"; }

hash_of_payload() {
    if command -v sha256sum >/dev/null; then
        payload | sha256sum
    elif command -v shasum >/dev/null; then
        payload | shasum -a 256
    fi | cut -c1-64
}

verify() {
    local have actual
    say "Verifying archive integrity..."
    have=$(($(wc -c <"$0") - $(header_bytes)))
    if [ "$have" -ne "$totalsize" ]; then
        echo " Unexpected archive size." >&2
        exit 2
    fi
    actual=$(hash_of_payload)
    if [ -n "$actual" ]; then
        if [ "$actual" != "$SHA" ]; then
            echo "Error in SHA256 checksums: $actual is different from $SHA" >&2
            exit 2
        fi
        say " SHA256 checksums are OK."
    else
        actual=$(payload | cksum | cut -d' ' -f1)
        if [ "$actual" != "$CRCsum" ]; then
            echo "Error in checksums: $actual is different from $CRCsum" >&2
            exit 2
        fi
        say " CRC checksums are OK."
    fi
    say " All good."$'\n'
}

# Only options that help.info names may reach the script.
require_known() {
    local word
    for word in $helpheader; do
        [ "${word%%=*}" = "${1%%=*}" ] && [ "${word#--}" != "$word" ] && return 0
    done
    usage
    exit 1
}

while [ $# -gt 0 ] && [ -n "$*" ]; do
    case "$1" in
    -h | --help)
        usage
        exit 0
        ;;
    -q | --quiet)
        quiet=y
        ;;
    --info)
        echo "Identification: $label"
        echo "Target directory: $targetdir"
        echo "Uncompressed size: $usize KB"
        echo "Compressed size: $totalsize bytes"
        echo "Compression: gzip"
        echo "Date of packaging: $packed_on"
        echo "Script run after extraction:"
        echo "     $script $scriptargs"
        echo "It unpacks to a temporary directory, which is removed at the end."
        exit 0
        ;;
    --list)
        echo "Target directory: $targetdir"
        payload | gzip -cd | tar tvf -
        exit 0
        ;;
    --tar)
        [ $# -ge 2 ] || { usage; exit 1; }
        tar_mode="$2"
        shift 2
        payload | gzip -cd | tar "$tar_mode" - "$@"
        exit 0
        ;;
    --check)
        verify
        passed+=("--check")
        ;;
    --noexec)
        script=""
        ;;
    --extract=*)
        keep=y
        # What follows a second "=" is lost, as in CANN's packages.
        targetdir=$(printf '%s' "$1" | cut -d= -f2)
        ;;
    --nox11 | --xwin | --phase2) ;;
    *)
        require_known "$1"
        passed+=("$1")
        ;;
    esac
    shift
done

if [ "$keep" = y ]; then
    work="$targetdir"
    say "Creating directory $work"$'\n'
    mkdir -p "$work"
else
    work="$TMPDIR/selfgz$$$RANDOM"
    mkdir "$work"
fi || {
    echo "Cannot create target directory $work" >&2
    echo "You should try option --extract=<path>" >&2
    exit 1
}
work=$(cd "$work" && pwd)

remove_work() {
    cd "$TMPDIR" || cd /
    [ "$keep" = y ] || rm -rf "$work"
}
trap 'echo "Signal caught, cleaning up" >&2; remove_work; exit 15' HUP INT QUIT TERM

if [ "$SETUP_NOCHECK" != 1 ]; then
    # verify leaves the script by exit: the work directory must not stay behind.
    (verify) || { code=$?; remove_work; exit $code; }
fi

free_kb=$(df -kP "$work" | tail -n 1 | awk '{print $4}')
if [ -n "$free_kb" ] && [ "$free_kb" -lt "$usize" ]; then
    echo "Not enough space left in $(dirname "$work") ($free_kb KB) to decompress $0 ($usize KB)" >&2
    [ "$keep" = y ] || echo "Consider setting TMPDIR to a directory with more free space." >&2
    remove_work
    exit 1
fi

say "Uncompressing $label"$'\n'
set -o pipefail
if ! payload | gzip -cd | (cd "$work" && tar xpf -); then
    echo "Extraction failed." >&2
    remove_work
    exit 15
fi
set +o pipefail

# The script gets the archive's own path and the caller's directory as two leading words. The path is split at blanks,
# as CANN's header does: with a blank in it install.sh stops reading its options there.
read -ra leading <<<"--$0"
[ "$quiet" = y ] && passed=("--quiet" "${passed[@]}")
result=0
if [ -n "$script" ]; then
    cd "$work" || exit 1
    # shellcheck disable=SC2086 # scriptargs is a word list by contract
    "$script" "${leading[@]}" "--$started_in" $scriptargs "${passed[@]}"
    result=$?
fi
remove_work
exit $result
