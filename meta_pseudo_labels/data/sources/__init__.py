"""Where images come from: one file for each kind of data set.

    @SOURCES.register("my_set")
    class MySet(Source):
        def load(self, num_labeled, seed, label_subset, **others):
            return data.from_arrays(...)

Then `data.load("my_set", ...)` and --dataset=my_set know it. Files in this
package are found automatically; name your own module in --plugin.
"""

import functools

import tensorflow as tf

from meta_pseudo_labels.data.images.levels import (
    decode_deep,
    is_deep_in_graph,
    to_8_bits,
)
from meta_pseudo_labels.data.images.orientation import upright_in_graph
from meta_pseudo_labels.data.images.resizing import (
    resized_as_released,
    square_images,
)
from meta_pseudo_labels.data.spec import DATASETS
from meta_pseudo_labels.utils.registry import Registry

_FITTED = {
    "crop": "short side scaled, center cropped",
    "pad": "long side scaled, padded",
    "squash": "each side scaled",
}

SOURCES = Registry("data set", package="meta_pseudo_labels.data.sources")


class Source:
    """A kind of data set: how it is loaded, and how its pictures are prepared.

    The preparation is what evaluation does to a picture, done in a graph. By
    default, if all images of a set have one size by the table, they are resized
    as in the release; any other picture is made square according to
    `spec.image_fit`, see `resizing.square_image`.

    Attributes:
      hint: for a name that stands for many, such as "tfds:<name>": what these
        are, for the message about unknown names.
      exact: whether files are decoded as by `decoding.decode_image`, which
        refuses some of them; otherwise in TensorFlow's faster way, as in TFDS.
    """

    hint = None
    exact = False

    def matches(self, name):
        """Whether a name that is not registered is of this kind too."""
        del name
        return False

    def load(self, **settings):
        """Loads the images.

        Args:
          **settings: those of `data.load`, including `name`; a source declares
            the ones that it reads and gets no others.

        Returns:
          `ImageData` or `ShardedData`.

        Raises:
          ValueError: if the set cannot be loaded with these settings.
        """
        raise NotImplementedError

    def prepare(self, images, spec):
        """Brings pictures to the model's size, unless they have it already.

        Args:
          images: [batch, height, width, 3] uint8.
          spec: `DatasetSpec` of the model.

        Returns:
          [batch, image_size, image_size, 3] uint8.
        """
        height, width = tf.unstack(tf.shape(images)[1:3])
        return tf.cond(
            (height == spec.image_size) & (width == spec.image_size),
            lambda: images,
            lambda: self.resize(images, spec),
        )

    def prepare_file(self, encoded, spec, *, is_jpeg, max_pixels):
        """Decodes a picture and brings it to the model's size.

        Args:
          encoded: [] string, a JPEG or PNG file with a valid header.
          spec: `DatasetSpec` of the model.
          is_jpeg: [] bool.
          max_pixels: larger pictures have already been refused.

        Returns:
          [image_size, image_size, 3] uint8.
        """
        del is_jpeg, max_pixels
        return self.prepare(self.decode(encoded, spec), spec)[0]

    def decode(self, encoded, spec):
        """[1, height, width, 3] uint8 of a JPEG or PNG file, upright."""
        image = tf.cond(
            is_deep_in_graph(encoded),
            lambda: to_8_bits(decode_deep(encoded), spec.deep_levels),
            # The operation decodes PNG too.
            lambda: tf.io.decode_jpeg(
                encoded,
                channels=3,
                dct_method="INTEGER_ACCURATE" if self.exact else "",
            ),
        )
        return upright_in_graph(image, encoded)[tf.newaxis]

    def resize(self, images, spec):
        """Like `prepare`, for pictures of any size."""
        size, own = spec.image_size, _own_size(spec)
        fitted = functools.partial(
            square_images, images, size, spec.image_fit, spec.background
        )
        if own in (None, size):
            return fitted()
        shape = tf.shape(images)
        return tf.cond(
            (shape[1] == own) & (shape[2] == own),
            lambda: resized_as_released(images, size),
            fitted,
        )

    def describe(self, spec):
        """What is done to a picture, for people to read."""
        size = f"{spec.image_size} x {spec.image_size} pixels"
        square = f"{_FITTED[spec.image_fit]}, to {size}, bicubic"
        own = _own_size(spec)
        if own in (None, spec.image_size):
            return square
        return (
            f"from {own} x {own} resized to {size}, bicubic; others: {square}"
        )


def find_source(name):
    """The `Source` that knows a name; None if none does."""
    if name in SOURCES:
        return SOURCES[name]()
    kinds = (kind() for kind in SOURCES.values())
    return next((kind for kind in kinds if kind.matches(name)), None)


def source_of(spec):
    """The `Source` of images; for your own arrays, the base class."""
    return find_source(spec.name) or Source()


def _own_size(spec):
    """The size of all images of a set in the table; None for other sets."""
    row = DATASETS.get(spec.name)
    return row and row.image_size
