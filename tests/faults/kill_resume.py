"""Kills runs at random moments, starts them again, compares with undisturbed.

    python -m tests.faults.kill_resume --kills 20 --seed 0 --json kills.json

Every kill is a run of its own on the digits: SIGKILL at a moment drawn evenly
between the time its settings are on disk and its end, which may be before the
first checkpoint or while one is written. The same command again must end it as
if nothing had happened: all variables bit for bit, all rows and events once, no
file left over. The kills go through all methods and estimators in turn, and
finetuning. Exit status 1 where any run differs.
"""

import argparse
import dataclasses
import json
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

from tests.faults import runs
from tests.faults.comparison import newest_step, problems, scratch

COMMON = ("--deterministic", "--save_every=5")
VARIANTS = {
    "exact": ("--mpl_feedback=exact",),
    "supervised": ("--method=supervised",),
    "finetune": ("--method=supervised",),
    "uda": ("--method=uda",),
    "reinforce": ("--mpl_feedback=reinforce",),
    "reinforce_dot_product": ("--mpl_feedback=reinforce_dot_product",),
    "reinforce_cosine": ("--mpl_feedback=reinforce_cosine",),
    "reinforce_per_example": ("--mpl_feedback=reinforce_per_example",),
    "release": ("--mpl_feedback=release",),
    "off": ("--mpl_feedback=off",),
}
_POLL_SECONDS = 0.002
_PATIENCE_SECONDS = 900


@dataclasses.dataclass
class Job:
    """What is killed, and what it is compared with.

    Attributes:
      flags: of the command.
      undisturbed: folder of a run of them that nothing happened to.
      seconds: from its beginning to its end.
      finetunes: whether it goes on with the trained run in `trained`.
    """

    flags: tuple
    undisturbed: pathlib.Path
    seconds: float = 0.0
    trained: pathlib.Path | None = None

    def start(self, folder):
        """The command in a process; the folder may hold a part of the run."""
        if self.trained is not None and not folder.exists():
            shutil.copytree(self.trained, folder)
        return runs.start(folder, *self.flags)

    def first_file(self, folder):
        """What says that it has begun; None before that."""
        if self.trained is not None:
            return next(folder.glob("finetune/from-step-*.json"), None)
        return next(folder.glob("hparams.json"), None)

    def last_file(self, folder):
        """What says that it has ended; None before that."""
        if self.trained is not None:
            return next(folder.glob("finetune/from-step-*.weights.h5"), None)
        return next(folder.glob("done"), None)

    def checkpoints(self, folder):
        """Folder of the checkpoints, which may be missing."""
        if self.trained is None:
            return folder / "checkpoints"
        return next(folder.glob("finetune/from-step-*/checkpoints"), folder)

    def take_time(self):
        """Takes the time of the undisturbed run, which has ended."""
        first, last = (
            get(self.undisturbed).stat().st_mtime
            for get in (self.first_file, self.last_file)
        )
        self.seconds = last - first


def make_job(folder, variant, *flags):
    """A job and its undisturbed run, which takes place now.

    Args:
      folder: for runs; takes one of the variant's name.
      variant: one of `VARIANTS`.
      *flags: beside the variant's, which they win over.
    """
    folder = pathlib.Path(folder, variant)
    folder.mkdir()
    job = Job((*COMMON, *VARIANTS[variant], *flags), folder / "undisturbed")
    if variant == "finetune":
        trained = folder / "trained"
        _finish(job.start(trained), trained)
        more = ("--task_mode=finetune", "--finetune_steps=150")
        job = Job((*job.flags, *more), job.undisturbed, trained=trained)
    _finish(job.start(job.undisturbed), job.undisturbed)
    job.take_time()
    return job


def kill_and_resume(job, folder, choose):
    """One kill at a random moment of a run, and the run to its end after it.

    Args:
      job: `Job`.
      folder: of the run; does not exist yet.
      choose: `random.Random`.

    Returns:
      A dict for JSON: when it was, what the kill left, what is wrong now.
    """
    folder = pathlib.Path(folder)
    longest, moment = job.seconds, None
    while moment is None:  # A run that ended before its kill does not count.
        shutil.rmtree(folder, ignore_errors=True)
        seconds = choose.uniform(0, longest)
        longest, moment = kill(job, folder, seconds)
    left = {
        "seconds": round(moment, 3),
        "newest_checkpoint": newest_step(job.checkpoints(folder)),
        "half_written": [x for x in scratch(folder) if "lock" not in x],
    }
    status = job.start(folder).wait(timeout=_PATIENCE_SECONDS)
    if status:
        wrong = [f"exit status {status}: {runs.said(folder)[-500:]}"]
    else:
        wrong = problems(folder, job.undisturbed)
    return {**left, "identical": not wrong, "problems": wrong}


def kill(job, folder, seconds):
    """Kills a run some seconds after it has begun.

    Returns:
      The longest time to wait in another try, and the seconds to the kill;
      None for these where the run had ended by then.
    """
    process = job.start(folder)
    _wait(lambda: job.first_file(folder), process)
    begun, ended = time.monotonic(), job.last_file
    while time.monotonic() - begun < seconds and not ended(folder):
        time.sleep(_POLL_SECONDS)
    process.kill()
    passed = time.monotonic() - begun
    status = process.wait()
    if ended(folder) or status != -signal.SIGKILL:
        return min(seconds, passed), None
    return seconds, passed


def run_kills(folder, *, kills, seed, variants=tuple(VARIANTS)):
    """Kills runs of variants in turn; returns what happened, a dict."""
    choose, jobs, moments = random.Random(seed), {}, []
    for number in range(kills):
        name = variants[number % len(variants)]
        if name not in jobs:
            jobs[name] = make_job(folder, name)
        run = pathlib.Path(folder, name, f"killed-{number}")
        moments.append({"variant": name})
        moments[-1] |= kill_and_resume(jobs[name], run, choose)
        print(json.dumps(moments[-1]), file=sys.stderr, flush=True)
        if moments[-1]["identical"]:
            shutil.rmtree(run)
    return summary(moments, seed=seed)


def summary(moments, *, seed):
    """Counts of what `kill_and_resume` found, a dict for JSON."""
    return {
        "kills": len(moments),
        "identical": sum(moment["identical"] for moment in moments),
        "seed": seed,
        "before_a_checkpoint": sum(
            moment["newest_checkpoint"] is None for moment in moments
        ),
        "while_writing": sum(bool(m["half_written"]) for m in moments),
        "moments": moments,
    }


def _wait(condition, process):
    """Waits until something is so, or a process has ended.

    Raises:
      RuntimeError: where that takes too long.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition() and process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
            raise RuntimeError("A run does not get on.")
        time.sleep(_POLL_SECONDS)


def _finish(process, folder):
    status = process.wait(timeout=_PATIENCE_SECONDS)
    if status:
        raise RuntimeError(f"Exit status {status}: {runs.said(folder)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=tuple(VARIANTS)
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run_kills(
            folder,
            kills=arguments.kills,
            seed=arguments.seed,
            variants=arguments.variants,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['identical']} of {result['kills']} kills left no trace.")
    sys.exit(0 if result["identical"] == result["kills"] else 1)


if __name__ == "__main__":
    main()
