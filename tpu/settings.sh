# Settings and helpers of the scripts beside it: sourced, not run.
#
# From the environment; there are no defaults where a guess could cost money:
#
#   TPU_NAME          name of the TPU VM or pod slice, yours to choose
#   ZONE              zone, such as us-central1-b
#   PROJECT           Google Cloud project that pays
#   ACCELERATOR_TYPE  kind and size, such as v3-8
#   RUNTIME_VERSION   image of the VM, for create.sh; default: the base image of
#                     that kind. A pod slice needs one of the images
#                     tpu-vm-tf-<version>-pod-pjrt, which you have to name
#   TF_VERSION        of tensorflow-tpu, for install.sh: 2.19.1 by default, or
#                     "image" for the image's own, the default of pod slices
#
# shellcheck shell=bash

# shellcheck disable=SC2034 # The scripts use it.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=false

# Prints the comment at the top of a script.
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

fail() {
  echo "Error: $*" >&2
  exit 1
}

# Ends the script for an option that it does not know.
unknown() {
  fail "unknown argument '$1'; see $(basename "$0") --help."
}

# need NAME...: ends the script where environment variables are missing.
need() {
  local name missing=()
  for name; do
    [[ -n ${!name:-} ]] || missing+=("$name")
  done
  ((${#missing[@]} == 0)) ||
    fail "set ${missing[*]} in the environment, as tpu/settings.sh explains" \
      "(export ${missing[0]}=...)."
}

# Ends the script where ACCELERATOR_TYPE is not a kind and a size.
check_type() {
  [[ $ACCELERATOR_TYPE =~ ^v[0-9][a-z]*-[0-9]+$ ]] ||
    fail "ACCELERATOR_TYPE is a kind and a size, such as v3-8 or v5litepod-8;" \
      "got '$ACCELERATOR_TYPE'."
}

# check_run NAME: a run's name becomes part of paths, here and there.
check_run() {
  [[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ ]] ||
    fail "the name of a run is made of letters, digits, '_', '.' and '-'" \
      "and begins with a letter or digit; got '$1'."
}

# Quotes each argument where a shell would misread it.
quoted() {
  local argument separator=''
  for argument; do
    if [[ ! $argument =~ ^[A-Za-z0-9_./:=@,+-]+$ ]]; then
      argument="'$(printf '%s' "$argument" | sed "s/'/'\\\\''/g")'"
    fi
    printf '%s%s' "$separator" "$argument"
    separator=' '
  done
}

# run COMMAND...: runs it; a dry run prints it instead.
run() {
  if $dry_run; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

# tpus GROUP VERB ARGUMENT...: gcloud on this TPU, or its request in the queue.
tpus() {
  local group=$1 verb=$2
  shift 2
  $dry_run || command -v gcloud >/dev/null ||
    fail "gcloud is not installed; see https://cloud.google.com/sdk/docs."
  run gcloud compute tpus "$group" "$verb" "$@" \
    --zone="$ZONE" --project="$PROJECT"
}

# on_host WORKER COMMAND: a command line of the shell there; WORKER is a number
# or all.
on_host() {
  tpus tpu-vm ssh "$TPU_NAME" --worker="$1" --command="$2"
}

# Whether the TPU has more than one host: more than 8 cores (v2 to v4, v5p) or
# more than 8 chips (v5litepod, v6e).
is_pod() {
  ((${ACCELERATOR_TYPE##*-} > 8))
}

# main.py's --master on the TPU's first host.
master() {
  if is_pod; then
    echo "$TPU_NAME"
  else
    echo local
  fi
}
