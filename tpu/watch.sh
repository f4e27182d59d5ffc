#!/usr/bin/env bash
# Says whether a TPU is up, and follows the log of a run on it.
#
#   tpu/watch.sh [--dry_run] RUN
#
#   --dry_run  print the commands and do nothing
#
# Ctrl-C stops watching, not the run. Needs TPU_NAME, ZONE and PROJECT:
# settings.sh.
set -euo pipefail
# shellcheck source=SCRIPTDIR/settings.sh
source "$(dirname "$0")/settings.sh"

name=''
for argument; do
  case $argument in
    --dry_run) dry_run=true ;;
    --help) usage && exit ;;
    -*) unknown "$argument" ;;
    *)
      [[ -z $name ]] || unknown "$argument"
      name=$argument
      ;;
  esac
done
[[ -n $name ]] || fail "name the run; see watch.sh --help."
need TPU_NAME ZONE PROJECT
check_run "$name"
tpus tpu-vm describe "$TPU_NAME" '--format=value(state,health)'
on_host 0 "tail -n 40 -F mpl/runs/$name.log"
