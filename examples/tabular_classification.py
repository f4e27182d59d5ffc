"""A table: Meta Pseudo Labels without images. Is this tumour benign?

    python examples/tabular_classification.py

The table is scikit-learn's breast cancer set: 569 patients, each with 30
measurements of cells in a digitized picture. A third of them is the test set;
of the others, a few keep their label.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from meta_pseudo_labels import (
    MetaPseudoLabels,
    Momentum,
    Supervised,
    UDASettings,
    data,
    evaluate,
    finetune,
    models,
)

FEATURES, CLASSES = 30, 2


def problem(labels_per_class, seed):
    """Standardized measurements and labels, a dict of arrays.

    labeled: [N, 30] float32, labels: [N] int64, the same number per class;
    unlabeled: [M, 30], the training patients without a label;
    test: [T, 30], test_labels: [T].
    """
    rows, labels = load_breast_cancer(return_X_y=True)
    # The same test set for every seed.
    train, test, train_labels, test_labels = train_test_split(
        rows, labels, test_size=1 / 3, stratify=labels, random_state=0
    )
    scaler = StandardScaler().fit(train)  # This needs no labels.
    train, test = (np.float32(scaler.transform(x)) for x in (train, test))
    random = np.random.default_rng(seed)
    chosen = np.concatenate(
        [
            random.choice(
                np.flatnonzero(train_labels == label),
                labels_per_class,
                replace=False,
            )
            for label in range(CLASSES)
        ]
    )
    return {
        "labeled": train[chosen],
        "labels": train_labels[chosen],
        "unlabeled": np.delete(train, chosen, axis=0),
        "test": test,
        "test_labels": test_labels,
    }


def weak_view(rows, seed):
    """A little noise on every measurement, in standard deviations."""
    return rows + 0.1 * tf.random.stateless_normal(tf.shape(rows), seed)


def strong_view(rows, seed):
    """Four measurements in ten come from other patients in the batch.

    So each is still a value of its own column (Bahri et al. 2022, SCARF).
    """
    seeds = tf.unstack(tf.random.split(seed, 2))
    draws, ranks = (
        tf.random.stateless_uniform(tf.shape(rows), own) for own in seeds
    )
    order = tf.argsort(ranks, axis=0)  # A different one in each column.
    others = tf.gather(
        tf.transpose(rows), tf.transpose(order), axis=1, batch_dims=1
    )
    return tf.where(draws < 0.4, tf.transpose(others), rows)


def network(width):
    """A perceptron with two hidden layers, from `models`; returns logits."""
    return models.mlp(
        input_shape=(FEATURES,),
        num_classes=CLASSES,
        hidden_sizes=(width, width),
        dropout_rate=0.2,
    )


def main(arguments):
    keras.utils.set_random_seed(arguments.seed)
    table = problem(arguments.labels_per_class, arguments.seed)
    steps = arguments.steps
    print(
        f"{len(table['labels'])} labeled, {len(table['unlabeled'])} unlabeled "
        f"and {len(table['test'])} test patients",
        flush=True,
    )
    batches = data.two_view_dataset(
        table["labeled"],
        table["labels"],
        table["unlabeled"],
        weak=weak_view,
        strong=strong_view,
        batch_size=16,
        unlabeled_ratio=4,
        seed=arguments.seed,
    )
    test = tf.data.Dataset.from_tensor_slices(
        (table["test"], table["test_labels"])
    ).batch(100)

    control = Supervised(network(32), ema_decay=0.99)
    control.compile(Momentum(0.01))
    control.fit(batches, steps_per_epoch=steps, verbose=0)

    learner = MetaPseudoLabels(
        network(32),
        network(128),
        ema_decay=0.99,
        uda=UDASettings(ramp_steps=max(1, steps // 2)),
    )
    learner.compile(Momentum(0.01))
    learner.fit(batches, steps_per_epoch=steps, verbose=0)

    mpl = evaluate(learner, test)
    student = learner.finished_student()
    labeled = batches.map(lambda batch: (batch["labeled"], batch["labels"]))
    finetune(student, labeled, learning_rate=1e-2, steps=max(1, steps // 10))
    for name, accuracy in (
        ("supervised, the same labels", evaluate(control, test).top_1),
        ("MPL student", mpl.top_1),
        ("MPL student, finetuned", evaluate(student, test).top_1),
    ):
        print(f"{name:30}{accuracy:.1%}")


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--labels_per_class", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(arguments)
    if arguments.steps < 1:
        parser.error("--steps must be at least 1")
    most = 120
    if not 1 <= arguments.labels_per_class <= most:
        parser.error(f"--labels_per_class must be in 1 to {most}")
    return arguments


if __name__ == "__main__":
    main(parse_arguments())
