# What the scripts on the TPU's hosts share: sourced, not run.
#
# shellcheck shell=bash

VENV=$HOME/mpl_venv
# "PID RUN" of the run that has the TPU, which one process only can use.
PID_FILE=$ROOT/runs/tpu.pid

# Ends the script where a run is under way on this host.
refuse_while_running() {
  local pid name
  # After a reboot the number may be another process's.
  if [[ -f $PID_FILE ]] && read -r pid name <"$PID_FILE" &&
    grep -qs main.py "/proc/$pid/cmdline"; then
    fail "run $name is under way here (process $pid), and the TPU is one" \
      "run's alone. Wait for its end, or stop it with: kill -TERM -$pid"
  fi
}

# tpu_environment MASTER: how TensorFlow gets at the TPU, by environment.
tpu_environment() {
  if [[ $1 == local ]]; then
    # By the library that tensorflow-tpu brought, unless the image has one set.
    if [[ -z ${TF_PLUGGABLE_DEVICE_LIBRARY_PATH:-} ]]; then
      TF_PLUGGABLE_DEVICE_LIBRARY_PATH=$("$VENV/bin/python" -c \
        'import libtpu, os
print(os.path.join(os.path.dirname(libtpu.__file__), "libtpu.so"))')
    fi
    export TF_PLUGGABLE_DEVICE_LIBRARY_PATH
    export NEXT_PLUGGABLE_DEVICE_USE_C_API=true
  else
    # A pod slice: every host's TPU chips belong to the server that the image
    # runs there, those of this host too, so this process must leave them.
    export TPU_NAME=$1 TPU_LOAD_LIBRARY=0
  fi
}
