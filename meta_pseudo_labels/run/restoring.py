"""What is saved of a learner, and all ways to restore it.

A stage starts from the latest or best checkpoint of its run or from a named
one; training may also start from that of another run, of ours or of the
release.
"""

import os
import re

from absl import logging

from meta_pseudo_labels.data.images.listing import listed
from meta_pseudo_labels.release.variables import load_release_variables
from meta_pseudo_labels.run.checkpoints import Checkpoints, saved_shapes
from meta_pseudo_labels.run.config.run import OWN_CHECKPOINTS
from meta_pseudo_labels.run.labeled_choice import has_classes
from meta_pseudo_labels.utils.checkpoint_files import (
    BEST_FOLDER,
    FOLDER,
    CheckpointError,
    checkpoint_paths,
    find_checkpoint,
    is_own_checkpoint,
)
from meta_pseudo_labels.utils.files import is_inside
from meta_pseudo_labels.utils.settings import ConfigError


def learner_state(learner):
    """All that a learner's next step depends on, for `Checkpoints`.

    That is student, teacher, averages, all optimizers, the counts of steps
    and batches, the feedback's baselines and the seeds of dropout. Input needs
    no state: it is a function of the number of batches.

    Args:
      learner: a compiled `Learner`.
    """
    others = {  # Those that are not named below are a plug-in's.
        f"optimizer_{number}": optimizer
        for number, (optimizer, _) in enumerate(learner.optimized())
    }
    return variables_by_name(
        student=learner.student,
        teacher=getattr(learner, "teacher", None),
        average=learner.student_ema,
        student_optimizer=learner.optimizer,
        teacher_optimizer=getattr(learner, "teacher_optimizer", None),
        learner=learner,
        **others,
    )


def variables_by_name(**owners):
    """The variables of Keras objects, each once.

    Args:
      **owners: objects with `variables`, by their part; or None.

    Returns:
      A dict from name to variable. Names consist of the part, a number, and
      Keras's path without its numbers, which count what was built in a
      process, not in a run.
    """
    named, seen = {}, set()
    for part, owner in owners.items():
        variables = [] if owner is None else owner.variables
        fresh = [v for v in variables if id(v) not in seen]
        seen |= {id(v) for v in fresh}
        for number, variable in enumerate(fresh):
            path = re.sub(r"_\d+", "", variable.path)
            named[f"{part}/{number}/{path}"] = variable
    return named


def restore_learner(learner, wanted, output_dir):
    """Restores a checkpoint.

    Args:
      learner: a compiled `Learner`.
      wanted: "latest" or "best" of the run, or a path as `find_checkpoint`
        takes it.
      output_dir: folder of the run.

    Raises:
      CheckpointError: if there is none, or as `Checkpoints.restore`.
    """
    learner.answer_with_average()  # Also after `finished_student`.
    checkpoints = Checkpoints(learner_state(learner), output_dir)
    if wanted == "best":
        checkpoints.restore_best()
    elif wanted != "latest":
        checkpoints.restore(find_checkpoint(wanted))
    elif checkpoints.restore_latest() is None:
        raise CheckpointError(
            f"{output_dir} holds no checkpoint: train there first, with "
            "`mpl train`."
        )


def saved_unlabeled(learner, wanted, output_dir):
    """How many unlabeled images the learner in a checkpoint kept values for.

    FlexMatch keeps one for each image that it trained on. What only uses the
    networks may find other images, and build the learner for that number.

    Args:
      learner: built for the images found now.
      wanted, output_dir: see `restore_learner`.

    Returns:
      The number; None if the learner's own variables are as many.

    Raises:
      CheckpointError: if `wanted` is a path that leads to none.
    """
    own = {
        name: variable.shape
        for name, variable in learner_state(learner).items()
        if name.startswith("learner/") and variable.shape.rank
    }
    if not own:
        return None
    for path in checkpoints_of(wanted, output_dir):
        shapes = saved_shapes(path)
        for name, shape in own.items():
            saved = shapes.get(name, list(shape))
            if saved != list(shape) and saved[1:] == list(shape[1:]):
                return saved[0]
    return None


