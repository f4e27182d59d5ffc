"""One control run in a process of its own: train, finetune, evaluate."""

import dataclasses
import functools
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import meta_pseudo_labels
from benchmarks.common.machine import cpu_model, revision
from benchmarks.controls import rows as control_rows
from meta_pseudo_labels.run import data
from meta_pseudo_labels.run.experiment import Experiment

POOL_IMAGES = 5_000  # At most this many are classified for --select.
POOL_SEED = 2003
REVISION = revision()  # Of the running code: the checkout may change.


def use_threads(count):
    """Gives TensorFlow `count` threads; call once, before it is used."""
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def measure(run, settings, *, teacher=None, select=False):
    """Trains, finetunes and evaluates.

    Args:
      run: its name in the table.
      settings: its `Config`, without output_dir.
      teacher: `Config` of the fixed teacher of pseudo labels, which is
        trained first; None if there is none.
      select: whether to classify images of the pool instead of the test
        images, to choose settings.

    Returns:
      The row, a dict; see control_rows.
    """
    keras.backend.clear_session()
    start, cpu_start = time.monotonic(), time.process_time()
    build = PoolExperiment if select else Experiment
    with tempfile.TemporaryDirectory() as folder:
        teacher_accuracy = None
        if teacher is not None:
            teacher_dir = os.path.join(folder, "teacher")
            first = build(_placed(teacher, teacher_dir))
            first.train()
            teacher_accuracy = first.evaluate()["student"]
            first.cache_labels()
            settings = dataclasses.replace(settings, teacher_labels=teacher_dir)
        experiment = build(_placed(settings, os.path.join(folder, "run")))
        experiment.train()
        seconds = time.monotonic() - start, time.process_time() - cpu_start
        experiment.finetune()
        accuracies = experiment.evaluate()
    return row(
        run,
        settings,
        teacher=teacher,
        learned=len(experiment.data.labeled_images),
        accuracies={"teacher": teacher_accuracy} | accuracies,
        seconds=seconds,
        split=control_rows.VALIDATION if select else control_rows.TEST,
    )


class PoolExperiment(Experiment):
    """Classifies images of the pool whose labels no network ever sees.

    Settings can be chosen on them, and the test images stay unseen. Like all
    of the pool, they are unlabeled training images too.
    """

    @functools.cached_property
    def data(self):
        return with_pool_as_test(super().data, self.config)


def with_pool_as_test(images, config):
    """`ImageData` whose test images are from the unlabeled pool.

    Args:
      images: `ImageData` of the run.
      config: `Config` of the run.
    """
    plain = dataclasses.replace(
        config,
        known_classes=None,
        label_noise=0.0,
        num_validation=0,
        num_feedback=0,
    )
    chosen = data.load_data(plain).labeled_indices
    # With a file of labeled images, only those would be loaded.
    everything = data.load_data(
        dataclasses.replace(plain, num_labeled=0, label_subset="balanced")
    )
    known = everything.labeled_labels < images.spec.num_classes
    unseen = ~np.isin(everything.labeled_indices, chosen)
    pool = np.flatnonzero(known & unseen)
    if not pool.size:
        raise ValueError("There are no unlabeled images to choose settings on.")
    # The same for every seed, except the images that it labels.
    rank = np.random.RandomState(POOL_SEED).permutation(known.size)
    pool = pool[np.argsort(rank[pool])][:POOL_IMAGES]
    return dataclasses.replace(
        images,
        test_images=everything.labeled_images[pool],
        test_labels=everything.labeled_labels[pool],
    )


def _placed(settings, folder):
    return dataclasses.replace(settings, output_dir=folder, progress=False)


def row(run, settings, *, learned, accuracies, seconds, split, teacher=None):
    """The row of a run, a dict.

    Args:
      run: its name.
      settings: its `Config`.
      learned: how many labels it learned from.
      accuracies: of the "student", "finetuned" and the "teacher"; None if there
        is none.
      seconds: of training: by the clock, and by the processor.
      split: of the images that were classified.
      teacher: `Config` of the fixed teacher, or None.
    """
    return {
        "run": run,
        "dataset": settings.dataset,
        "labels": settings.num_labeled,
        "labels_learned": learned,
        "split": split,
        "method": settings.method,
        "feedback": settings.mpl_feedback if settings.method == "mpl" else None,
        "seed": settings.seed,
        "steps": settings.num_train_steps,
        "model": settings.model_type,
        "accuracy": accuracies["student"],
        "accuracy_finetuned": accuracies["finetuned"],
        "accuracy_teacher": accuracies["teacher"],
        "train_seconds": round(seconds[0], 1),
        "train_cpu_seconds": round(seconds[1], 1),
        "date": time.strftime("%Y-%m-%d"),
        "revision": REVISION,
        "versions": {
            "meta_pseudo_labels": meta_pseudo_labels.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "machine": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        },
        "settings": control_rows.recorded_settings(settings),
        "teacher_settings": teacher and control_rows.recorded_settings(teacher),
    }
