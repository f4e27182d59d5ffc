"""KerasCV's RandAugment as the policy of the strong view.

The ten operations, their amounts and how often they happen are KerasCV 0.9's
(`keras_cv.layers.RandAugment`); only the source of random numbers is ours.
KerasCV draws from two kinds of stateful generators, so that what an image looks
like would depend on what was read before it, and on which thread came first:

* `layer._random_generator`, a tf.random.Generator;
* factor samplers, which call tf.random.uniform or tf.random.normal.

Here both are replaced, layer by layer, by stateless draws from the seed of the
batch. KerasCV also walks through a batch image by image; here all images that
drew the same operation are processed together (`apply_by_group`), which gives
the same distribution in less time.
"""

import contextlib
import functools

import tensorflow as tf

from meta_pseudo_labels.data.images import operations as augment
from meta_pseudo_labels.data.images.rand_augment import (
    MAX_LEVEL,
    batch_size,
    pick,
)
from meta_pseudo_labels.utils import compat

RATE = 10 / 11  # Probability of an operation; KerasCV's default.
MAGNITUDE_STDDEV = 0.15  # KerasCV's default.
NUM_LAYERS = 2


def keras_cv_rand_augment(
    *,
    magnitude,
    magnitude_stddev=MAGNITUDE_STDDEV,
    num_layers=NUM_LAYERS,
    rate=RATE,
):
    """KerasCV's RandAugment, keyed by a seed like all views.

    It has no rotation, cutout, inversion, posterization or sharpness; shifts
    and shears fill with reflections of the image instead of gray.

    Args:
      magnitude: 0 to 10, the same scale as `views.rand_augment`; KerasCV
        uses 0 to 1, so 5 is its default 0.5.
      magnitude_stddev: standard deviation of the normal distribution around the
        magnitude from which some amounts are drawn, in KerasCV's units, [0, 1].
      num_layers: operations in a row, >= 0. KerasCV's own default is 3.
      rate: probability that each of them is applied, in [0, 1].

    Returns:
      A function of images [B, H, W, 3] uint8, a [2] integer seed, and, if the
      images are not the whole batch, `shares.Rows`, see rand_augment.py; it
      returns [B, H, W, 3] uint8, the same for the same seed.

    Raises:
      ValueError: if a number is out of range.
      ImportError: if KerasCV is not installed.
    """
    if not 0 <= magnitude <= MAX_LEVEL:
        raise ValueError(
            f"magnitude is {magnitude}; KerasCV's RandAugment accepts 0 to "
            f"{MAX_LEVEL}. Larger ones need the release's own policy (on the "
            "command line --augment_magnitude and --augment_policy)."
        )
    for name, share in (("magnitude_stddev", magnitude_stddev), ("rate", rate)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be in [0, 1]; got {share}.")
    draws = KeyedDraws()
    operations = _policy_operations(magnitude, magnitude_stddev, draws)

    def apply(images, seed, rows=None):
        draws.start(seed)
        augmented = tf.cast(images, tf.float32)
        for _ in range(num_layers):
            augmented = _random_operation(
                augmented, operations, draws, rate, rows
            )
        augmented = tf.clip_by_value(tf.round(augmented), 0, 255)
        return tf.ensure_shape(tf.cast(augmented, tf.uint8), images.shape)

    return apply


class KeyedDraws:
    """Stateless draws, each keyed by its number since `start`.

    The numbers are counted while the graph is built, so they are part of the
    graph: only the seed changes from batch to batch.
    """

    def start(self, seed):
        """Starts again with another seed, [2] integers."""
        self._seed, self._count, self._group = seed, 0, None

    def for_group(self, chosen, rows):
        """Makes the following draws for the images of one group.

        KerasCV's layers ask for one amount per image. If the images are only
        some `rows`, as many amounts are drawn as for the whole batch, and those
        of the rows are picked.

        Args:
          chosen: [total] booleans, the images of the whole batch that are in
            the group; None for draws for all images.
          rows: `shares.Rows`, or None for whole batches.
        """
        self._group = None
        if rows is not None and chosen is not None:
            chosen = tf.cast(chosen, tf.int32)
            before = tf.reduce_sum(chosen[: rows.begin])
            self._group = tf.reduce_sum(chosen), before

    def uniform(self, shape, minval=0, maxval=None, dtype=tf.float32):
        """Replaces `tf.random.Generator.uniform`."""
        return self._draw(
            tf.random.stateless_uniform, shape, minval, maxval, dtype
        )

    def normal(self, shape, mean, stddev, dtype):
        return self._draw(
            tf.random.stateless_normal, shape, mean, stddev, dtype
        )

    def _draw(self, draw, shape, *settings):
        self._count += 1
        seed = tf.random.fold_in(self._seed, self._count)
        if self._group is None:
            return draw(shape, seed, *settings)
        size, before = self._group
        values = draw([size, *shape[1:]], seed, *settings)
        return values[before : before + shape[0]]


def _random_operation(images, operations, draws, rate, rows=None):
    """One operation for each image, or none with probability 1 - rate."""
    draws.for_group(None, rows)
    batch = batch_size(images, rows)
    choice = draws.uniform([batch], 0, len(operations), tf.int32)
    skipped = draws.uniform([batch]) > rate
    choice = tf.where(skipped, len(operations), choice)

    def bind(number, operation):
        def apply(images, places):
            draws.for_group(tf.equal(choice, number), rows)
            return operation(images, places)

        return apply

    return augment.apply_by_group(
        images,
        pick(choice, rows),
        [*map(bind, range(len(operations)), operations), None],
    )


def _policy_operations(magnitude, magnitude_stddev, draws):
    """KerasCV's ten operations, as `augment.apply_by_group` expects them.

    Args:
      magnitude: see `keras_cv_rand_augment`.
      magnitude_stddev: see `keras_cv_rand_augment`.
      draws: `KeyedDraws` from which they draw their amounts.
    """
    layers = policy_layers(magnitude / MAX_LEVEL, magnitude_stddev, draws)
    return [*map(_as_operation, layers)]


def _as_operation(layer):
    """A layer as `apply_by_group` expects it."""
    # KerasCV's code needs AutoGraph, which our pipelines do not use.
    augment_images = tf.function(
        layer.augment_images, autograph=True, reduce_retracing=True
    )

    def apply(images, places):
        # Drawn for an empty group too, so that the count of draws is the same
        # with and without graphs, which hold both branches of the condition.
        amounts = layer.get_random_transformation_batch(
            tf.size(places), images=images
        )
        # Equalization fails on an empty batch.
        return tf.cond(
            tf.size(places) > 0,
            lambda: augment_images(images, transformations=amounts),
            lambda: images,
        )

    return apply


def policy_layers(magnitude, magnitude_stddev, draws):
    """KerasCV's ten layers, drawing from `draws`."""
    keras_cv = _import_keras_cv()
    with _as_global_generator(draws):
        layers = keras_cv.layers.RandAugment.get_standard_policy(
            (0, 255), magnitude, magnitude_stddev
        )
    keyed = {
        keras_cv.core.UniformFactorSampler: _uniform,
        keras_cv.core.NormalFactorSampler: _normal,
    }
    for layer in layers:
        for name, value in list(vars(layer).items()):
            if type(value) in keyed:
                sampler = keyed[type(value)]
                setattr(layer, name, functools.partial(sampler, value, draws))
    return layers


@contextlib.contextmanager
def _as_global_generator(draws):
    """Makes `draws` the global generator, which KerasCV's layers ask for.

    They do so when they are built. TensorFlow's own generator would make a
    variable, which fixes its devices and is an error under
    enable_op_determinism.
    """
    before = compat.present_global_generator()
    tf.random.set_global_generator(draws)
    try:
        yield
    finally:
        tf.random.set_global_generator(before)


def _uniform(sampler, draws, shape=(), dtype="float32"):
    """What a UniformFactorSampler draws."""
    return draws.uniform(shape, sampler.lower, sampler.upper, dtype)


def _normal(sampler, draws, shape=(), dtype="float32"):
    """What a NormalFactorSampler draws."""
    return tf.clip_by_value(
        draws.normal(shape, sampler.mean, sampler.stddev, dtype),
        sampler.min_value,
        sampler.max_value,
    )


def _import_keras_cv():
    """KerasCV, which takes seconds to import and is needed by few runs."""
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError(
            "KerasCV's RandAugment needs KerasCV, which is not installed: "
            "pip install 'keras-cv>=0.9,<0.10', or keep the release's policy."
        ) from error
    return keras_cv
