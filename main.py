"""Trains, finetunes, evaluates, exports and predicts from the command line.

    python main.py --flagfile=flags/digits_mpl.flags --output_dir=runs/mpl

Run it again with --task_mode=finetune, eval or export. The same command again
goes on with a run that was cut off. Exit status: 0, done; 1, a setting, file or
run cannot be used, and a line says why; 75, a signal or the loss of another
worker ended training, its state is saved, and the same command goes on.
"""

import contextlib
import os
import sys

from absl import app, flags, logging


@contextlib.contextmanager
def quiet_start():
    """Keeps TensorFlow's notes at start-up from drowning our own lines.

    It writes some of them past Python and whatever the level of its logs.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


with quiet_start():
    from meta_pseudo_labels.data import inspection
    from meta_pseudo_labels.export.card import summary_lines
    from meta_pseudo_labels.run.config.flags import (
        at_home,
        config_from_flags,
        define_flags,
        flag_warnings,
    )
    from meta_pseudo_labels.run.data import input_errors
    from meta_pseudo_labels.run.experiment import Experiment
    from meta_pseudo_labels.run.folder import VIEWS
    from meta_pseudo_labels.run.stages.follow import wait_for_run
    from meta_pseudo_labels.run.stopping import (
        EXIT_INTERRUPTED,
        Diverged,
        Interrupted,
        signals_interrupt,
    )
    from meta_pseudo_labels.run.summary import closing_summary
    from meta_pseudo_labels.utils.checkpoint_files import CheckpointError
    from meta_pseudo_labels.utils.settings import ConfigError


FLAGS = flags.FLAGS


def run(config):
    """Runs the task that the settings name, and says what it left."""
    experiment = Experiment(config)
    with input_errors(experiment):
        run_task(experiment, config)
    if config.task_mode in ("train", "finetune", "eval"):
        skipped = inspection.skip_summary(experiment.data)
        if skipped:
            print(f"In the data {skipped}.")


def run_task(experiment, config):
    if config.task_mode == "train":
        print(f"Devices: {experiment.devices()}", flush=True)
        done = "Trained" if experiment.train() else "Was trained already"
        print(f"{done}: {config.output_dir}\n{closing_summary(config)}")
    elif config.task_mode == "finetune":
        done = "Finetuned" if experiment.finetune() else "Was finetuned already"
        print(f"{done}: {config.output_dir}\n{closing_summary(config)}")
    elif config.task_mode == "eval":
        print(experiment.judge().as_text())
        print(closing_summary(config))
    elif config.task_mode in ("evals", "eval_forever"):
        forever = config.task_mode == "eval_forever"
        for row in experiment.follow(forever=forever):
            print(evaluation_line(row), flush=True)
    elif config.task_mode == "inspect":
        print(experiment.inspect())
        views = f"{config.output_dir}/{VIEWS}"
        if os.path.exists(views):
            print(f"Views: {views}")
    elif config.task_mode == "diagnose":
        print(experiment.diagnose())
        print(f"Figure: {config.output_dir}/diagnosis.png")
    elif config.task_mode == "cache_labels":
        print(f"Cached: {experiment.cache_labels()}")
        print(f"For a student: --teacher_labels={config.output_dir}")
    elif config.task_mode == "inference":
        print(prediction_lines(experiment.infer()))
    else:
        path = experiment.export()
        network = "finetuned" if experiment.is_finetuned() else "student"
        print(f"Exported: {path} ({network})")
        for line in summary_lines(path):
            print(line)


def prediction_lines(predictions):
    """Where predictions are, and of how many images."""
    done = "Predicted" if predictions.is_new else "Was predicted already"
    broken = predictions.errors
    failed = f", {broken:,} of them in vain: see `error`" if broken else ""
    return (
        f"{done}: {predictions.images:,} images{failed}\n"
        f"  {predictions.csv}\n  {predictions.parquet}"
    )


def evaluation_line(row):
    """What one checkpoint reached."""
    names = [name for name in row if name != "step"]
    values = "  ".join(
        f"{name.removeprefix('eval/')} {row[name]:.4f}" for name in names
    )
    return f"step {row['step']}  {values}"


def run_command(arguments):
    """Runs what the command line asks for."""
    if len(arguments) > 1:
        raise ConfigError(
            f"Unexpected argument {arguments[1]!r}; settings are flags, "
            "such as --method=mpl."
        )
    if FLAGS.task_mode == "eval_forever":
        wait_for_run(at_home(FLAGS.output_dir))
    config = config_from_flags()
    for line in flag_warnings(config, arguments=sys.argv[1:]):
        print(f"Warning: {line}", file=sys.stderr)
    run(config)


def main(arguments):
    logging.set_verbosity(logging.WARNING)
    try:
        with signals_interrupt():
            run_command(arguments)
    except (CheckpointError, ConfigError, Diverged) as error:
        sys.exit(f"Error: {error}")
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    define_flags()
    app.run(main)
