"""A stream of batches, made by the workers of a tf.data service."""

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.streams.service.addresses import (
    wait_for_dispatcher,
)
from meta_pseudo_labels.data.streams.service.ordering import in_order
from meta_pseudo_labels.data.streams.service.watch import watch

# The graph and all it holds are sent as one message of less than 2 GiB.
MAX_HELD_BYTES = 2_000_000_000
_WINDOW_BYTES = 1 << 30
_MIN_WINDOW, _MAX_WINDOW = 4, 64


def through_service(
    batch, address, *, start_step=0, window=None, timeout_seconds=10
):
    """The endless stream batch(start_step), batch(start_step + 1), ...

    A dispatcher deals the steps out to its workers (TensorFlow's dynamic
    sharding: each step goes to one worker, and is lost with it). Here batches
    are put back in order, and lost ones are made. So the stream is that of
    `Dataset.range(start_step, ...).map(batch)`, bit for bit, whatever happens
    to the workers, as long as one is left.

    Args:
      batch: a function from a step, [] int64, to a structure of tensors; it
        must be a function of the step alone. What it captures is sent along,
        once; files that it reads must exist on the workers too.
      address: grpc://host:port of the dispatcher.
      start_step: the first step, >= 0.
      window: batches that may wait here for an earlier one before that one is
        made here; by default as many as fit into 1 GiB, from 4 to 64.
      timeout_seconds: how long the service may take for its first answer.

    Returns:
      tf.data.Dataset of `batch`'s structures. Each iteration begins at
      start_step, with a job of its own.

    Raises:
      ValueError: if the address has another form, nobody answers there, there
        is no worker, or `batch` captures more than `MAX_HELD_BYTES`.
    """
    wait_for_dispatcher(
        address, timeout_seconds=timeout_seconds, needs_workers=True
    )
    # Traced once for both uses.
    batch = tf.function(
        batch,
        input_signature=[tf.TensorSpec([], tf.int64)],
        autograph=False,
    ).get_concrete_function()
    _check_size(batch)
    if window is None:
        window = _window(batch)
    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    numbered = steps.map(
        lambda step: (step, batch(step)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    arrivals = _distribute(numbered, address)
    dataset = in_order(arrivals, batch, start_step=start_step, window=window)
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    watch(dataset, address)
    return dataset


def _distribute(dataset, address):
    """Lets the workers make the elements, in no particular order."""
    service = tf.data.experimental.service
    try:
        return dataset.apply(
            service.distribute(
                processing_mode=service.ShardingPolicy.DYNAMIC,
                service=address,
            )
        )
    except tf.errors.OpError as error:
        raise ValueError(
            f"The tf.data service at {address} refuses the input pipeline: "
            f"{error.message}. Its version of TensorFlow must be "
            f"{tf.__version__}, as here."
        ) from error


def _check_size(batch):
    """Raises ValueError if a concrete function holds too much to be sent."""
    size = sum(
        tensor.shape.num_elements() * tensor.dtype.size
        for tensor in batch.captured_inputs
        if tensor.dtype.size
    )
    if size > MAX_HELD_BYTES:
        raise ValueError(
            f"The data set holds {size / 1e9:.2f} GB in memory, but a tf.data "
            f"service can be sent {MAX_HELD_BYTES / 1e9:.2f} GB at most: keep "
            "the images in files that are read during training, like those of "
            "imagenet2012, or train without the service."
        )


def _window(batch):
    """How many batches fit into the memory for those that wait."""
    size = sum(
        (leaf.shape.num_elements() or 0) * leaf.dtype.size
        for leaf in tf.nest.flatten(batch.structured_outputs)
    )
    return int(np.clip(_WINDOW_BYTES // max(size, 1), _MIN_WINDOW, _MAX_WINDOW))
