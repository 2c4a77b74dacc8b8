#!/usr/bin/env bash
# Train on several processes of one or more machines; without CUDA they talk over gloo.
#   tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
#   several machines: NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500 tools/dist_train.sh ...
set -eu
if [ $# -lt 2 ]; then sed -n '3,4s/^# *//p' "$0" >&2; exit 2; fi
GPUS=$2
# torchrun's default of one OpenMP thread a process is right for GPUs; set
# OMP_NUM_THREADS to change it.
python -m torch.distributed.run \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
  --nproc_per_node="$GPUS" \
  "$(dirname "$0")/train.py" "$1" --launcher pytorch "${@:3}"
