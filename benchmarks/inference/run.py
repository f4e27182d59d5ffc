"""Images evaluated and predicted per second, relative to a bare `predict`.

    python -m benchmarks.inference.run

Four ways take turns, on the same pictures, in one process: Keras's
`model.predict` on normalized arrays; evaluation, which normalizes them and
computes all its figures; inference on pictures in memory; and inference on JPEG
files of four times the size, which are decoded and shrunk, each block while the
previous one is predicted. Rows of CSV and Parquet are not written.

Ratios are computed within a round. The ratio of processor time shows the work
that a way adds to the network's; that of images per second, how long one waits.
"""

import pathlib
import tempfile
import time
import types

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common.arguments import (
    benchmark_parser,
    parsed,
    recorded,
    write_report,
)
from benchmarks.common.machine import RESULTS, headline, machine_facts
from meta_pseudo_labels import models
from meta_pseudo_labels.data import evaluation_dataset
from meta_pseudo_labels.data.spec import DATASETS
from meta_pseudo_labels.evaluation.evaluate import (
    evaluate_networks,
    predict_logits,
)
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.inference.sources import ArrayImages, open_source
from meta_pseudo_labels.run.stages.predict import read_ahead

BARE = "model.predict"
WAYS = ("evaluation", "inference, arrays", "inference, JPEG")
SPEC = DATASETS["cifar10"]


def main():
    parser = benchmark_parser(
        __doc__,
        (
            ("images", 2_048, "files"),
            ("batch_size", 256, "images per pass"),
            ("block", 512, "images read at a time"),
            ("rounds", 7, "turns of each way"),
        ),
    )
    parser.add_argument("--model", default="wrn-28-2")
    parser.set_defaults(json=RESULTS / "inference.json")
    settings = parsed(parser)
    machine = machine_facts()
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(pathlib.Path(folder), settings.images)
        ways = build_ways(settings, folder)
        seconds, cpu_seconds = measure(ways, settings.rounds)
    report = summary(seconds, cpu_seconds, images=settings.images)
    report |= {"machine": machine, "settings": recorded(settings)}
    print(headline(machine))
    for name, ratio in report["ratio"].items():
        low, high = report["ratio_quartiles"][name]
        print(
            f"{name}: {ratio:.2f} ({low:.2f} to {high:.2f}) of {BARE}'s images "
            f"a second, {report['cpu_ratio'][name]:.2f} of its processor time"
        )
    write_report(report, settings.json)


def write_pictures(folder, count):
    """Writes smooth JPEG files, four times as wide as the network's images."""
    side = 4 * SPEC.image_size
    draws = np.random.default_rng(0)
    for number in range(count):
        coarse = draws.uniform(0, 255, [8, 8, 3])
        picture = tf.image.resize(coarse, [side, side])
        data = tf.io.encode_jpeg(tf.cast(picture, tf.uint8))
        (folder / f"{number:05d}.jpg").write_bytes(data.numpy())


def measure(ways, rounds):
    """Seconds and processor seconds, {way: [rounds]} each.

    First, each way takes one turn that is not timed.
    """
    seconds, cpu_seconds = ({name: [] for name in ways} for _ in range(2))
    for number in range(rounds + 1):
        for name, way in ways.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            way()
            if number:
                seconds[name].append(time.perf_counter() - start)
                cpu_seconds[name].append(time.process_time() - cpu_start)
    return seconds, cpu_seconds


def build_ways(settings, folder):
    """{way: a function without arguments: takes one turn, returns logits}.

    Evaluation returns its figures, because it does not return logits.
    """
    keras.utils.set_random_seed(0)
    size = SPEC.image_size
    model = models.build(
        settings.model,
        input_shape=(size, size, 3),
        num_classes=SPEC.num_classes,
    )
    config = Config(task_mode="inference", inference_dir=str(folder))
    files = open_source(config, types.SimpleNamespace(spec=SPEC))
    numbers = np.arange(settings.images)
    starts = range(0, settings.images, settings.block)
    blocks = [numbers[i : i + settings.block] for i in starts]
    pictures, _ = files.read(numbers)
    batches = dataset(pictures, settings)
    normalized = np.concatenate([images for images, _ in batches])

    def infer(source):
        return np.concatenate(
            [
                predict_logits(model, dataset(images, settings))[0]
                for images, _ in read_ahead(source, blocks)
            ]
        )

    arrays = ArrayImages(pictures, "test")
    return {
        BARE: lambda: model.predict(
            normalized, batch_size=settings.batch_size, verbose=0
        ),
        WAYS[0]: lambda: evaluate_networks({"model": model}, batches)["model"],
        WAYS[1]: lambda: infer(arrays),
        WAYS[2]: lambda: infer(files),
    }


def dataset(pictures, settings):
    """Batches as in evaluation, [n, size, size, 3] float32."""
    return evaluation_dataset(
        pictures,
        np.zeros([len(pictures)], np.int32),
        spec=SPEC,
        batch_size=settings.batch_size,
    )


def summary(seconds, cpu_seconds, *, images):
    """Medians of images per second, and of the ratios to `BARE`.

    Args:
      seconds: {way: seconds of each round}.
      cpu_seconds: the same, for all threads together.
      images: number of images per turn.
    """
    speeds = {name: images / np.array(own) for name, own in seconds.items()}
    ratios = {name: speeds[name] / speeds[BARE] for name in WAYS}
    bare = np.array(cpu_seconds[BARE])
    return {
        "images_per_second": {
            name: float(np.median(own)) for name, own in speeds.items()
        },
        "ratio": {name: float(np.median(own)) for name, own in ratios.items()},
        "ratio_quartiles": {
            name: np.quantile(own, [0.25, 0.75]).tolist()
            for name, own in ratios.items()
        },
        "cpu_ratio": {
            name: float(np.median(np.array(cpu_seconds[name]) / bare))
            for name in WAYS
        },
    }


if __name__ == "__main__":
    main()
