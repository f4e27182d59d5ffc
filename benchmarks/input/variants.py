"""What run.py times: our operations and those of peers.

A variant is a function that reads batches for a given number of seconds and
returns images per second.
"""

import functools
import importlib.metadata
import importlib.util
import os
import pathlib
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from benchmarks.input.data import (
    MAGNITUDE,
    SPEC,
    random_images,
    training_batches,
)
from benchmarks.input.imagenet import imagenet_variants
from meta_pseudo_labels.data.images import views

OURS = "strong_view"
PEERS = ("keras_cv", "keras", "torchvision")
TORCHVISION = pathlib.Path(__file__).with_name("torchvision_peer.py")


def build_variants(settings):
    """Functions from seconds to images per second, by name; and notes."""
    batch = random_images(settings.batch_size)
    strong = views.strong_view(SPEC, magnitude=MAGNITUDE)
    rand_augment = views.rand_augment(
        magnitude=MAGNITUDE,
        translate_const=SPEC.image_size // 8,
        cutout_const=SPEC.image_size // 8,
        fill=SPEC.background,
    )
    variants = {
        OURS: rate_of_operation(strong, batch),
        "rand_augment": rate_of_operation(rand_augment, batch),
        "training_batches": rate_of_training_batches(settings),
    }
    notes = []
    for name, build in (
        ("keras_cv", keras_cv_layer),
        ("keras", keras_layer),
    ):
        if importlib.util.find_spec(name):
            variants[name] = rate_of_operation(build(), batch)
        else:
            notes.append(f"{name} left out: not installed")
    try:
        variants["torchvision"] = torchvision_rate(settings)
    except ImportError as error:
        notes.append(f"torchvision left out: {error}")
    return variants | imagenet_variants(images_per_second), notes


def keras_cv_layer():
    import keras_cv

    layer = keras_cv.layers.RandAugment(
        value_range=(0, 255), augmentations_per_image=2
    )
    return lambda images, seed: layer(images)


def keras_layer():
    layer = keras.layers.RandAugment(value_range=(0, 255), num_ops=2)
    return lambda images, seed: layer(images)


def rate_of_operation(operation, batch):
    """The speed of (images, seed) -> images in tf.data's parallel map."""
    images = tf.constant(batch)
    steps = tf.data.Dataset.range(np.iinfo(np.int64).max)
    batches = steps.map(
        lambda step: operation(images, tf.stack([0, step])),
        num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)
    return functools.partial(images_per_second, iter(batches), len(batch))


def rate_of_training_batches(settings):
    images = settings.batch_size * (1 + settings.unlabeled_ratio)
    batches = training_batches(settings, batch_size=settings.batch_size)
    return functools.partial(images_per_second, batches, images)


def torchvision_rate(settings):
    """The speed of torchvision's layer; raises ImportError if it is missing."""
    arguments = (settings.batch_size, SPEC.image_size, os.cpu_count())
    peer = subprocess.Popen(
        [sys.executable, str(TORCHVISION), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if not peer.stdout.readline():
        raise ImportError(peer.stderr.read().strip().splitlines()[-1])

    def rate(seconds):
        print(seconds, file=peer.stdin, flush=True)
        return float(peer.stdout.readline())

    return rate


def images_per_second(batches, images_each, seconds):
    """Reads an iterator for `seconds`, after using up what it had ready."""

    def take(seconds):
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds or not count:
            next(batches)
            count += images_each
        return count / elapsed

    take(seconds / 4)
    return take(seconds)


def peer_versions():
    versions = {}
    for name in ("keras-cv", "torch", "torchvision"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
