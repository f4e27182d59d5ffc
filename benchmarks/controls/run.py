"""Every method over seeds on real images: what does the feedback add?

    python -m benchmarks.controls.run digits --seeds=10 --jobs=2
    python -m benchmarks.controls.run cifar10 --seeds=3 --data_dir=data/tfds
    python -m benchmarks.controls.run where --seeds=10 --select
    python -m benchmarks.controls.run where_cifar10 --data_dir=data/tfds
    python -m benchmarks.controls.run parts --data_dir=data/tfds
    python -m benchmarks.controls.run audit --seeds=10 --first_seed=13
    python -m benchmarks.controls.run pretrained --weights=lite0.weights.h5
    python -m benchmarks.controls.run fast --data_dir=data/tfds

Appends one JSON line per run to a file, by default in benchmarks/results. Runs
already there, with the same settings, are not repeated: an interrupted command
continues where it stopped. Prints a table, and the gain of each run over MPL
without feedback, over UDA and over supervised learning, on common seeds.
"""

import argparse
import concurrent.futures
import dataclasses
import multiprocessing
import os
import pathlib
import signal
import sys
import traceback
from concurrent.futures.process import BrokenProcessPool

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.common.arguments import (
    absolute,
    positive,
)
from benchmarks.common.machine import RESULTS, ROOT
from benchmarks.controls import rows as control_rows
from benchmarks.controls import runs as control_runs
from benchmarks.controls import tables as control_tables
from benchmarks.controls.suites import SUITES
from benchmarks.controls.weights import add_weights, check_weights, with_weights
from meta_pseudo_labels.utils.settings import ConfigError


@dataclasses.dataclass(frozen=True)
class Task:
    """One run with one seed.

    Attributes:
      run: its name in the suite.
      settings: its `Config`.
      teacher: `Config` of the fixed teacher, if the run learns from one.
    """

    run: str
    settings: object
    teacher: object = None

    def __str__(self):
        settings = self.settings
        return (
            f"{self.run}, {settings.num_labeled} labels, seed {settings.seed}"
        )


def main(arguments=None):
    arguments = _parse_arguments(arguments)
    os.chdir(ROOT)  # Flagfiles name one another relative to it.
    suite = SUITES[arguments.suite]
    split = control_rows.VALIDATION if arguments.select else control_rows.TEST
    try:
        tasks = list_tasks(suite, arguments)
        rows = control_rows.read(arguments.json)
    except (ConfigError, ValueError) as error:
        sys.exit(f"controls: {error}")

    def rows_of(task):
        return control_rows.find(
            rows, task.run, task.settings, split=split, teacher=task.teacher
        )

    left = [task for task in tasks if not rows_of(task)]
    print(f"{len(tasks)} runs, {len(left)} of them to do.", flush=True)
    failures = 0
    for task, row in run_all(left, arguments):
        if row is None:
            failures += 1
            continue
        control_rows.append(row, arguments.json)
        rows.append(row)
        print(f"{task}: {_in_words(row)}", flush=True)
    done = [row for task in tasks for row in rows_of(task)[-1:]]
    print(control_tables.as_text(done, runs=suite.runs))
    if failures:
        sys.exit(f"{failures} of {len(left)} runs failed; see above.")


def list_tasks(suite, arguments):
    """The runs that were asked for, seed by seed.

    In this order an interrupted table has whole seeds, which can be paired.

    Raises:
      ConfigError: if the settings of a run are not valid.
    """
    places = {"data_dir": arguments.data_dir}
    first = arguments.first_seed
    tasks = []
    for num_labeled in arguments.num_labeled or suite.num_labeled:
        for seed in range(first, first + arguments.seeds):
            choice = dict(num_labeled=num_labeled, seed=seed, **places)
            for name in arguments.runs or suite.usual_runs:
                run = suite.runs[name]
                settings, teacher = (
                    one and _as_asked(one.settings(**choice), arguments)
                    for one in (run, run.teacher)
                )
                task = Task(name, settings, teacher)
                if task not in tasks:  # Some runs set num_labeled.
                    tasks.append(task)
    return tasks


