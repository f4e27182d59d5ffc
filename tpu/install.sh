#!/usr/bin/env bash
# Puts this checkout and what it needs on every host of a TPU.
#
#   tpu/install.sh [--dry_run]
#
#   --dry_run  print the commands and do nothing
#
# The last commit goes there, as ~/mpl; changes that are not committed stay
# here. Run it again after a commit, while nothing is training. Needs TPU_NAME,
# ZONE, PROJECT and ACCELERATOR_TYPE; takes TF_VERSION: settings.sh.
set -euo pipefail
# shellcheck source=SCRIPTDIR/settings.sh
source "$(dirname "$0")/settings.sh"

for argument; do
  case $argument in
    --dry_run) dry_run=true ;;
    --help) usage && exit ;;
    *) unknown "$argument" ;;
  esac
done
need TPU_NAME ZONE PROJECT ACCELERATOR_TYPE
check_type
version=2.19.1
if is_pod; then
  version=image
fi

cd "$ROOT"
if ! $dry_run && [[ -n $(git status --porcelain) ]]; then
  echo "Warning: changes that are not committed stay here." >&2
fi
archive=build/mpl.tar.gz
run mkdir -p build
run git archive --format=tar.gz --prefix=mpl/ --output="$archive" HEAD
tpus tpu-vm scp "$archive" "$TPU_NAME": --worker=all
on_host all "tar -xzf mpl.tar.gz && $(
  quoted bash mpl/tpu/host_install.sh "${TF_VERSION:-$version}"
)"
