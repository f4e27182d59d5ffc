"""Batch normalization with the release's arithmetic (quirk 22).

Why not `keras.layers.BatchNormalization`: its variance is the mean squared
distance from a mean that it holds fixed, so in float32 it rounds differently
from the release (its traces drift away within six steps). It also has neither
the release's groups of replicas nor a choice of its moving averages over them.
`tests/models/batch_norm_test.py` shows the differences.
"""

import dataclasses
import math

import keras
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.models import channels


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormSettings:
    """Settings that all batch norm layers of a network share; see `BatchNorm`.

    Attributes:
      decay: of the moving averages, in [0, 1]; near 1 is slow.
      epsilon: added to the variance, inside the square root.
      batch_size: number of images that share statistics, with more than 8
        replicas; None is the release's default.
    """

    decay: float = 0.99
    epsilon: float = 1e-3
    batch_size: int | None = None

    def layer(self, **kwargs):
        """A new `BatchNorm`; `kwargs` are its other arguments."""
        return BatchNorm(
            momentum=self.decay,
            epsilon=self.epsilon,
            group_batch_size=self.batch_size,
            **kwargs,
        )


AS_RELEASED = NormSettings()


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class BatchNorm(keras.layers.Layer):
    """Normalizes the last axis by the moments of the batch.

    The variance is E[x^2] - E[x]^2, biased, also in its moving average;
    epsilon is inside the square root. Everything is computed in float32, or in
    float64 under that policy, and cast back (release
    `modeling_utils.sync_batch_norm`). Images in bfloat16 stay in that type
    between the kernels of `channels`, which compute in float32: the terms of an
    image's gradient are rounded before they are added.

    Under a `tf.distribute` strategy the moments are those of the global batch
    for up to 8 replicas, and of groups of replicas beyond that: see
    `replicas_per_group`. Moving averages are the mean over all replicas; a
    channel's do not move if its moments are not finite.

    As with Keras's layer, one that is not trainable runs in inference mode.

    Args:
      momentum: decay of the moving averages, in [0, 1].
      epsilon: added to the variance, at least 0.
      group_batch_size: images in a group of replicas if there are more than 8
        replicas; None is the release's default.
      scale: whether there is a factor for each channel, gamma.
      beta_factor: this factor times beta is added. With plain or momentum SGD
        the added number then learns at beta_factor ** 2 times the rate, also
        for whatever looks at the update; with optimizers that divide gradients
        by their size, such as RMSProp, at beta_factor times.
      **kwargs: those of `keras.layers.Layer`.

    Raises:
      ValueError: for a number out of range.
    """

    def __init__(
        self,
        *,
        momentum=0.99,
        epsilon=1e-3,
        group_batch_size=None,
        scale=True,
        beta_factor=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1]; got {momentum}.")
        if epsilon < 0:
            raise ValueError(f"epsilon must not be negative; got {epsilon}.")
        if group_batch_size is not None and group_batch_size < 1:
            raise ValueError(
                f"group_batch_size must be positive; got {group_batch_size}."
            )
        self.momentum = momentum
        self.epsilon = epsilon
        if not beta_factor > 0:
            raise ValueError(
                f"beta_factor must be positive; got {beta_factor}."
            )
        self.group_batch_size = group_batch_size
        self.scale = scale
        self.beta_factor = beta_factor
        self.supports_masking = True

    def build(self, input_shape):
        for name, initializer, trainable in (
            *([("gamma", "ones", True)] if self.scale else []),
            ("beta", "zeros", True),
            ("moving_mean", "zeros", False),
            ("moving_variance", "ones", False),
        ):
            weight = self.add_weight(
                name=name,
                shape=(input_shape[-1],),
                initializer=initializer,
                trainable=trainable,
                dtype=self._float_type,
                autocast=False,
                aggregation="none" if trainable else "only_first_replica",
            )
            setattr(self, name, weight)

    @property
    def _float_type(self):
        """float64 if the layer computes in it, otherwise float32."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def call(self, inputs, training=False):
        x = tf.convert_to_tensor(inputs)
        if not (x.dtype == self.compute_dtype and channels.has_kernels(x)):
            x = tf.cast(x, self._float_type)
        if training and self.trainable:
            mean, variance = self._moments(x)
            self._move_averages(x, mean, variance)
        else:
            mean, variance = self.moving_mean, self.moving_variance
        epsilon = tf.constant(self.epsilon, self._float_type)
        scale, beta = tf.math.rsqrt(variance + epsilon), self.beta
        if self.scale:
            scale = self.gamma * scale
        if self.beta_factor != 1:
            beta = beta * tf.constant(self.beta_factor, self._float_type)
        outputs = channels.scale_and_shift(
            x, scale=scale, shift=beta - mean * scale
        )
        return tf.cast(outputs, self.compute_dtype)

    def _moments(self, x):
        """Mean and variance of each channel, [channels] each."""
        mean, mean_square = channels.mean_and_mean_square(x)
        if replicas.count() > 1:
            shared = _group_mean(
                tf.stack([mean, mean_square]), members=self._members(x)
            )
            mean, mean_square = tf.unstack(shared)
        # Rounding can leave a channel of large, equal values below -epsilon,
        # whose root would be NaN; the release has no such guard.
        return mean, tf.maximum(mean_square - tf.square(mean), 0.0)

    def _move_averages(self, x, mean, variance):
        if self._members(x) < replicas.count():  # Each group has its own.
            mean, variance = replicas.mean([mean, variance])
        # One bad batch would stay in the averages forever.
        finite = tf.math.is_finite(mean) & tf.math.is_finite(variance)
        rate = tf.constant(1.0 - self.momentum, self._float_type)
        for moving, moment in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moved = moving - rate * (moving - moment)
            moving.assign(tf.where(finite, moved, moving))

    def _members(self, x):
        """Replicas that share their moments."""
        return replicas_per_group(
            replicas.count(),
            batch_size=x.shape[0],
            group_batch_size=self.group_batch_size,
        )

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "group_batch_size": self.group_batch_size,
            "scale": self.scale,
            "beta_factor": self.beta_factor,
        }


def replicas_per_group(num_replicas, *, batch_size, group_batch_size=None):
    """How many replicas share their moments (release `sync_batch_norm`).

    Up to 8 replicas: all. Beyond that: as many as have `group_batch_size`
    images together, or without it the larger of 8 and num_replicas // 8;
    between 2 and all, and rounded down to a power of 2.

    Args:
      num_replicas: total number of replicas.
      batch_size: images of one replica in the present batch; a joint batch of
        labeled and unlabeled images has many more than a labeled one.
      group_batch_size: the release's batch_norm_batch_size, or None.

    Raises:
      ValueError: if the replicas do not divide into such groups.
    """
    if num_replicas <= 8:
        return num_replicas
    if group_batch_size is None:
        replicas = max(8, num_replicas // 8)
    else:
        replicas = min(group_batch_size // batch_size, num_replicas)
    replicas = 2 ** max(1, int(math.log2(max(replicas, 1))))
    if num_replicas % replicas:
        raise ValueError(
            f"{num_replicas} replicas do not divide into batch-norm groups of "
            f"{replicas}. Use a power of 2 of replicas, or another "
            "batch_norm_batch_size."
        )
    return replicas


def _group_mean(values, *, members):
    """The mean of a tensor over the replicas in this replica's group."""
    total = replicas.count()
    context = tf.distribute.get_replica_context()
    if members == total:
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values / total)
    # Strategies reduce only over all replicas: each replica adds its share to
    # its group's entry, and takes that entry.
    group = tf.cast(context.replica_id_in_sync_group, tf.int32) // members
    shape = [total // members] + [1] * values.shape.rank
    own = tf.reshape(tf.one_hot(group, shape[0], dtype=values.dtype), shape)
    shares = own * (values / members)
    return tf.gather(
        context.all_reduce(tf.distribute.ReduceOp.SUM, shares), group
    )
