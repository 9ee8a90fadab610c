#!/bin/bash
# Interactive upgrade of a custom-operator package (simulated toolkit). The .run never calls it. It works only in
# ASCEND_OPP_PATH and writes no set_env.bash. At the end of its input it stops; CANN's own asks for ever.
vendor_name=customize

vendor_dir=vendors/$vendor_name
source_dir=$PWD/packages/$vendor_dir

log() { echo "[ops_custom] [$(date '+%Y-%m-%d %H:%M:%S')] $1"; }

fail() {
    log "[ERROR] $1"
    exit 1
}

[ -n "$ASCEND_OPP_PATH" ] || fail "env ASCEND_OPP_PATH no exist"
[ -d "$ASCEND_OPP_PATH" ] || fail "$ASCEND_OPP_PATH no exist"
live_dir=$ASCEND_OPP_PATH/$vendor_dir

# m: copy over what is there; r: remove it first; n: leave this part alone.
ask() {
    local entry answer
    for entry in "$ASCEND_OPP_PATH/vendors"/*; do
        [ -e "$entry" ] || continue
        echo "[INFO] $(basename "$entry") is installed. Merge [m], replace [r] or skip [n] $1?"
        while read -r answer; do
            case "$answer" in
            m) return 0 ;;
            r)
                rm -rf "${live_dir:?}/$1"/*
                return 0
                ;;
            n) return 1 ;;
            esac
            log "[WARNING] please input m, r or n"
        done
        fail "no answer: upgrade.sh needs a terminal"
    done
}

for part in framework op_proto op_impl op_api; do
    log "[INFO] upgrade $part"
    [ -d "$source_dir/$part" ] || continue
    if [ -d "$live_dir/$part" ]; then
        ask "$part" || continue
    else
        mkdir -p "$live_dir/$part" || fail "create $live_dir/$part failed"
    fi
    cp -rf "$source_dir/$part"/* "$live_dir/$part/" || fail "copy new $part files failed"
done
if [ -e "$source_dir/version.info" ]; then
    cp -f "$source_dir/version.info" "$live_dir/version.info" || fail "copy new version.info file failed"
fi

echo "SUCCESS"
exit 0
