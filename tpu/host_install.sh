#!/usr/bin/env bash
# Runs on the TPU's hosts: installs what the package needs into ~/mpl_venv.
#
#   bash mpl/tpu/host_install.sh TF_VERSION
#
# TF_VERSION is that of tensorflow-tpu, or "image" for the TensorFlow that the
# image brings along.
set -euo pipefail
# shellcheck source=SCRIPTDIR/settings.sh
source "$(dirname "$0")/settings.sh"
# shellcheck source=SCRIPTDIR/host_environment.sh
source "$(dirname "$0")/host_environment.sh"

[[ $# == 1 && -n $1 ]] || fail "usage: host_install.sh TF_VERSION"
refuse_while_running
tensorflow=$1
requirements=$VENV/requirements.txt

python3 -c 'import ensurepip' 2>/dev/null ||
  { sudo apt-get update && sudo apt-get install -y python3-venv; }
if [[ $tensorflow == image ]]; then
  python3 -m venv --system-site-packages "$VENV"
else
  python3 -m venv "$VENV"
fi
# Plain TensorFlow knows no TPU, and would take the place of the one that does.
grep -v '^tensorflow[^-]' "$ROOT/requirements.txt" >"$requirements"
if [[ $tensorflow == image ]]; then
  # With these TensorFlow asks Google for the addresses of a pod slice's hosts.
  printf '%s\n' google-api-python-client oauth2client >>"$requirements"
else
  echo "tensorflow-tpu==$tensorflow" >>"$requirements"
fi
"$VENV/bin/python" -m pip install --quiet --upgrade pip
"$VENV/bin/python" -m pip install --quiet --requirement "$requirements" \
  --find-links=https://storage.googleapis.com/libtpu-tf-releases/index.html
"$VENV/bin/python" -m pip install --quiet --no-deps --editable "$ROOT"
"$VENV/bin/python" -c 'import keras, tensorflow as tf
print("TensorFlow", tf.__version__, "Keras", keras.__version__)'