def fitting_learner(learner, build, wanted, output_dir):
    """The learner, or one for as many unlabeled images as a checkpoint is of.

    Args:
      learner: built for the images found now.
      build: a function that builds one for a number of them, `unlabeled`.
      wanted, output_dir: see `restore_learner`.

    Raises:
      CheckpointError: see `saved_unlabeled`.
    """
    saved = saved_unlabeled(learner, wanted, output_dir)
    return learner if saved is None else build(unlabeled=saved)


def checkpoints_of(wanted, output_dir):
    """The checkpoints that may be restored, the first choice first.

    Args:
      wanted, output_dir: see `restore_learner`.

    Raises:
      CheckpointError: if `wanted` is a path that leads to none.
    """
    if wanted not in OWN_CHECKPOINTS:
        return [find_checkpoint(wanted)]
    name = BEST_FOLDER if wanted == "best" else FOLDER
    return checkpoint_paths(os.path.join(output_dir, name))[::-1]


def restore_start(learner, config, checkpoints, *, fresh, class_names=()):
    """Restores what training starts from, if anything.

    That is the run's latest checkpoint; if it has none, load_checkpoint.

    Args:
      learner: a compiled `Learner` with its first weights.
      config: `Config` of the run.
      checkpoints: `Checkpoints` of the learner.
      fresh: whether to ignore the run that output_dir holds.
      class_names: of the run, in the order of their numbers; () if unknown.

    Returns:
      The step to go on from.

    Raises:
      CheckpointError: if a checkpoint cannot be read or does not fit.
      ConfigError: if the reset would delete the given one, or if that is of
        other classes, or of a step at which the run is over.
    """
    if not fresh and checkpoints.restore_latest() is not None:
        return int(learner.step.numpy())
    if fresh:
        _warn_of_reset(checkpoints, config)
    path = config.load_checkpoint
    if path:
        _check_classes(path, class_names)
        _load(learner, config)
    start = int(learner.step.numpy())
    if start >= config.num_train_steps:  # Never from output_dir.
        raise ConfigError(
            f"--load_checkpoint={path} is of step {start}, and "
            f"--num_train_steps={config.num_train_steps} ends there: nothing "
            "would be learned. Give more steps, or count from 0 with "
            "--load_checkpoint_and_restart_global_step."
        )
    return start


def _check_classes(path, class_names):
    if not has_classes(path, class_names):
        raise ConfigError(
            f"--load_checkpoint={path} is of a run with other classes than "
            f"{listed(class_names)}. Begin with its student instead, whose "
            f"last layer is then new: --student_weights={path}."
        )


def _load(learner, config):
    """Loads load_checkpoint, one of ours or of the release."""
    path = config.load_checkpoint
    restart = config.load_checkpoint_and_restart_global_step
    if is_own_checkpoint(find_checkpoint(path)):
        restore_learner(learner, path, config.output_dir)
        if restart:
            learner.set_step(0)
    else:
        report = load_release_variables(
            learner, path, restart_global_step=restart
        )
        logging.warning("%s: %s", path, report)


def _warn_of_reset(checkpoints, config):
    """Names the run to delete; refuses to delete what is to be loaded."""
    folder, path = config.output_dir, config.load_checkpoint
    saved = checkpoints.paths()
    if saved:
        logging.warning(
            "--reset_output_dir deletes the run in %s, with %s. To resume a "
            "run, say --noreset_output_dir.",
            folder,
            os.path.basename(saved[-1]),
        )
    if path and is_inside(path, folder):
        raise ConfigError(
            f"--load_checkpoint={path} is in the folder that "
            "--reset_output_dir would empty: name another --output_dir, or "
            "say --noreset_output_dir."
        )
