"""What a run left in its folder, and what to run next; for a terminal."""

import os

from meta_pseudo_labels.checkpoint_files import (
    BEST_FOLDER,
    FOLDER,
    checkpoint_paths,
)
from meta_pseudo_labels.run_folder import FINETUNE

_NEXT = {"train": "finetune", "finetune": "eval", "eval": "export"}
_FILES = (
    ("metrics.jsonl", "the logged steps and evaluations"),
    ("events", "the same for TensorBoard: tensorboard --logdir={folder}"),
)


def closing_summary(config):
    """The files of a stage, a line each, and the command of the next one.

    Args:
      config: `Config` of a stage that has ended, one of train, finetune, eval.
    """
    folder = config.output_dir
    lines = []
    if config.task_mode == "train":
        for name in (FOLDER, BEST_FOLDER):
            paths = checkpoint_paths(os.path.join(folder, name))
            steps = ", ".join(map(os.path.basename, paths))
            lines += [(name, steps)] if paths else []
    if config.task_mode == "finetune":
        folder = os.path.join(folder, FINETUNE)
        lines.append(("*.weights.h5", "the finetuned student"))
    if config.task_mode == "eval":
        lines.append(("eval.json", "these accuracies"))
    else:
        lines += [
            (name, what.format(folder=folder))
            for name, what in _FILES
            if os.path.exists(os.path.join(folder, name))
        ]
    text = "".join(f"  {name:14s} {what}\n" for name, what in lines)
    return (
        f"{text}Next: python main.py --task_mode={_NEXT[config.task_mode]} "
        f"--output_dir={config.output_dir}"
    )
