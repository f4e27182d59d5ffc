"""Settings of a run as a whole: what is done, and where to."""

import dataclasses

from meta_pseudo_labels.utils.settings import setting


def stages():
    """The task modes; asked for late, as they import all that they need."""
    from meta_pseudo_labels.run.stages import STAGES

    return STAGES


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What is done, and where to."""

    task_mode: str = setting(
        "train",
        "What to do with output_dir; by default train. eval looks at one "
        "checkpoint, evals at all that were not looked at yet, and "
        "eval_forever goes on until the training beside it is done. "
        "inference predicts many images, see docs/inference.md.",
        choices=stages,
        flag_default=None,
        free=True,
    )

    # The folder of the run.
    output_dir: str | None = setting(
        None, "Folder of the run: checkpoints, logs, results.", free=True
    )
    reset_output_dir: bool = setting(
        False,
        "Before training, delete the run that output_dir holds, its "
        "checkpoints too. Files that no run wrote stay.",
        free=True,
    )
    allow_hparam_change: bool = setting(
        False,
        "Go on with the run in output_dir though settings differ from its own.",
        free=True,
    )
    save_every: int = setting(
        1_000,
        "Steps between checkpoints, each with an evaluation.",
        low=1,
        free=True,
    )
    max_to_keep: int = setting(
        3, "Checkpoints to keep, beside the best one.", low=1, free=True
    )
    best_on: str = setting(
        "validation",
        "Images on which the best checkpoint is chosen: those of "
        "--num_validation, where there are any; or test, which then no longer "
        "tells how good the network is on images it has not seen.",
        choices=("validation", "test"),
    )
    from_checkpoint: str = setting(
        "latest",
        "What the stages after training begin with: the latest checkpoint of "
        "the run, the best one, or the path of one.",
        free=True,
    )
    stop_after_bad_steps: int = setting(
        100,
        "Updates in a row that are skipped, since they are not finite, before "
        "training stops.",
        low=1,
        free=True,
    )
    progress: bool = setting(
        True,
        "Show how far the run is: a bar on a terminal, lines elsewhere.",
        free=True,
    )
    progress_seconds: float = setting(
        30.0,
        "Seconds between two lines of progress, where there is no terminal.",
        low=0,
        free=True,
    )
    log_format: str = setting(
        "text",
        "How progress is told: text, or json for what collects logs, an "
        "object a line.",
        choices=("text", "json"),
        free=True,
    )
    plugins: str = setting(
        "",
        "Modules to import first, with commas between: what they register, "
        "such as a method, a source or a network, has names as if it were "
        "ours.",
        free=True,
    )
    callbacks: str = setting(
        "",
        "What makes more Keras callbacks for training and finetuning, with "
        "commas between: each a module and a function in it that takes the "
        "Config, such as my_callbacks:tracker.",
        free=True,
    )

    load_checkpoint: str | None = setting(
        None,
        "Checkpoint to begin from: of the release, or of another run of ours. "
        "A run that has checkpoints of its own goes on from these.",
    )
    load_checkpoint_and_restart_global_step: bool = setting(
        False, "Count steps from 0 after load_checkpoint, not from its own."
    )
