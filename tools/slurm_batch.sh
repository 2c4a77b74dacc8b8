#!/usr/bin/env bash
# Train in a Slurm job that goes on after its time limit and after preemption, until it is done.
#   sbatch --ntasks=8 --gres=gpu:8 --time=24:00:00 tools/slurm_batch.sh CONFIG WORK_DIR [flags of lm4ve train]
#   submit it where `lm4ve` runs; SAVE_SECONDS: how long saving may take, 100 by default, which has to
#   be less than what --signal=B:USR1@120 leaves before the limit
#SBATCH --requeue --open-mode=append --signal=B:USR1@120
# A job that fails stays failed. srun's exit code alone does not tell: when one task fails, srun ends
# the others by SIGTERM, and returns the largest code, their 143. So the job comes back only where
# Slurm itself asked for the end: by USR1 before the limit, or by preemption.
set -u
if [ $# -lt 2 ]; then sed -n '3,5s/^# *//p' "$0" >&2; exit 2; fi
work_dir=$2

# Of an array, only this task; the number alone may stand for all.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
signalled=
timer=
training=

newest_checkpoint() { cat "$work_dir/last_checkpoint" 2>/dev/null; }
# How often this job came back without a new checkpoint; an earlier job's number does not count.
idle_starts() {
  local known count
  read -r known count 2>/dev/null <"$work_dir/idle_starts" || return 0
  if [ "$known" = "$job" ]; then echo "$count"; fi
}

begun_at=$(newest_checkpoint)

# Return to the queue, unless three starts in a row have brought no new checkpoint.
requeue() {
  local count=0
  if [ "$(newest_checkpoint)" = "$begun_at" ]; then
    count=$(($(idle_starts) + 1))
  fi
  if [ "$count" -gt 3 ]; then
    echo "error: four starts without a new checkpoint in '$work_dir': the job does not come back." \
      "Fix: more --time or SAVE_SECONDS, or a smaller default_hooks.checkpoint.interval." >&2
    return
  fi
  mkdir -p "$work_dir"
  echo "$job $count" >"$work_dir/idle_starts"
  scontrol requeue "$job"
}

# The limit is near: the training saves and stops. The job comes back even if it does not.
stop() {
  signalled=yes
  # A training that has only just begun has nothing to save.
  if [ -n "$training" ]; then kill -USR1 "$training"; fi
  (sleep "${SAVE_SECONDS:-100}"; requeue) &
  timer=$!
}
trap stop USR1

# Within a partition's GraceTime, Slurm sends SIGTERM to the tasks, and notes when.
was_preempted() {
  local times
  times=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null) || return 1
  [[ $times =~ PreemptTime=([0-9][^[:space:]]*) ]] || return 1
  local preempted=${BASH_REMATCH[1]}
  [[ $times =~ StartTime=([0-9][^[:space:]]*) ]] || return 1
  # Not at an earlier start of this job.
  [[ ! $preempted < ${BASH_REMATCH[1]} ]]
}

# MMEngine's own port is one for all jobs of a node.
export MASTER_PORT=${MASTER_PORT:-$((10000 + SLURM_JOB_ID % 20000))}
# srun does not take over --cpus-per-task by itself.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi
srun --kill-on-bad-exit=1 python -m lm4ve.commands.slurm_task train "$1" --work-dir "$work_dir" \
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
  # Done, or a mistake of the user's.
  0 | 2) exit "$code" ;;
esac
if [ -n "$signalled" ] || was_preempted; then requeue; fi
exit "$code"
