#!/bin/bash
# ./submit.sh [install|rollback|smoke|verify]    from a login node
# One job for each wave; a wave begins when the one before ended well. `squeue` shows them, results/ what came of them.
set -euo pipefail
cd "$(dirname "$0")"
action=${1:-install}
previous=
gres=(%%{gres})

submit() { # NODELIST COUNT MAY_FAIL
  local depend=()
  if [ -n "$previous" ]; then
    depend=("--dependency=afterok:$previous" --kill-on-invalid-dep=yes)
  fi
  previous=$(sbatch --parsable "${depend[@]}" %%{options} "${gres[@]}" \
    --nodelist="$1" --nodes="$2" job.sbatch "$action" "$3")
  previous=${previous%;*}
  echo "job $previous: $action on $1"
}

case $action in
install)
  %%{waves}
  # Every node, also those that share one opp directory with a node that was installed on. No device is needed.
  action=verify gres=()
  %%{everything}
  ;;
rollback)
  %%{all_changed}
  ;;
smoke)
  %%{everything}
  ;;
verify)
  gres=()
  %%{everything}
  ;;
*)
  echo "usage: ./submit.sh [install|rollback|smoke|verify]" >&2
  exit 2
  ;;
esac
