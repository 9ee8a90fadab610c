#!/bin/bash
# Pack a directory into a self-extracting archive (simulated toolkit).
#   makeself.sh [--header FILE] [--help-header FILE] [--tar-format FORMAT] [--gzip] [--complevel N] [--nomd5] [--sha256]
#               DIRECTORY ARCHIVE LABEL SCRIPT [SCRIPT ARGUMENTS]
set -e -o pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
header="$here/makeself-header.sh"
help_file=""
tar_format=gnu
level=9

while [ "${1#--}" != "$1" ]; do
    case "$1" in
    --header) header="$2"; shift ;;
    --help-header) help_file="$2"; shift ;;
    --tar-format) tar_format="$2"; shift ;;
    --complevel) level="$2"; shift ;;
    --gzip | --nomd5 | --sha256) ;;
    *)
        echo "makeself: unknown option $1" >&2
        exit 1
        ;;
    esac
    shift
done
if [ $# -lt 4 ]; then
    echo "makeself: needs DIRECTORY ARCHIVE LABEL SCRIPT" >&2
    exit 1
fi
directory="$1"
archive="$2"
label="$3"
script="$4"
shift 4

[ -d "$directory" ] || { echo "makeself: $directory is no directory" >&2; exit 1; }
[ -x "$directory/$script" ] || { echo "makeself: $script is missing in $directory or not executable" >&2; exit 1; }

help_text=""
[ -z "$help_file" ] || help_text=$(cat "$help_file")
payload=$(mktemp "${TMPDIR:-/tmp}/makeself.XXXXXX")
trap 'rm -f "$payload" "$payload.head"' EXIT

archive_name=$(basename "$archive")
# With SOURCE_DATE_EPOCH the archive holds nothing of this run: no times, no owner, no order of a directory.
members=(--sort=name --numeric-owner --owner=0 --group=0)
date=$(LC_ALL=C date)
if [ -n "$SOURCE_DATE_EPOCH" ]; then
    members+=("--mtime=@$SOURCE_DATE_EPOCH")
    [ "$tar_format" != posix ] || members+=(--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f)
    date=$(LC_ALL=C date -u "-d@$SOURCE_DATE_EPOCH")
fi
tar --format="$tar_format" "${members[@]}" --exclude="./$archive_name" -C "$directory" -cf - . |
    gzip -nc "-$level" >"$payload"

size=$(wc -c <"$payload" | tr -d ' ')
text=$(<"$header")
fill() { text=${text//"@$1@"/"$2"}; }
fill CRC "$(cksum <"$payload" | cut -d' ' -f1)"
fill MD5 "00000000000000000000000000000000"
fill SHA "$(sha256sum <"$payload" | cut -c1-64)"
fill LABEL "$label"
fill SCRIPT "$script"
fill SCRIPTARGS "$*"
fill ARCHIVEDIR "$(basename "$(cd "$directory" && pwd)")"
fill FILESIZE "$size"
fill USIZE "$(find "$directory" -type f -printf '%s\n' | awk '{ sum += int(($1 + 1023) / 1024) } END { print sum + 0 }')"
fill DATE "$date"
# An apostrophe would end the header's quoting.
fill HELPHEADER "${help_text//\'/}"
# The help text may have changed the number of lines, so these are counted last.
fill SKIP "$(printf '%s\n' "$text" | wc -l | tr -d ' ')"

printf '%s\n' "$text" >"$payload.head"
cat "$payload.head" "$payload" >"$archive"
chmod 755 "$archive"
echo "Self-extractable archive \"$archive\" successfully created."
