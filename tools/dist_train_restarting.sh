#!/usr/bin/env bash
# Train on several processes; start again from the newest checkpoint when one of them dies.
#   tools/dist_train_restarting.sh CONFIG GPUS [flags of tools/train.py, not --resume]
#   RESTARTS: how often, 10 by default; PAUSE: seconds before each, 5 by default
# torchrun's own --max-restarts hangs with gloo, so the whole job ends and is started anew.
set -u
if [ $# -lt 2 ]; then sed -n '3,4s/^# *//p' "$0" >&2; exit 2; fi
for ((left = ${RESTARTS:-10}; ; left--)); do
  "$(dirname "$0")/dist_train.sh" "$@" --resume auto
  code=$?
  case $code in
    # Done; a mistake of the user's, which another start does not mend; Ctrl-C; SIGUSR1, SIGUSR2
    # and SIGTERM.
    0 | 2 | 130 | 138 | 140 | 143) exit $code ;;
  esac
  if [ "$left" -le 0 ]; then exit $code; fi
  echo "Training ended with exit code $code and is started again; $((left - 1)) more restart(s) left." >&2
  sleep "${PAUSE:-5}"
done
