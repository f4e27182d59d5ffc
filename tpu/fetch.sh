#!/usr/bin/env bash
# Copies a run from a TPU: checkpoints, logs, results.
#
#   tpu/fetch.sh [--dry_run] [--output_dir=THERE] RUN [FOLDER]
#
#   --dry_run  print the commands and do nothing
#   THERE      what launch.sh was given as --output_dir, if it was
#   FOLDER     where to; by default runs, so that the run is runs/RUN
#
# A run that is in FOLDER already is left alone. Needs TPU_NAME, ZONE and
# PROJECT: settings.sh.
set -euo pipefail
# shellcheck source=SCRIPTDIR/settings.sh
source "$(dirname "$0")/settings.sh"

name=''
folder=''
output_dir=''
for argument; do
  case $argument in
    --dry_run) dry_run=true ;;
    --help) usage && exit ;;
    --output_dir=?*) output_dir=${argument#*=} ;;
    -*) unknown "$argument" ;;
    *)
      if [[ -z $name ]]; then
        name=$argument
      elif [[ -z $folder ]]; then
        folder=$argument
      else
        unknown "$argument"
      fi
      ;;
  esac
done
[[ -n $name ]] || fail "name the run; see fetch.sh --help."
need TPU_NAME ZONE PROJECT
check_run "$name"
folder=${folder:-runs}
[[ ! -e $folder/$name ]] ||
  fail "$folder/$name is there already; name another folder, or move it."
run mkdir -p "$folder"
log=$TPU_NAME:mpl/runs/$name.log
if [[ -z $output_dir ]]; then
  tpus tpu-vm scp --recurse --worker=0 \
    "$TPU_NAME:mpl/runs/$name" "$log" "$folder"
else
  # main.py runs in mpl. Its folder may have another name there.
  [[ $output_dir == /* ]] || output_dir=mpl/$output_dir
  tpus tpu-vm scp --recurse --worker=0 \
    "$TPU_NAME:$output_dir" "$folder/$name"
  tpus tpu-vm scp --worker=0 "$log" "$folder"
fi
