"""Times a step of Meta Pseudo Labels against its bare parts.

    python benchmarks/step_time.py --json step_time.json

A step needs at least a teacher's forward and backward pass on labeled, weak and
strong images, a student's on strong and labeled ones, and a second forward pass
of the student on the labeled ones. The benchmark times these three parts alone,
and whole steps for every feedback: with losses, optimizers, weight decay,
clipping, averages and the feedback itself. A ratio of 1 would mean that all of
this is free.

Everything runs in one process, in rounds; a round times every variant once, in
random order. A ratio is taken within each round, and the median over the rounds
is reported: when the machine slows down for a while, as shared machines do, it
slows step and parts of the same round alike, whereas the medians of step and
parts may come from different rounds.

The logs that cost a backward pass are computed in one step out of ten, as in
training, so that medians do not show them.
"""

import argparse
import functools
import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf
from arguments import positive
from machine import headline, machine_facts

from meta_pseudo_labels import models
from meta_pseudo_labels.learners import MetaPseudoLabels, UDASettings
from meta_pseudo_labels.learners.feedback import ESTIMATORS
from meta_pseudo_labels.optimizers import Momentum

FEEDBACKS = tuple(ESTIMATORS)
PARTS = (
    "teacher forward and backward",
    "student forward and backward",
    "student forward",
)
NUM_CLASSES = 10

# As `fit` compiles a train step.
compiled = functools.partial(tf.function, autograph=False)


def main():
    settings = parse_arguments()
    keras.utils.set_random_seed(0)
    batch = random_batch(settings)
    variants = bare_parts(settings, batch) | {
        feedback: whole_step(settings, batch, feedback=feedback)
        for feedback in FEEDBACKS
    }
    seconds = time_in_rounds(
        variants, rounds=settings.rounds, warmup=settings.warmup
    )
    report = summarize(seconds) | {
        "settings": {
            name: value
            for name, value in vars(settings).items()
            if name != "json"
        },
        "machine": machine_facts(),
    }
    print_table(report)
    if settings.json:
        settings.json.write_text(json.dumps(report, indent=2) + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--model", default="wrn-28-2", help="both networks")
    for name, default, meaning in (
        ("batch_size", 8, "labeled images, B"),
        ("unlabeled_ratio", 7, "unlabeled images per labeled one, mu"),
        ("image_size", 32, "height and width in pixels"),
        ("rounds", 15, "timed rounds"),
        ("warmup", 2, "rounds before these, not counted"),
    ):
        parser.add_argument(
            f"--{name}", type=positive, default=default, help=meaning
        )
    settings = parser.parse_args()
    if settings.json and not settings.json.absolute().parent.is_dir():
        parser.error(f"--json: no directory {settings.json.parent}")
    return settings


def random_batch(settings):
    """One constant batch, as `MetaPseudoLabels.train_step` takes it."""
    size, unlabeled = (
        settings.batch_size,
        settings.batch_size * settings.unlabeled_ratio,
    )

    def images(count):
        return tf.random.normal(
            [count, settings.image_size, settings.image_size, 3]
        )

    return {
        "labeled": images(size),
        "labels": tf.random.uniform([size], maxval=NUM_CLASSES, dtype=tf.int32),
        "weak": images(unlabeled),
        "strong": images(unlabeled),
    }


def build_model(settings, *, name):
    return models.build(
        settings.model,
        input_shape=(settings.image_size, settings.image_size, 3),
        num_classes=NUM_CLASSES,
        name=name,
    )


def bare_parts(settings, batch):
    """{name: compiled function} of the passes that no step can do without."""
    teacher = build_model(settings, name="teacher")
    student = build_model(settings, name="student")
    views = tf.concat([batch["labeled"], batch["weak"], batch["strong"]], 0)
    student_views = tf.concat([batch["strong"], batch["labeled"]], 0)
    functions = (
        forward_and_backward(teacher, views),
        forward_and_backward(student, student_views),
        compiled(lambda: student(batch["labeled"], training=True)),
    )
    return dict(zip(PARTS, functions, strict=True))


def forward_and_backward(model, images):
    """Compiled gradients of a cross-entropy, the plainest one there is."""
    labels = tf.zeros([len(images)], tf.int32)

    @compiled
    def run():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=labels, logits=model(images, training=True)
                )
            )
        return tape.gradient(loss, model.trainable_variables)

    return run


def whole_step(settings, batch, *, feedback):
    """Compiled training step, with what the release trains CIFAR-10 with."""
    learner = MetaPseudoLabels(
        student=build_model(settings, name="student"),
        teacher=build_model(settings, name="teacher"),
        feedback=feedback,
        label_smoothing=0.15,
        ema_decay=0.995,
        uda=UDASettings(
            weight=8.0, ramp_steps=5000, temperature=0.7, threshold=0.6
        ),
    )
    learner.compile(
        optimizer=Momentum(0.05, momentum=0.9, nesterov=True),
        teacher_optimizer=Momentum(0.05, momentum=0.9, nesterov=True),
        weight_decay=5e-4,
        grad_bound=5.0,
    )
    return compiled(lambda: learner.train_step(batch))


def time_in_rounds(variants, *, rounds, warmup):
    """Seconds of every variant in every round, {name: [rounds]}."""
    seconds = {name: [] for name in variants}
    generator = np.random.default_rng(0)
    for number in range(warmup + rounds):
        for name in generator.permutation(list(variants)):
            start = time.perf_counter()
            result = variants[name]()
            tf.nest.flatten(result)[0].numpy()
            elapsed = time.perf_counter() - start
            if number >= warmup:
                seconds[name].append(elapsed)
    return {name: np.array(times) for name, times in seconds.items()}


def summarize(seconds):
    """Medians of the ratios and of the times, and the ratios' quartiles."""
    parts = sum(seconds[name] for name in PARTS)
    ratios = {name: seconds[name] / parts for name in FEEDBACKS}
    return {
        "ratio": {name: float(np.median(r)) for name, r in ratios.items()},
        "ratio_quartiles": {
            name: np.quantile(r, [0.25, 0.75]).tolist()
            for name, r in ratios.items()
        },
        "seconds": {
            name: float(np.median(times)) for name, times in seconds.items()
        },
    }


def print_table(report):
    seconds = report["seconds"]
    print(headline(report["machine"]))
    print(f"{'':38}{'seconds':>9}{'ratio':>8}  quartiles")
    for name in PARTS:
        print(f"{name:38}{seconds[name]:9.3f}")
    for name in FEEDBACKS:
        low, high = report["ratio_quartiles"][name]
        print(
            f"{'step, feedback ' + name:38}{seconds[name]:9.3f}"
            f"{report['ratio'][name]:8.2f}  {low:.2f} to {high:.2f}"
        )


if __name__ == "__main__":
    main()
