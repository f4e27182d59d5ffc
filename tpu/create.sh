#!/usr/bin/env bash
# Creates a TPU VM, or a pod slice of several.
#
#   tpu/create.sh [--spot] [--queued] [--dry_run]
#
#   --spot     cheaper, and taken away when someone else pays more
#   --queued   wait in Google's queue instead of failing where there is no room
#   --dry_run  print the commands and do nothing
#
# It costs money from then on, until tpu/delete.sh. Needs TPU_NAME, ZONE,
# PROJECT and ACCELERATOR_TYPE; RUNTIME_VERSION for a pod slice: settings.sh.
set -euo pipefail
# shellcheck source=SCRIPTDIR/settings.sh
source "$(dirname "$0")/settings.sh"

# The image without a framework that Google names for this kind of TPU.
base_image() {
  case $1 in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) return 1 ;;
  esac
}

queued=false
spot=false
for argument; do
  case $argument in
    --spot) spot=true ;;
    --queued) queued=true ;;
    --dry_run) dry_run=true ;;
    --help) usage && exit ;;
    *) unknown "$argument" ;;
  esac
done
need TPU_NAME ZONE PROJECT ACCELERATOR_TYPE
check_type

if [[ -n ${RUNTIME_VERSION:-} ]]; then
  version=$RUNTIME_VERSION
elif is_pod; then
  fail "$ACCELERATOR_TYPE has several hosts, whose image must hold" \
    "TensorFlow's server: set RUNTIME_VERSION to one of" \
    "tpu-vm-tf-<version>-pod-pjrt (gcloud compute tpus tpu-vm versions list" \
    "--zone=$ZONE names them)."
else
  version=$(base_image "$ACCELERATOR_TYPE") ||
    fail "no base image is known for $ACCELERATOR_TYPE; set RUNTIME_VERSION."
fi

set -- "$TPU_NAME" --accelerator-type="$ACCELERATOR_TYPE"
if $queued; then
  set -- queued-resources create "$@" \
    --node-id="$TPU_NAME" --runtime-version="$version"
else
  set -- tpu-vm create "$@" --version="$version"
fi
if $spot; then
  set -- "$@" --spot
fi
tpus "$@"
if $queued; then
  # WAITING_FOR_RESOURCES, PROVISIONING, then ACTIVE: ready for install.sh.
  tpus queued-resources describe "$TPU_NAME" '--format=value(state.state)'
fi
