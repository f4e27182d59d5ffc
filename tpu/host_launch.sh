#!/usr/bin/env bash
# Runs on the TPU's first host: starts main.py and leaves it running.
#
#   bash mpl/tpu/host_launch.sh MASTER RUN FLAGFILE [FLAG OF main.py ...]
#
# MASTER is "local" or the name of a pod slice.
set -euo pipefail
# shellcheck source=SCRIPTDIR/settings.sh
source "$(dirname "$0")/settings.sh"
# shellcheck source=SCRIPTDIR/host_environment.sh
source "$(dirname "$0")/host_environment.sh"

(($# >= 3)) || fail "usage: host_launch.sh MASTER RUN FLAGFILE [FLAG ...]"
master=$1
name=$2
flagfile=$3
shift 3
check_run "$name"
refuse_while_running
tpu_environment "$master"

cd "$ROOT"
mkdir -p runs
log=runs/$name.log
set -- main.py --flagfile="$flagfile" --distribution=tpu --use_tpu \
  --master="$master" --output_dir="runs/$name" --noreset_output_dir "$@"
echo "$(date -u +%FT%TZ) started: $(quoted "$@")" >>"$log"
# A session of its own outlives the connection, and can be stopped as a whole.
# The shell outlives a SIGTERM for the sake of its child, which still saves.
# shellcheck disable=SC2016 # The inner shell expands these.
setsid nohup bash -c '
  trap : TERM
  "$0" -u "$@"
  status=$?
  echo "$(date -u +%FT%TZ) ended with status $status"
' "$VENV/bin/python" "$@" >>"$log" 2>&1 </dev/null &
echo "$! $name" >"$PID_FILE"
echo "Started $name, process $!; its log is $ROOT/$log"
