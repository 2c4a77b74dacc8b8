#!/usr/bin/env bash
# Train on a Slurm cluster, one task a GPU.
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [flags of tools/train.py]
#   GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS="--time=24:00:00"; GPUS_PER_NODE=0 runs on CPUs (NTASKS_PER_NODE)
set -eu
if [ $# -lt 4 ]; then sed -n '3,4s/^# *//p' "$0" >&2; exit 2; fi
. "$(dirname "$0")/environment.sh"
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
gres=()
[ "$GPUS_PER_NODE" -gt 0 ] && gres=("--gres=gpu:$GPUS_PER_NODE")
NTASKS_PER_NODE=${NTASKS_PER_NODE:-$((GPUS_PER_NODE > 0 ? GPUS_PER_NODE : 1))}
# MMEngine's own port is one for all jobs of a node.
export MASTER_PORT=${MASTER_PORT:-$((10000 + RANDOM % 20000))}
# shellcheck disable=SC2086  # SRUN_ARGS is a list of flags
srun -p "$1" --job-name="$2" "${gres[@]}" \
  --ntasks="$GPUS" --ntasks-per-node="$NTASKS_PER_NODE" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  python -m lm4ve.commands.slurm_task train "$3" --work-dir="$4" --launcher=slurm "${@:5}"
