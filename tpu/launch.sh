#!/usr/bin/env bash
# Starts a run on a TPU, and leaves it running there.
#
#   tpu/launch.sh [--dry_run] RUN FLAGFILE [FLAG OF main.py ...]
#
#   --dry_run  print the commands and do nothing
#   RUN        name of the run: mpl/runs/RUN there is its --output_dir
#   FLAGFILE   settings, such as flags/cifar10_4000_mpl.flags
#
# The same command again goes on at the last checkpoint, once the run has ended
# or was cut short; while it is under way it is refused. Nothing restarts by
# itself, and a --reset_output_dir in the flagfile does not count. On a pod
# slice main.py runs on the first host and drives the others. Needs TPU_NAME,
# ZONE, PROJECT and ACCELERATOR_TYPE: settings.sh.
set -euo pipefail
# shellcheck source=SCRIPTDIR/settings.sh
source "$(dirname "$0")/settings.sh"

while (($# > 0)); do
  case $1 in
    --dry_run) dry_run=true ;;
    --help) usage && exit ;;
    -*) unknown "$1" ;;
    *) break ;;
  esac
  shift
done
(($# >= 2)) || fail "name a run and a flagfile; see launch.sh --help."
need TPU_NAME ZONE PROJECT ACCELERATOR_TYPE
check_type
check_run "$1"
[[ $2 != /* && -f $ROOT/$2 ]] ||
  fail "there is no $2 in $ROOT; a flagfile is named from there, such as" \
    "flags/cifar10_4000_mpl.flags."

on_host 0 "$(quoted bash mpl/tpu/host_launch.sh "$(master)" "$@")"
