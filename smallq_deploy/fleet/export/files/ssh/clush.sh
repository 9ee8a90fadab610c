#!/bin/bash
# ./clush.sh [install|rollback|smoke|verify]    with ClusterShell's clush, FANOUT hosts at once (default 64)
set -euo pipefail
cd "$(dirname "$0")"
action=${1:-install}
bundle=${BUNDLE:-%%{bundle}}
results=results/$(date +%Y%m%d-%H%M%S)-$$-$action
failed=0

clush_on() { # NODESET WORD...
  local nodes=$1
  shift
  clush -S -f "${FANOUT:-64}" -t 15 -u %%{timeout} -o "-F ssh_config" -w "$nodes" "$@"
}

turn() { # ACTION GROUP SUDO NODESET HOST...
  local script=node/$1-$2.sh nodes=$4 shell="sh -s"
  if [ "$3" = yes ]; then
    # shellcheck disable=SC2016  # $HOME is that of the login user there
    shell='sudo -n env SMALLQ_FLEET_HOME="$HOME" sh -s'
  fi
  shift 4
  local check="cd && echo '%%{sha256}  %%{place}/%%{name}' | sha256sum --check --quiet"
  {
    clush_on "$nodes" -n "umask 077 && cd && mkdir -p %%{place}" || :
    clush_on "$nodes" --copy "$bundle" --dest "%%{place}/%%{name}" || :
  } >>"$results/log" 2>&1
  # Nothing runs on a host where another file arrived.
  { echo "$check || exit 5"; cat "$script"; } >"$results/script"
  clush_on "$nodes" --outdir="$results" "$shell" <"$results/script" >>"$results/log" 2>&1 || :
  for host in "$@"; do
    if grep -q '"exit_status": 0,' "$results/$host" 2>/dev/null; then
      echo "$host: done"
    else
      echo "$host: failed; $results/$host and $results/log say why"
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
    echo "$failed hosts failed, $1 may: stopped" >&2
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
  echo "usage: ./clush.sh [install|rollback|smoke|verify]" >&2
  exit 2
  ;;
esac
