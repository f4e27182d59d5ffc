#!/usr/bin/env bash
# Deletes a TPU, and with it all that is on its disks.
#
#   tpu/delete.sh [--queued] [--yes] [--dry_run]
#
#   --queued   it was created with --queued: the request in the queue goes too
#   --yes      do not ask
#   --dry_run  print the commands and do nothing
#
# Fetch the results first: tpu/fetch.sh. Needs TPU_NAME, ZONE and PROJECT:
# settings.sh.
set -euo pipefail
# shellcheck source=SCRIPTDIR/settings.sh
source "$(dirname "$0")/settings.sh"

queued=false
yes=false
for argument; do
  case $argument in
    --queued) queued=true ;;
    --yes) yes=true ;;
    --dry_run) dry_run=true ;;
    --help) usage && exit ;;
    *) unknown "$argument" ;;
  esac
done
need TPU_NAME ZONE PROJECT

if ! $yes && ! $dry_run; then
  answer=''
  echo "Deletes $TPU_NAME in $ZONE and everything on its disks."
  read -r -p "Its name again to go on: " answer || true
  [[ $answer == "$TPU_NAME" ]] || fail "nothing was deleted."
fi
if $queued; then
  tpus queued-resources delete "$TPU_NAME" --force --quiet
else
  tpus tpu-vm delete "$TPU_NAME" --quiet
fi
