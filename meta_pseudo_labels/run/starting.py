"""Where training starts: afresh, from the run's checkpoint, or another's."""

import os

from absl import logging

from meta_pseudo_labels.release.variables import load_release_variables
from meta_pseudo_labels.run.checkpoints import restore
from meta_pseudo_labels.utils.checkpoint_files import (
    find_checkpoint,
    is_own_checkpoint,
)
from meta_pseudo_labels.utils.files import is_inside
from meta_pseudo_labels.utils.settings import ConfigError


def restore_start(learner, config, checkpoints, *, fresh):
    """Restores the run's latest checkpoint, or loads a given one.

    Args:
      learner: a compiled `Learner` with its first weights.
      config: `Config` of the run.
      checkpoints: `Checkpoints` of the learner.
      fresh: whether what output_dir holds is not to be gone on with.

    Returns:
      The step to go on from.

    Raises:
      CheckpointError: where a checkpoint cannot be read or does not fit.
      ConfigError: where the given one would be deleted by the reset, or is of
        a step at which the run is over.
    """
    path = config.load_checkpoint
    if not fresh and checkpoints.restore_latest() is not None:
        return int(learner.step.numpy())
    if fresh:
        _warn_of_reset(checkpoints, config)
    restart = config.load_checkpoint_and_restart_global_step
    if path and is_own_checkpoint(find_checkpoint(path)):
        restore(learner, path, restart=restart)
    elif path:
        report = load_release_variables(
            learner, path, restart_global_step=restart
        )
        logging.warning("%s: %s", path, report)
    start = int(learner.step.numpy())
    if start >= config.num_train_steps:  # Of nothing that is in output_dir.
        raise ConfigError(
            f"--load_checkpoint={path} is of step {start}, and "
            f"--num_train_steps={config.num_train_steps} ends there: nothing "
            "would be learned. Give more steps, or begin to count anew with "
            "--load_checkpoint_and_restart_global_step."
        )
    return start


def _warn_of_reset(checkpoints, config):
    """Names the run that goes; refuses to delete what is to be loaded."""
    folder, path = config.output_dir, config.load_checkpoint
    saved = checkpoints.paths()
    if saved:
        logging.warning(
            "--reset_output_dir deletes the run in %s, with %s. To go on with "
            "a run say --noreset_output_dir.",
            folder,
            os.path.basename(saved[-1]),
        )
    if path and is_inside(path, folder):
        raise ConfigError(
            f"--load_checkpoint={path} is in the folder that "
            "--reset_output_dir would empty: name another --output_dir, or "
            "say --noreset_output_dir."
        )
