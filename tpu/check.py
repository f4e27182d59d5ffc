"""Reports the devices, trains ten steps on random images, prints images/s.

    python -m tpu.check                                  # on a TPU VM
    python -m tpu.check --nouse_tpu --train_batch_size=4 --uda_data=2

The steps are those of flags/cifar10_4000_mpl.flags, whole ones: both networks,
losses, feedback, optimizers, averages. The batch stays on the devices, so that
nothing waits for input. Every flag of main.py that changes a step is taken, and
--steps.
"""

import dataclasses
import pathlib
import sys
import time

import numpy as np
import tensorflow as tf
from absl import flags

from benchmarks.common.flops import forward_flops, mpl_step_flops
from meta_pseudo_labels.data import DATASETS
from meta_pseudo_labels.learners.build import build_learner
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.run.config.flags import (
    config_from_flags,
    define_flags,
)
from meta_pseudo_labels.run.devices import training_strategy
from meta_pseudo_labels.utils.settings import ConfigError

ROOT = pathlib.Path(__file__).resolve().parent.parent

RECIPE = ROOT / "flags" / "cifar10_4000_mpl.flags"
LOSS = "cross_entropy/student_on_l"


def main(arguments):
    try:
        config, steps = parse(arguments)
        strategy = connect(config)
        print_devices(strategy)
        learner, step = build_step(config, strategy)
    except (ConfigError, flags.Error) as error:
        sys.exit(f"Error: {error}")
    first, seconds, loss = time_steps(step, steps)
    print(f"first step      {first:.1f} s, with compilation")
    print_speed(config, learner, seconds)
    if not np.isfinite(loss):
        sys.exit(f"Error: the student's loss on labels is {loss}.")
    print(f"loss            {loss:.4f} after {steps + 1} steps")


def parse(arguments):
    """The `Config` of the command line, and the number of timed steps."""
    values = flags.FlagValues()
    define_flags(values)
    flags.DEFINE_integer(
        "steps", 10, "Timed steps.", lower_bound=1, flag_values=values
    )
    values(["check.py", f"--flagfile={RECIPE}", *arguments])
    config = config_from_flags(values)
    if LEARNERS[config.method].teacher_type(config) is None:
        raise ConfigError("check.py times steps of --method=mpl.")
    if config.dataset not in DATASETS:
        raise ConfigError(
            f"--dataset={config.dataset}: its image size is not known here; "
            f"use one of {', '.join(DATASETS)}."
        )
    return config, values["steps"].value


def connect(config):
    """The strategy of the settings; with --use_tpu there must be a TPU.

    Raises:
      ConfigError: where there is none, or the batch cannot be shared.
    """
    if config.use_tpu and config.distribution == "auto":
        config = dataclasses.replace(config, distribution="tpu")
    return training_strategy(config)


def print_devices(strategy):
    devices = tf.config.list_logical_devices()
    kinds = sorted({device.device_type for device in devices})
    counts = [
        f"{sum(device.device_type == kind for device in devices)} {kind}"
        for kind in kinds
    ]
    print(f"TensorFlow      {tf.__version__}")
    print(f"devices         {', '.join(counts)}")
    print(
        f"strategy        {type(strategy).__name__.lstrip('_')}, "
        f"{strategy.num_replicas_in_sync} replicas"
    )


def build_step(config, strategy):
    """The learner, and a compiled function that trains one step of it."""
    replicas = strategy.num_replicas_in_sync
    spec = DATASETS[config.dataset]
    size = config.image_size or spec.image_size
    spec = dataclasses.replace(spec, image_size=size)
    with strategy.scope():
        learner = build_learner(config, spec)
    batch = strategy.experimental_distribute_values_from_function(
        lambda context: random_batch(
            labeled=config.train_batch_size // replicas,
            unlabeled=config.train_batch_size // replicas * config.uda_data,
            shape=(size, size, 3),
            num_classes=spec.num_classes,
        )
    )

    @tf.function(autograph=False)
    def step():
        return strategy.run(learner.train_step, args=(batch,))

    def run():
        """The loss, which waits until the step is done."""
        losses = strategy.experimental_local_results(step()[LOSS])
        return float(losses[0].numpy())

    return learner, run


def random_batch(*, labeled, unlabeled, shape, num_classes):
    """A batch as `MetaPseudoLabels.train_step` takes it."""

    def images(count):
        return tf.random.normal([count, *shape])

    return {
        "labeled": images(labeled),
        "labels": tf.random.uniform(
            [labeled], maxval=num_classes, dtype=tf.int32
        ),
        "weak": images(unlabeled),
        "strong": images(unlabeled),
    }


def time_steps(step, steps):
    """Seconds of the first step; of each one after it, [steps]; a loss."""
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    return seconds[0], np.array(seconds[1:]), loss


def print_speed(config, learner, seconds):
    images = config.train_batch_size * (1 + config.uda_data)
    work = mpl_step_flops(
        teacher=forward_flops(learner.teacher),
        student=forward_flops(learner.student),
        batch_size=config.train_batch_size,
        unlabeled_ratio=config.uda_data,
        feedback=config.mpl_feedback,
    )
    typical = float(np.median(seconds))
    print(
        f"step            {typical * 1e3:.1f} ms, the median of {len(seconds)} "
        f"({seconds.min() * 1e3:.1f} to {seconds.max() * 1e3:.1f})"
    )
    print(
        f"images/s        {images / typical:,.0f}, labeled and unlabeled "
        f"({config.train_batch_size} + {images - config.train_batch_size} a "
        "step)"
    )
    print(f"TFLOP/s         {work / typical / 1e12:.3g}, of multiplications")


if __name__ == "__main__":
    main(sys.argv[1:])
