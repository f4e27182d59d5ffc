"""What a stage left in the run's folder, and what to run next; as text."""

import glob
import os
import shlex

from meta_pseudo_labels.data import inspection
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.run.folder import EVAL
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.utils.checkpoint_files import checkpoint_paths
from meta_pseudo_labels.utils.files import read_json
from meta_pseudo_labels.utils.settings import command_for


def following(config, *, is_finetuned=True):
    """The task mode that usually follows the present one; None for none.

    Args:
      config: has `task_mode`, and the `method` of the run.
      is_finetuned: False if the student was evaluated as training left it.
    """
    stage = STAGES[config.task_mode]
    if stage.trains and not _finetunes(config.method):
        return "eval"
    if stage.next == "export" and not is_finetuned:
        return "finetune" if _finetunes(config.method) else "export"
    return stage.next


def _finetunes(method):
    """Whether students of a method are usually finetuned.

    A student that learned from true labels needs no finetuning on them. A
    method that is not here, a plug-in's, may need it.
    """
    return method not in LEARNERS or LEARNERS[method].has_feedback


def closing_summary(experiment):
    """The files of a stage, one per line, the next command, skipped images.

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
    evaluated = _evaluated(folder)
    task_mode = following(
        config, is_finetuned=not evaluated or "finetuned" in evaluated
    )
    if task_mode is not None:
        lines.append(f"Next: {command_for(task_mode, config.output_dir)}")
    skipped = inspection.skip_summary(experiment.data)
    if skipped:
        lines.append(f"In the data {skipped}.")
    return "\n".join(lines)


def _evaluated(folder):
    """Names of the networks in the last evaluation; () without one."""
    try:
        return tuple(read_json(os.path.join(folder, EVAL)))
    except (OSError, ValueError, TypeError):
        return ()


def _content(path):
    """What a folder holds: its checkpoints, or how to view its events."""
    if os.path.basename(path) == "events":
        logdir = shlex.quote(path)
        return f"the same for TensorBoard: tensorboard --logdir={logdir}"
    return ", ".join(map(os.path.basename, checkpoint_paths(path)))
