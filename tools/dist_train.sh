#!/usr/bin/env bash
# Train on several processes of one or more machines; without CUDA they talk over gloo.
#   tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
#   several machines: NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500 tools/dist_train.sh ...
#   one that dies is started again: MAX_RESTARTS=3 (then --resume auto is added), also on several
#   machines; RDZV_ENDPOINT=10.0.0.1:29500 in place of NODE_RANK, MASTER_ADDR and PORT
#   OMP_NUM_THREADS: CPU threads of each process, one by default
set -eu
if [ $# -lt 2 ]; then sed -n '3,4s/^# *//p' "$0" >&2; exit 2; fi
. "$(dirname "$0")/environment.sh"
exec python -m lm4ve.commands.launch train "$2" "$1" "${@:3}"