def _as_asked(settings, arguments):
    """A `Config` with the weights, steps and precision that were asked for."""
    given = {}
    if arguments.steps:
        given["num_train_steps"] = arguments.steps
    if arguments.bfloat16:
        given["use_bfloat16"] = True
    settings = with_weights(settings, arguments.weights)
    return dataclasses.replace(settings, **given) if given else settings


def run_all(tasks, arguments):
    """Yields (task, row) as runs end, (task, None) for one that failed."""
    if not tasks:
        return
    cores = _cores()
    pool = concurrent.futures.ProcessPoolExecutor(
        max_workers=min(arguments.jobs, len(tasks)),
        # A fork would not survive TensorFlow's threads.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=control_runs.use_threads,
        initargs=(max(1, cores // arguments.jobs),),
    )
    futures = {
        pool.submit(
            control_runs.measure,
            task.run,
            task.settings,
            teacher=task.teacher,
            select=arguments.select,
        ): task
        for task in tasks
    }
    try:
        for future in concurrent.futures.as_completed(futures):
            task = futures[future]
            try:
                yield task, future.result()
            except ConfigError as error:
                print(f"{task} failed: {error}", file=sys.stderr)
                yield task, None
            except BrokenProcessPool:  # It ends all other runs too.
                sys.exit(
                    "controls: the process of a run was killed, as Linux "
                    "does when memory is short (fewer --jobs take less). "
                    "Finished runs are in the file of rows; the same command "
                    "continues from there."
                )
            except Exception as error:  # One run must not end the others.
                print(f"{task} failed:", file=sys.stderr)
                traceback.print_exception(error)
                yield task, None
    finally:
        if not all(future.done() for future in futures):  # Interrupted.
            for process in multiprocessing.active_children():
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _cores():
    """Cores that this process may use: fewer under taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_words(row):
    teacher = row["accuracy_teacher"]
    return (
        f"{100 * row['accuracy']:.2f}, finetuned "
        f"{100 * row['accuracy_finetuned']:.2f}"
        + ("" if teacher is None else f", teacher {100 * teacher:.2f}")
        + f", {row['train_seconds']:.0f} s"
    )


def _parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n\n".join(map(_runs_in_words, SUITES)),
    )
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--seeds", type=positive, default=3, help="how many")
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument(
        "--num_labeled", type=positive, nargs="+", help="labels in all"
    )
    parser.add_argument("--runs", nargs="+", metavar="RUN", help="names")
    parser.add_argument(
        "--jobs", type=positive, default=1, help="runs at a time"
    )
    parser.add_argument(
        "--data_dir", type=absolute, help="folder of sets prepared by TFDS"
    )
    add_weights(parser)
    parser.add_argument(
        "--steps",
        type=positive,
        help="steps of training, for a trial; needs --json",
    )
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="compute in bfloat16, on a processor with instructions for it",
    )
    parser.add_argument(
        "--select",
        action="store_true",
        help="classify images of the unlabeled pool, not the test images, to "
        "choose settings",
    )
    parser.add_argument(
        "--json",
        type=pathlib.Path,
        help="file of rows to continue and append to; by default the suite's "
        "file in benchmarks/results",
    )
    parsed = parser.parse_args(arguments)
    _check(parser, parsed)
    parsed.json = parsed.json or RESULTS / SUITES[parsed.suite].rows
    parsed.json = parsed.json.resolve()
    return parsed


def _check(parser, parsed):
    """Ends the program if arguments do not fit together."""
    suite = SUITES[parsed.suite]
    unknown = [run for run in parsed.runs or () if run not in suite.runs]
    if unknown:
        parser.error(
            f"--runs: {unknown[0]!r} is not a run of {parsed.suite}; use some "
            f"of {', '.join(map(repr, suite.runs))}."
        )
    if parsed.steps and not parsed.json:
        parser.error(
            "--steps makes rows of another recipe: name a file of their own "
            "with --json."
        )
    check_weights(parser, parsed, parsed.suite, needs=suite.pretrained)


def _runs_in_words(suite_name):
    suite = SUITES[suite_name]
    labels = ", ".join(map(str, suite.num_labeled))
    return "\n  ".join([f"{suite_name}, {labels} labels:", *suite.runs])


if __name__ == "__main__":
    # Like an interrupt from the keyboard, it ends the runs' processes too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
