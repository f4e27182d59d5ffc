"""How long our GELU takes, compared with Keras's: forward and backward.

    python -m benchmarks.network_speed.activations --bfloat16

The images have the shape that the first layer of a speednet outputs. The two
take turns in every round, together with a rectifier, which shows the minimum.
"""

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common.arguments import (
    benchmark_parser,
    recorded,
    write_report,
)
from benchmarks.common.machine import headline, machine_facts
from benchmarks.network_speed.run import parsed_speed, take_turns
from meta_pseudo_labels.models.activations import gelu

OURS, KERAS = "gelu", "gelu of Keras"
ACTIVATIONS = {
    OURS: gelu,
    KERAS: keras.activations.gelu,
    "relu": keras.activations.relu,
}


def main():
    parser = benchmark_parser(
        __doc__,
        (
            ("batch_size", 128, "images per pass"),
            ("rounds", 9, "turns of each activation"),
        ),
    )
    settings = parsed_speed(parser)
    seconds = measure(settings)
    report = {
        "machine": machine_facts(),
        "settings": recorded(settings),
        "seconds": {
            name: float(np.median(times)) for name, times in seconds.items()
        },
        "ratio": float(np.median(seconds[OURS] / seconds[KERAS])),
    }
    print(headline(report["machine"]))
    for name, median in report["seconds"].items():
        print(f"{name:16}{1000 * median:8.2f} ms")
    print(f"{OURS} / {KERAS}: {report['ratio']:.2f}")
    write_report(report, settings.json)


def measure(settings):
    """{activation: [rounds] seconds per pass}."""
    shape = [2, settings.batch_size, 31, 31, 24]
    images = tf.random.stateless_normal(shape, [0, 1])
    x, upstream = tf.unstack(
        tf.cast(images, "bfloat16" if settings.bfloat16 else "float32")
    )
    passes = {
        name: a_pass(activation, x, upstream)
        for name, activation in ACTIVATIONS.items()
    }
    return take_turns(passes, rounds=settings.rounds)


def a_pass(activation, x, upstream):
    """A function without arguments: runs the pullback through an activation."""

    @tf.function
    def pullback():
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = activation(x)
        return tape.gradient(outputs, x, upstream)

    return lambda: pullback().numpy()


if __name__ == "__main__":
    main()
