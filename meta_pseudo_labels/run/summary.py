"""What a run left in its folder, and what to run next; for a terminal."""

import os

from meta_pseudo_labels.run.folder import (
    EVAL,
    EVAL_CONFUSION,
    EVAL_RELIABILITY,
    EVAL_REPORT,
    FINETUNE,
)
from meta_pseudo_labels.run.test_images import results_folder
from meta_pseudo_labels.utils.checkpoint_files import (
    BEST_FOLDER,
    FOLDER,
    checkpoint_paths,
)

_NEXT = {"train": "finetune", "finetune": "eval", "eval": "export"}
_EVAL_FILES = (
    (EVAL, "these accuracies"),
    (EVAL_REPORT, "all metrics, of every class too"),
    (EVAL_CONFUSION, "confusion matrices"),
    (EVAL_RELIABILITY, "calibration"),
)
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
        folder = results_folder(config)
        lines += [
            (os.path.relpath(path, config.output_dir), what)
            for name, what in _EVAL_FILES
            if os.path.exists(path := os.path.join(folder, name))
        ]
    else:
        lines += [
            (name, what.format(folder=folder))
            for name, what in _FILES
            if os.path.exists(os.path.join(folder, name))
        ]
    width = max([14, *(len(name) for name, _ in lines)])
    text = "".join(f"  {name:{width}s} {what}\n" for name, what in lines)
    return (
        f"{text}Next: python main.py --task_mode={_NEXT[config.task_mode]} "
        f"--output_dir={config.output_dir}"
    )
