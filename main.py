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
    from meta_pseudo_labels.run.config.flags import (
        at_home,
        config_from_flags,
        define_flags,
        flag_warnings,
    )
    from meta_pseudo_labels.run.data import input_errors
    from meta_pseudo_labels.run.experiment import Experiment
    from meta_pseudo_labels.run.stages import STAGES
    from meta_pseudo_labels.run.stopping import (
        EXIT_INTERRUPTED,
        Diverged,
        Interrupted,
        signals_interrupt,
    )
    from meta_pseudo_labels.utils.checkpoint_files import CheckpointError
    from meta_pseudo_labels.utils.settings import ConfigError


FLAGS = flags.FLAGS


def run(config):
    """Runs the task that the settings name, and says what it left."""
    experiment = Experiment(config)
    with input_errors(experiment):
        STAGES[config.task_mode].run(experiment)


def run_command(arguments):
    """Runs what the command line asks for."""
    if len(arguments) > 1:
        raise ConfigError(
            f"Unexpected argument {arguments[1]!r}; settings are flags, "
            "such as --method=mpl."
        )
    if FLAGS.task_mode in STAGES:
        STAGES[FLAGS.task_mode].wait(at_home(FLAGS.output_dir))
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
    try:
        define_flags(arguments=sys.argv[1:])
    except ConfigError as error:
        sys.exit(f"Error: {error}")
    app.run(main)
