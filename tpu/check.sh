#!/usr/bin/env bash
# Runs tpu/check.py on a TPU: its devices, ten steps, images a second.
#
#   tpu/check.sh [--dry_run] [FLAG OF check.py ...]
#
#   --dry_run  print the commands and do nothing
#
# On a pod slice it runs on the first host and drives the others. Needs
# TPU_NAME, ZONE, PROJECT and ACCELERATOR_TYPE: settings.sh.
set -euo pipefail
# shellcheck source=SCRIPTDIR/settings.sh
source "$(dirname "$0")/settings.sh"

while (($# > 0)); do
  case $1 in
    --dry_run) dry_run=true ;;
    --help) usage && exit ;;
    *) break ;;
  esac
  shift
done
need TPU_NAME ZONE PROJECT ACCELERATOR_TYPE
check_type
on_host 0 "$(quoted bash mpl/tpu/host_check.sh "$(master)" "$@")"
