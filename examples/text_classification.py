"""Text: Meta Pseudo Labels without images. Which library is this about?

    python examples/text_classification.py

The texts are the docstrings of the installed NumPy, SciPy, scikit-learn and
Keras: real English, available offline. The names of the libraries are removed.
A quarter of the files is the test set, so that no file is on both sides; of the
other texts, a few keep their label.
"""

import argparse
import ast
import importlib.util
import os
import pathlib
import re
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels import (
    MetaPseudoLabels,
    RMSProp,
    Supervised,
    UDASettings,
    data,
    evaluate,
    finetune,
)

LIBRARIES = ("numpy", "scipy", "sklearn", "keras")
GIVEAWAYS = {*LIBRARIES, "np", "sp", "scikit", "learn", "tf", "tensorflow"}
WORDS = 64  # Per text: longer texts are cut, shorter ones padded.
VOCABULARY = 4_000
PADDING, UNKNOWN = 0, 1  # Their numbers in Keras's TextVectorization.


def docstrings(library):
    """Yields pairs of a file and a docstring in it."""
    origin = importlib.util.find_spec(library).origin
    folder = pathlib.Path(origin).parent
    for path in sorted(folder.rglob("*.py")):
        file = path.relative_to(folder)
        if any("test" in part for part in file.parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef
            ) and (text := ast.get_docstring(node)):
                yield file.as_posix(), text


def read_texts(library):
    """Texts to learn from and texts to test on, two sorted lists."""
    parts = set(), set()
    for file, text in docstrings(library):
        words = re.findall(r"[a-z]+", text.lower())
        words = [word for word in words if word not in GIVEAWAYS][:WORDS]
        if len(words) >= 4:
            in_test = zlib.crc32(file.encode()) % 4 == 0
            parts[in_test].add(" ".join(words))
    train, test = parts
    return sorted(train), sorted(test - train)


def problem(labels_per_class, seed):
    """Token numbers and labels, a dict of arrays.

    labeled: [N, WORDS] int64, labels: [N] int64; unlabeled: [M, WORDS] int64,
    the texts without a label; test: [T, WORDS] int64, test_labels: [T] int64.
    The same number from each class.
    """
    texts = [read_texts(library) for library in LIBRARIES]
    random = np.random.default_rng(seed)
    sizes = [min(len(text[part]) for text in texts) for part in (0, 1)]
    train, test = (
        [random.permutation(text[part])[: sizes[part]] for text in texts]
        for part in (0, 1)
    )
    tokens = keras.layers.TextVectorization(
        VOCABULARY, output_sequence_length=WORDS
    )
    tokens.adapt(np.concatenate(train))
    few = labels_per_class
    numbers = np.arange(len(LIBRARIES))
    return {
        "labeled": tokens(np.concatenate([text[:few] for text in train])),
        "labels": np.repeat(numbers, few),
        "unlabeled": tokens(np.concatenate([text[few:] for text in train])),
        "test": tokens(np.concatenate(test)),
        "test_labels": np.repeat(numbers, sizes[1]),
    }


def strong_view(tokens, seed):
    """Masks three words in ten; replaces one in ten with a random word."""
    draws = tf.random.stateless_uniform(tf.shape(tokens), seed)
    others = tf.random.stateless_uniform(
        tf.shape(tokens), seed + 1, UNKNOWN, VOCABULARY, tokens.dtype
    )
    changed = tf.where(draws < 0.3, tf.cast(UNKNOWN, tokens.dtype), tokens)
    changed = tf.where(draws > 0.9, others, changed)
    return tf.where(tokens == PADDING, tokens, changed)


def network(width):
    """Embeds the words, then one convolution and its maximum over positions."""
    return keras.Sequential(
        [
            keras.Input((WORDS,), dtype="int64"),
            keras.layers.Embedding(VOCABULARY, width),
            keras.layers.Conv1D(2 * width, 3, activation="relu"),
            keras.layers.GlobalMaxPooling1D(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(len(LIBRARIES)),
        ]
    )


def main(arguments):
    keras.utils.set_random_seed(arguments.seed)
    texts = problem(arguments.labels_per_class, arguments.seed)
    steps = arguments.steps
    print(
        f"{len(texts['labels'])} labeled, {len(texts['unlabeled'])} unlabeled "
        f"and {len(texts['test'])} test texts of {len(LIBRARIES)} classes",
        flush=True,
    )
    batches = data.two_view_dataset(
        texts["labeled"],
        texts["labels"],
        texts["unlabeled"],
        strong=strong_view,  # The weak view is the text as it is.
        batch_size=16,
        unlabeled_ratio=4,
        seed=arguments.seed,
    )
    test = tf.data.Dataset.from_tensor_slices(
        (texts["test"], texts["test_labels"])
    ).batch(250)

    control = Supervised(network(32), ema_decay=0.99)
    control.compile(RMSProp(3e-3))
    control.fit(batches, steps_per_epoch=steps, verbose=0)

    learner = MetaPseudoLabels(
        network(32),
        network(64),
        ema_decay=0.99,
        label_temperature=0.5,
        uda=UDASettings(ramp_steps=max(1, steps // 2)),
    )
    learner.compile(RMSProp(3e-3))
    learner.fit(batches, steps_per_epoch=steps, verbose=0)

    mpl = evaluate(learner, test)
    student = learner.finished_student()
    labeled = batches.map(lambda batch: (batch["labeled"], batch["labels"]))
    finetune(student, labeled, learning_rate=3e-2, steps=max(1, steps // 10))
    for name, accuracy in (
        ("supervised, the same labels", evaluate(control, test).top_1),
        ("MPL student", mpl.top_1),
        ("MPL student, finetuned", evaluate(student, test).top_1),
    ):
        print(f"{name:30}{accuracy:.1%}")


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--labels_per_class", type=int, default=50)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(arguments)
    if arguments.steps < 1:
        parser.error("--steps must be at least 1")
    if not 1 <= arguments.labels_per_class <= 500:
        parser.error("--labels_per_class must be in 1 to 500")
    return arguments


if __name__ == "__main__":
    main(parse_arguments())
