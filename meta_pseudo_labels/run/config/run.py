"""Settings of a run as a whole: what to do, and where."""

import dataclasses

from meta_pseudo_labels.utils.settings import setting


def stages():
    """The task modes; imported late, as they import all that they need."""
    from meta_pseudo_labels.run.stages import STAGES

    return STAGES


OWN_CHECKPOINTS = "latest", "best"  # Of a run; --from_checkpoint names them.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What to do, and where."""

    task_mode: str = setting(
        "train",
        "What to do with output_dir; by default train. eval evaluates one "
        "checkpoint, evals all that were not evaluated yet, and eval_forever "
        "goes on until the training alongside it is done. inference predicts "
        "many images, see docs/inference.md.",
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
        "Before training, delete the run in output_dir, including its "
        "checkpoints. Files that no run wrote stay.",
        free=True,
    )
    allow_hparam_change: bool = setting(
        False,
        "Resume the run in output_dir even if settings differ from its own.",
        free=True,
    )
    save_every: int = setting(
        1_000,
        "Steps between checkpoints, each with an evaluation.",
        low=1,
        free=True,
    )
    max_to_keep: int = setting(
        3,
        "Number of checkpoints to keep, besides the best one.",
        low=1,
        free=True,
    )
    best_on: str = setting(
        "validation",
        "Images on which the best checkpoint is chosen: validation, those of "
        "--num_validation, if there are any; or test, whose accuracy then no "
        "longer tells how good the network is on images it has not seen.",
        choices=("validation", "test"),
    )
    from_checkpoint: str = setting(
        "latest",
        "Checkpoint that the stages after training start from: latest or best "
        "of the run, or a path.",
        free=True,
    )
    stop_after_bad_steps: int = setting(
        100,
        "Number of updates skipped in a row, because they are not finite, "
        "after which training stops.",
        low=1,
        free=True,
    )
    progress: bool = setting(
        True,
        "Show progress: a bar on a terminal, lines elsewhere.",
        free=True,
    )
    progress_seconds: float = setting(
        30.0,
        "Seconds between two lines of progress if there is no terminal.",
        low=0,
        free=True,
    )
    log_format: str = setting(
        "text",
        "Format of standard output: text, or json for log collectors, with "
        "one object per line.",
        choices=("text", "json"),
        free=True,
    )
    plugins: str = setting(
        "",
        "Modules to import first, separated by commas. What they register, "
        "such as a method, a source or a network, can be named like the "
        "built-in ones.",
        free=True,
    )
    callbacks: str = setting(
        "",
        "Functions that make additional Keras callbacks for training and "
        "finetuning, separated by commas: each a module and a function in it "
        "that takes the Config, such as my_callbacks:tracker.",
        free=True,
    )

    load_checkpoint: str | None = setting(
        None,
        "Checkpoint to start from: one of the release, or of another run of "
        "this package. A run that has its own checkpoints resumes from those.",
    )
    load_checkpoint_and_restart_global_step: bool = setting(
        False, "After load_checkpoint, count steps from 0, not from its own."
    )
