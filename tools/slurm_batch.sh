#!/usr/bin/env bash
# Train in a Slurm job that goes on after its time limit and after preemption, until it is done.
#   sbatch --ntasks=8 --gres=gpu:8 --time=24:00:00 tools/slurm_batch.sh CONFIG WORK_DIR [flags of lm4ve train]
#   submit it where `lm4ve` runs; SAVE_SECONDS: how long saving may take, 100 by default, which has to
#   be less than what --signal=B:USR1@120 leaves before the limit
#SBATCH --requeue --open-mode=append --signal=B:USR1@120
set -u
if [ $# -lt 2 ]; then sed -n '3,5s/^# *//p' "$0" >&2; exit 2; fi

# Of an array, only this task; the number alone may stand for all.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
signalled=
timer=
training=

# The limit is near: the training saves and stops. The job comes back even if it does not.
stop() {
  signalled=yes
  # A training that has only just begun has nothing to save.
  if [ -n "$training" ]; then kill -USR1 "$training"; fi
  (sleep "${SAVE_SECONDS:-100}"; scontrol requeue "$job") &
  timer=$!
}
trap stop USR1

# MMEngine's own port is one for all jobs of a node.
export MASTER_PORT=${MASTER_PORT:-$((10000 + SLURM_JOB_ID % 20000))}
srun --kill-on-bad-exit=1 python -m lm4ve.commands.slurm_task train "$1" --work-dir "$2" \
  --launcher slurm --resume auto "${@:3}" &
training=$!
wait "$training"
code=$?
if [ -n "$signalled" ]; then
  # The signal has ended the first wait, not the training.
  wait "$training"
  code=$?
  kill "$timer"
fi
case $code in
  # SIGUSR1 before the limit, SIGTERM at preemption: saved, and not done.
  138 | 143) scontrol requeue "$job" ;;
esac
exit $code
