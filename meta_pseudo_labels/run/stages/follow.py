"""Evaluates each checkpoint of a run once, while the run trains.

These are the release's tasks `evals` and `eval_forever`. A separate process
reads the checkpoints that the training process writes. It leaves in the run's
folder

    evals/metrics.jsonl, evals/events   accuracies by step
    evals/images.json                   a hash of the images of each part
    acc                                 the latest and the best one, as JSON
"""

import json
import os
import time

from absl import logging

from meta_pseudo_labels.data.class_distributions import images_digest
from meta_pseudo_labels.evaluation.evaluate import accuracies
from meta_pseudo_labels.run.checkpoints import Checkpoints
from meta_pseudo_labels.run.folder import ACCURACY, EVALS, HPARAMS, RunFolder
from meta_pseudo_labels.run.metrics_log import MetricsFiles, read_rows
from meta_pseudo_labels.run.restoring import learner_state
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.utils.checkpoint_files import DamagedCheckpoint, step_of
from meta_pseudo_labels.utils.files import (
    locked,
    read_object,
    reports_full_disk,
    write_whole,
)
from meta_pseudo_labels.utils.settings import ConfigError

IMAGES = "images.json"  # In EVALS.
SECONDS_BETWEEN_LOOKS = 5.0


@STAGES.register("evals")
class FollowOnce(Stage):
    help = "Evaluate all checkpoints that have not been evaluated yet."
    forever = False
    files = (
        RunFile(EVALS, "accuracies of every checkpoint"),
        RunFile(ACCURACY, "those of the latest and the best one"),
    )

    @classmethod
    def run(cls, experiment):
        for row in experiment.follow(forever=cls.forever):
            print(evaluation_line(row), flush=True)


@STAGES.register("eval_forever")
class FollowForever(FollowOnce):
    help = "Evaluate every checkpoint until the run has finished training."
    forever = True
    files = ()  # Those of evals.

    @staticmethod
    def wait(output_dir):
        wait_for_run(output_dir)


def evaluation_line(row):
    """The accuracies of one checkpoint, as a line."""
    names = [name for name in row if name != "step"]
    values = "  ".join(
        f"{name.removeprefix('eval/')} {row[name]:.4f}" for name in names
    )
    return f"step {row['step']}  {values}"


def follow(learner, folder, datasets, *, digests, forever, best_on):
    """Evaluates the checkpoints of a run that have not been evaluated yet.

    Both the student with its averaged weights and the student itself.

    Args:
      learner: a compiled `Learner`.
      folder: `RunFolder`.
      datasets: the data to evaluate on, by name: "test" or "validation".
      digests: see `digests_of`.
      forever: whether to wait for the checkpoints that are still to come,
        until the run is done.
      best_on: name of the data set that decides which one is best.

    Yields:
      For each checkpoint a dict: "step" and accuracies by name.

    Raises:
      ConfigError: if another process is doing the same, or earlier rows are of
        other images.
    """
    evals = folder.path(EVALS)
    with reports_full_disk(evals), locked(evals), MetricsFiles(evals) as files:
        rows = {row["step"]: row for row in read_rows(files.path)}
        known = _same_images(os.path.join(evals, IMAGES), digests, rows)
        for step in _restored(learner, folder, set(rows), forever):
            rows[step] = {"step": step, **_accuracies(learner, datasets)}
            write_whole(os.path.join(evals, IMAGES), json.dumps(known) + "\n")
            files.write(rows[step])
            text = _accuracy(rows, latest=step, best_on=best_on)
            write_whole(folder.path(ACCURACY), text)
            yield rows[step]


def digests_of(images, parts):
    """{part: `images_digest`} of parts, such as "test", of a run's images."""
    return {
        part: images_digest(
            getattr(images, f"{part}_images"),
            getattr(images, f"{part}_labels", None),
        )
        for part in parts
    }


def _same_images(path, digests, rows):
    """Refuses images that are not those of the rows.

    Args:
      path: of the file that says which these are.
      digests: see `digests_of`.
      rows: earlier accuracies, {step: row}.

    Returns:
      What the file is to say.

    Raises:
      ConfigError: for others, or if the file cannot be read.
    """
    if not rows or not os.path.exists(path):  # Runs of old have no such file.
        return digests
    mend = "To evaluate all checkpoints anew, move that folder away."
    known = read_object(path, "hashes of evaluated images", mend=mend)
    for name, digest in digests.items():
        if known.get(name, digest) != digest:
            raise ConfigError(
                f"The {name} images are not those of the accuracies in "
                f"{os.path.dirname(path)}: a table of both would compare "
                f"nothing. Restore them. {mend}"
            )
    return known | digests


def wait_for_run(output_dir):
    """Waits until the training to follow has begun."""
    if not output_dir:
        return
    path = RunFolder(output_dir).path(HPARAMS)
    if not os.path.exists(path):
        print(f"Waiting for a run in {output_dir}.", flush=True)
    while not os.path.exists(path):
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _restored(learner, folder, seen, forever):
    """Restores one checkpoint after another, oldest first; yields its step.

    Args:
      seen: the set of steps to leave out.
    """
    checkpoints = Checkpoints(learner_state(learner), folder)
    while True:
        # Checked before listing: if it is done, the list will be complete.
        done = not forever or folder.is_done()
        fresh = [p for p in checkpoints.paths() if step_of(p) not in seen]
        if not fresh and done:
            return
        if not fresh:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            continue
        path = fresh[0]
        seen.add(step_of(path))
        try:
            checkpoints.restore(path)
        except DamagedCheckpoint as error:
            if os.path.exists(f"{path}.index"):  # If not, it was just deleted.
                logging.warning("%s It is left out.", error)
        else:
            yield step_of(path)


def _accuracies(learner, datasets):
    """Accuracies of the averaged student and of the student, by log name."""
    networks = {"student": learner, "student_raw": learner.student}
    return {
        f"eval/{name}/{network}": accuracy
        for name, dataset in datasets.items()
        for network, accuracy in accuracies(networks, dataset).items()
    }


def _accuracy(rows, *, latest, best_on):
    """The text of `acc`: accuracies of the latest and the best checkpoint."""
    name = f"eval/{best_on}/student"
    rated = [row for row in rows.values() if name in row]
    best = max(rated, key=lambda row: row[name])
    found = {
        "images": best_on,
        "step": latest,
        "accuracy": rows[latest][name],
        "best_step": best["step"],
        "best_accuracy": best[name],
    }
    return json.dumps(found) + "\n"
