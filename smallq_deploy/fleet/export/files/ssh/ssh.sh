#!/bin/bash
# ./ssh.sh [install|rollback|smoke|verify]    with plain ssh, PARALLEL hosts at once (default 20)
set -euo pipefail
cd "$(dirname "$0")"
action=${1:-install}
export bundle=${BUNDLE:-%%{bundle}} sha256=%%{sha256} place=%%{place} name=%%{name} timeout=%%{timeout}
export results
results=results/$(date +%Y%m%d-%H%M%S)-$$-$action
failed=0

reach() { # HOST COMMAND
  timeout "$timeout" ssh -F ssh_config -T -- "$1" "$2"
}

bring() { # HOST
  local check="cd \"\$HOME/$place\" && echo '$sha256  $name' | sha256sum --check --quiet --status"
  reach "$1" "$check" </dev/null 2>/dev/null && return
  local put="umask 077 && cd && mkdir -p $place && cd $place && cat >$name.part && mv $name.part $name"
  reach "$1" "$put && $check" <"$bundle"
}

one() { # ACTION GROUP SUDO HOST
  local shell="sh -s" status=0
  if [ "$3" = yes ]; then
    # shellcheck disable=SC2016  # $HOME is that of the login user there
    shell='sudo -n env SMALLQ_FLEET_HOME="$HOME" sh -s'
  fi
  {
    bring "$4" && reach "$4" "exec $shell" <"node/$1-$2.sh"
  } >"$results/$4.json" 2>"$results/$4.err" || status=$?
  echo "$4 $1: exit status $status"
  echo "$status" >"$results/$4.status"
}
export -f reach bring one

turn() { # ACTION GROUP SUDO NODESET HOST...
  local words=("$1" "$2" "$3")
  shift 4
  printf '%s\0' "$@" | xargs -0 -n 1 -P "${PARALLEL:-20}" bash -c 'one "$@"' one "${words[@]}"
  for host in "$@"; do
    if [ "$(cat "$results/$host.status" 2>/dev/null)" != 0 ]; then
      failed=$((failed + 1))
    fi
  done
}

begin() { # NUMBER
  echo "wave $1"
  failed=0
}

end() { # MAY_FAIL
  if [ "$failed" -gt "$1" ]; then
    echo "$failed hosts failed, $1 may: stopped; $results/HOST.json says why" >&2
    exit 11
  fi
}

mkdir -p "$results"
case $action in
install)
  %%{waves}
  ;;
rollback)
  %%{all_changed}
  end 0
  ;;
smoke | verify)
  %%{everything}
  end 0
  ;;
*)
  echo "usage: ./ssh.sh [install|rollback|smoke|verify]" >&2
  exit 2
  ;;
esac
