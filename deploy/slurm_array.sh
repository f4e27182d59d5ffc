#!/usr/bin/env bash
# A SLURM job array: one run per seed, which continues where it was stopped.
#
#   sbatch --array=0-4 deploy/slurm_array.sh FOLDER [FLAG OF mpl train ...]
#   sbatch --array=0-4 --gres=gpu:1 deploy/slurm_array.sh /shared/c10 \
#     --recipe=cifar10_4000_mpl --data_dir=/shared/data
#
# All nodes must see FOLDER; seed n trains in FOLDER/seed_n. MPL names the command,
# if mpl is not on the PATH. Logs, slurm-<job>_<task>.out, are in the folder from
# which sbatch was called.
#
#SBATCH --job-name=mpl
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
# SIGTERM this many seconds before the time is up, for a last checkpoint.
#SBATCH --signal=TERM@300
# A lost or preempted node puts the task back into the queue ...
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

[[ ${1:--} != -* ]] || {
  echo "Error: usage: sbatch --array=0-4 $(basename "$0") FOLDER [FLAG ...]" >&2
  exit 1
}
[[ -n ${SLURM_ARRAY_TASK_ID:-} ]] || {
  echo "Error: the seed is the number in the array: sbatch --array=0-4 ..." >&2
  exit 1
}
folder=$1/seed_$SLURM_ARRAY_TASK_ID
shift

# The shell survives a SIGTERM for the sake of its child, which still has to save.
trap : TERM
# Not every release of srun inherits it from sbatch.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
status=0
srun "${MPL:-mpl}" train "$@" --seed="$SLURM_ARRAY_TASK_ID" \
  --output_dir="$folder" --log_format=json || status=$?

# ... and so does 75: the run was stopped, and the same command continues it.
if ((status == 75)); then
  if ((${SLURM_RESTART_COUNT:-0} >= 100)); then
    echo "Error: $folder was stopped 100 times; its state is saved." >&2
  else
    task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    scontrol requeue "$task" || echo "Error: scontrol could not queue $task" \
      "again; the state of $folder is saved: sbatch goes on with it." >&2
  fi
fi
exit "$status"
