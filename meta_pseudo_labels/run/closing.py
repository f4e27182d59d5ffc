"""What a stage left in the run's folder, and what to run next; as text."""

import glob
import os
import shlex

from meta_pseudo_labels.data import inspection
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.run.folder import FINETUNE
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.utils.checkpoint_files import checkpoint_paths
from meta_pseudo_labels.utils.settings import command_for


def following(config):
    """The task mode that usually follows the present one; None for none.

    Args:
      config: has `task_mode`, and the `method` of the run.
    """
    stage = STAGES[config.task_mode]
    if stage.trains and not _wants_finetuning(config):
        return "eval"
    return stage.next


def _wants_finetuning(config):
    """Whether the student has not learned from true labels yet."""
    if config.method not in LEARNERS:  # Of a plug-in that is not here.
        return True
    return LEARNERS[config.method].has_feedback


def closing_summary(experiment):
    """The files of a stage, a line each, the next command, skipped images.

    Args:
      experiment: `Experiment` whose task mode has ended.
    """
    config = experiment.config
    stage = STAGES[config.task_mode]
    folder = stage.results_folder(config)
    names = [
        (os.path.relpath(path, config.output_dir), _content(path) or file.what)
        for file in stage.files
        if file.shown
        and glob.glob(path := os.path.join(glob.escape(folder), file.path))
    ]
    width = max([14, *(len(name) for name, _ in names)])
    lines = [f"  {name:{width}s} {what}" for name, what in names]
    task_mode = following(config)
    if task_mode == "export" and _wants_finetuning(config):
        found = os.path.join(glob.escape(config.output_dir), FINETUNE, "*.h5")
        task_mode = task_mode if glob.glob(found) else "finetune"
    if task_mode is not None:
        lines.append(f"Next: {command_for(task_mode, config.output_dir)}")
    skipped = inspection.skip_summary(experiment.data)
    if skipped:
        lines.append(f"In the data {skipped}.")
    return "\n".join(lines)


def _content(path):
    """What a folder has: its checkpoints, or how to look at its events."""
    if os.path.basename(path) == "events":
        logdir = shlex.quote(path)
        return f"the same for TensorBoard: tensorboard --logdir={logdir}"
    return ", ".join(map(os.path.basename, checkpoint_paths(path)))
