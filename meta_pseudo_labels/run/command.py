"""One command of the command line, from its flags to an exit status."""

import sys

import tensorflow as tf
from absl import app, flags, logging

from meta_pseudo_labels.run import json_lines
from meta_pseudo_labels.run.config.flags import (
    config_from_flags,
    define_flags,
    flag_warnings,
)
from meta_pseudo_labels.run.data import input_errors
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.flag_table import (
    asks_for_help,
    at_home,
    end_with_help,
    parse_flags,
    table,
)
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.run.stopping import (
    Diverged,
    Interrupted,
    signals_interrupt,
)
from meta_pseudo_labels.utils.checkpoint_files import (
    CheckpointError,
    first_line,
)
from meta_pseudo_labels.utils.plugins import failure_within
from meta_pseudo_labels.utils.quiet import PlainLines
from meta_pseudo_labels.utils.settings import ConfigError
from meta_pseudo_labels.utils.signals import EXIT_INTERRUPTED

FLAGS = flags.FLAGS

# What `main` explains, even if it was raised below a plug-in's code.
_TOLD = (
    CheckpointError,
    ConfigError,
    Diverged,
    Interrupted,
    MemoryError,
    OSError,
    tf.errors.OpError,
)


def run(config):
    """Runs the task that the settings name, and prints what it wrote."""
    experiment = Experiment(config)
    try:
        with input_errors(experiment):
            STAGES[config.task_mode].run(experiment)
    except _TOLD:
        raise
    except Exception as error:
        failure = failure_within(config.plugins, error)
        if failure is None:
            raise
        raise failure from error


def run_command(arguments, *, typed):
    """Runs what the parsed flags ask for; see `main`."""
    if len(arguments) > 1:
        raise ConfigError(
            f"Unexpected argument {arguments[1]!r}; settings are flags, "
            "such as --method=mpl."
        )
    if FLAGS.log_format == "json":
        json_lines.begin()
    if FLAGS.task_mode in STAGES:
        STAGES[FLAGS.task_mode].wait(at_home(FLAGS.output_dir))
    config = config_from_flags()
    if config.log_format == "json":  # After training, the run's counts too.
        json_lines.begin()
    for line in flag_warnings(config, arguments=typed):
        print(f"Warning: {line}", file=sys.stderr)
    run(config)


def main(arguments, *, typed=()):
    """Runs a command, and ends with a message if it cannot be done.

    Args:
      arguments: what absl leaves of the command line: the program, and words
        that are not flags.
      typed: the command line as it was typed, without the flags of recipes.

    Raises:
      SystemExit: with a message on what the user can fix; with 75 if the same
        command goes on.
    """
    if logging.get_verbosity() < logging.DEBUG:  # Otherwise --verbosity=1 asks.
        logging.set_verbosity(logging.WARNING)
        logging.get_absl_handler().setFormatter(PlainLines())
    try:
        with signals_interrupt():
            run_command(arguments, typed=typed)
    except (CheckpointError, ConfigError, Diverged) as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        if error.filename is None:  # There is no file to name.
            raise
        sys.exit(f"Error: {error.filename}: {error.strerror}.")
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        sys.exit(
            f"Error: there is too little memory: {first_line(error)}. Use a "
            "smaller batch, image or network."
        )
    except tf.errors.PermissionDeniedError as error:
        sys.exit(f"Error: {first_line(error)}.")
    except tf.errors.OpError as error:
        if "gs://" not in str(error):
            raise
        sys.exit(
            f"Error: {' '.join(str(error).split())}. Does the bucket exist, "
            "and may you read it? If not, mount it (gcsfuse), and give its "
            "path."
        )
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def start(program, arguments, *, typed, task_mode=None):
    """Defines the flags, parses them, and runs the command.

    Args:
      program: its name, for messages.
      arguments: the flags.
      typed: see `main`.
      task_mode: wins over the flags if it is not None.
    """
    try:
        define_flags(arguments=arguments)
    except ConfigError as error:
        sys.exit(f"Error: {error}")
    if task_mode is not None and asks_for_help(arguments):
        end_with_help(task_mode, table())

    def started(rest):
        # Not earlier: flagfiles may name a task mode too, as the release's do.
        if task_mode is not None:
            FLAGS.task_mode = task_mode
        main(rest, typed=typed)

    app.run(started, argv=[program, *arguments], flags_parser=parse_flags)
