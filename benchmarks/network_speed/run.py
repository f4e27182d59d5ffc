"""How many images a second networks learn from, relative to each other.

    python -m benchmarks.network_speed.run speednet-64 speednet-32 wrn-28-2

Forward and backward passes of one batch, without an optimizer. Networks take
turns in every round, so that a busy machine slows all of them alike: what
counts is the ratios to the last network, and their quartiles over rounds.
"""

import time

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common.arguments import (
    benchmark_parser,
    parsed,
    positive,
    recorded,
    write_report,
)
from benchmarks.common.machine import headline, machine_facts
from meta_pseudo_labels import models


def main():
    parser = benchmark_parser(
        __doc__,
        (
            ("batch_size", 128, "images per pass"),
            ("image_size", 32, "height and width in pixels"),
            ("rounds", 7, "turns of each network"),
        ),
    )
    parser.add_argument(
        "networks",
        nargs="*",
        default=["speednet-64", "speednet-32", "wrn-28-2"],
        help="names of networks; ratios are to the last",
    )
    settings = parsed_speed(parser)
    seconds = measure(settings)
    report = {
        "machine": machine_facts(),
        "settings": recorded(settings),
        **summary(seconds, batch_size=settings.batch_size),
    }
    print_table(report)
    write_report(report, settings.json)


def parsed_speed(parser):
    """The settings of a command that measures speed; sets the threads."""
    parser.add_argument("--bfloat16", action="store_true", help="for images")
    parser.add_argument("--threads", type=positive, help="default: all")
    settings = parsed(parser)
    if settings.threads:
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    return settings


def measure(settings):
    """{network: [rounds] seconds per pass}."""
    keras.utils.set_random_seed(0)
    passes = {name: a_pass(name, settings) for name in settings.networks}
    return take_turns(passes, rounds=settings.rounds)


def take_turns(passes, *, rounds):
    """{name: [rounds] seconds} from {name: function without arguments}."""
    for run in passes.values():  # Trace.
        run()
    seconds = {name: [] for name in passes}
    for _ in range(rounds):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(times) for name, times in seconds.items()}


def a_pass(name, settings):
    """A function without arguments: computes gradients of a batch's loss."""
    shape = (settings.image_size, settings.image_size, 3)
    model = models.build(
        name,
        input_shape=shape,
        num_classes=10,
        dtype="mixed_bfloat16" if settings.bfloat16 else "float32",
    )
    images = tf.random.stateless_normal([settings.batch_size, *shape], [0, 1])
    models.adapt(model, images)
    labels = tf.range(settings.batch_size) % 10

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, model(images, training=True)
            )
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    return lambda: gradients()[0].numpy()


def summary(seconds, *, batch_size):
    """Medians over rounds.

    Args:
      seconds: see `measure`.
      batch_size: images per pass.

    Returns:
      Dicts by network: "images_per_second"; "ratio", relative to the last
      network in the same round; "ratio_quartiles".
    """
    *_, last = seconds
    ratios = {name: seconds[last] / times for name, times in seconds.items()}
    return {
        "images_per_second": {
            name: float(batch_size / np.median(times))
            for name, times in seconds.items()
        },
        "ratio": {name: float(np.median(x)) for name, x in ratios.items()},
        "ratio_quartiles": {
            name: np.quantile(x, [0.25, 0.75]).tolist()
            for name, x in ratios.items()
        },
    }


def print_table(report):
    print(headline(report["machine"]))
    *_, last = report["ratio"]
    print(f"{'network':16}{'images/s':>10}{f'to {last}':>16}{'quartiles':>16}")
    for name, ratio in report["ratio"].items():
        low, high = report["ratio_quartiles"][name]
        print(
            f"{name:16}{report['images_per_second'][name]:10.0f}"
            f"{ratio:16.2f}{f'{low:.2f} to {high:.2f}':>16}"
        )


if __name__ == "__main__":
    main()
