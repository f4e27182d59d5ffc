"""Random operations on some rows of a batch, as on the whole batch.

What rand_augment.py and keras_cv_policy.py do to a batch of images, for the
images of some of its rows only. The choices of all rows are drawn, a few
numbers for each image, as one row's depend on the size of the batch; the
others' images are not needed. Each function takes

    images: [n, H, W, 3] uint8, those of `rows`;
    seed: [2] integers, of the whole batch;
    rows: `shares.Rows`, n of them;

and returns [n, H, W, 3] uint8: these rows of what the whole batch becomes.
"""

import dataclasses

import tensorflow as tf

from meta_pseudo_labels.data.images import keras_cv_policy, rand_augment
from meta_pseudo_labels.data.images import operations as augment


def random_flip(images, *, seed, rows):
    """Some rows of `rand_augment.random_flip`."""
    flipped = tf.cast(rows.of(rand_augment.coin(rows.total, seed)), tf.int32)
    return augment.apply_by_group(
        images, flipped, [None, lambda images, _: augment.mirror(images)]
    )


def pad_and_random_crop(images, *, seed, rows, pad, fill):
    """Some rows of `rand_augment.pad_and_random_crop`."""
    offset = rows.of(
        tf.random.stateless_uniform(
            [rows.total, 2], seed, -pad, pad + 1, tf.int32
        )
    )
    return augment.crop(images, top=offset[:, 0], left=offset[:, 1], fill=fill)


def random_cutout(images, *, seed, rows, half_size, fill):
    """Some rows of `rand_augment.random_cutout`."""
    center = rows.of(
        rand_augment.draw_center(_shape_of_all(images, rows), seed=seed)
    )
    return augment.cutout(images, center=center, half_size=half_size, fill=fill)


def release_rand_augment(images, *, seed, rows, num_layers, **level):
    """Some rows of `rand_augment.rand_augment`; `level` of its arguments."""
    arguments = rand_augment.level_arguments(**level)
    for draws in rand_augment.draw_layers(
        _shape_of_all(images, rows), seed=seed, num_layers=num_layers
    ):
        draws = rand_augment.Draws(
            **{
                field.name: rows.of(getattr(draws, field.name))
                for field in dataclasses.fields(draws)
            }
        )
        images = augment.apply_by_group(
            images,
            draws.operation,
            rand_augment.bind_operations(draws, arguments),
        )
    return images


def _shape_of_all(images, rows):
    """As many images as the whole batch has, of no channels, so no memory."""
    return tf.zeros([rows.total, *images.shape[1:3], 0], images.dtype)


def keras_cv_rand_augment(*, magnitude):
    """Some rows of the function `keras_cv_policy.keras_cv_rand_augment` gives.

    Args:
      magnitude: see there; the other arguments are left at their defaults.

    Returns:
      A function of (images, *, seed, rows).
    """
    draws = _GroupDraws()
    operations = keras_cv_policy.policy_operations(
        magnitude, keras_cv_policy.MAGNITUDE_STDDEV, draws
    )

    def apply(images, *, seed, rows):
        draws.start(seed)
        augmented = tf.cast(images, tf.float32)
        for _ in range(keras_cv_policy.NUM_LAYERS):
            choice = draws.of_all([rows.total], 0, len(operations), tf.int32)
            skipped = draws.of_all([rows.total]) > keras_cv_policy.RATE
            choice = tf.where(skipped, len(operations), choice)
            augmented = augment.apply_by_group(
                augmented,
                rows.of(choice),
                [*draws.by_group(operations, choice, rows), None],
            )
        augmented = tf.clip_by_value(tf.round(augmented), 0, 255)
        return tf.ensure_shape(tf.cast(augmented, tf.uint8), images.shape)

    return apply


class _GroupDraws(keras_cv_policy.KeyedDraws):
    """Draws for a part of the images that have chosen one operation.

    KerasCV's layers ask for as many amounts as there are images; so many are
    drawn as would be for the whole batch, and those of its rows are picked.
    """

    of_all = keras_cv_policy.KeyedDraws.uniform

    def by_group(self, operations, choice, rows):
        """Operations for `apply_by_group` that draw as for the whole batch.

        Args:
          operations: see `keras_cv_policy.policy_operations`.
          choice: [total] int32, which of them each image undergoes.
          rows: those that are there.
        """

        def bind(number):
            chosen = tf.cast(tf.equal(choice, number), tf.int32)
            before = tf.reduce_sum(chosen[: rows.begin])
            size = tf.reduce_sum(chosen)

            def apply(images, places):
                self._size, self._before = size, before
                return operations[number](images, places)

            return apply

        return map(bind, range(len(operations)))

    def uniform(self, shape, *args, **settings):
        return self._pick(shape[0], self.of_all, shape, *args, **settings)

    def normal(self, shape, *args, **settings):
        return self._pick(shape[0], super().normal, shape, *args, **settings)

    def _pick(self, count, draw, shape, *args, **settings):
        values = draw([self._size, *shape[1:]], *args, **settings)
        return values[self._before : self._before + count]
