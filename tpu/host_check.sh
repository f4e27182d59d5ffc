#!/usr/bin/env bash
# Runs on the TPU's first host: check.py, in the foreground.
#
#   bash mpl/tpu/host_check.sh MASTER [FLAG OF check.py ...]
#
# MASTER is "local" or the name of a pod slice.
set -euo pipefail
# shellcheck source=SCRIPTDIR/settings.sh
source "$(dirname "$0")/settings.sh"
# shellcheck source=SCRIPTDIR/host_environment.sh
source "$(dirname "$0")/host_environment.sh"

(($# >= 1)) || fail "usage: host_check.sh MASTER [FLAG ...]"
master=$1
shift
refuse_while_running
tpu_environment "$master"
cd "$ROOT"
exec "$VENV/bin/python" -m tpu.check --master="$master" "$@"
