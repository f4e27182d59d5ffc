"""Cloud TPU: scripts for this machine, and `check` for the TPU's host."""
