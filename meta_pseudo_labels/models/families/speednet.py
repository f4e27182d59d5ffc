"""Small, fast networks in the style of the speed records on CIFAR-10.

Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv 2404.00498):
patches whitened by a frozen layer, wide convolutions that begin as identities,
no residuals. A forward and backward pass costs a fraction of a wide ResNet's,
and few epochs are enough.
"""

import dataclasses
import re

import keras

from meta_pseudo_labels.models.activations import gelu
from meta_pseudo_labels.models.batch_norm import AS_RELEASED
from meta_pseudo_labels.models.dense import classification_head
from meta_pseudo_labels.models.families import FAMILIES, Family
from meta_pseudo_labels.models.initializers import Dirac
from meta_pseudo_labels.models.layers import LayerFactory, image_input
from meta_pseudo_labels.models.whitening import Whitening

_WIDEST, _SMALLEST = 4096, 9
_PATCH = 2
# The bias of batch norm learns at 64 times the rate, and logits start small.
_BETA_FACTOR, _LOGIT_FACTOR = 8.0, 1 / 9


def speednet(
    *,
    width,
    input_shape,
    num_classes,
    dropout_rate=0.0,
    norm=AS_RELEASED,
    name=None,
    dtype=None,
):
    """Builds a fast network; `models.adapt` it to images before training.

    Args:
      width: filters of the first stage; the other two have 4 times as many. The
        paper's is 64.
      input_shape: (height, width, channels) of one image, of 9x9 pixels or
        more.
      num_classes: number of logits, 2 or more.
      dropout_rate: before the last layer, in [0, 1).
      norm: `NormSettings` of its batch norm.
      name: of the model.
      dtype: dtype or policy of the layers; None is the global policy.

    Returns:
      A functional `keras.Model` from images [batch, *input_shape] to logits
      [batch, num_classes], float32 or (if computed in it) float64.

    Raises:
      ValueError: for a width, a shape or a rate out of range.
    """
    check_width(width)
    layers = _Layers(policy=keras.dtype_policies.get(dtype), norm=norm)
    images = image_input(input_shape, policy=layers.policy)
    if min(input_shape[:2]) < _SMALLEST:
        raise ValueError(
            f"A speednet halves images three times: they must have "
            f"{_SMALLEST}x{_SMALLEST} pixels or more, got "
            f"{input_shape[0]}x{input_shape[1]}."
        )
    x = layers.apply(Whitening, images, "whitening", size=_PATCH)
    x = layers.gelu(x, scope="whitening")
    for stage, filters in enumerate((width, 4 * width, 4 * width), start=1):
        x = layers.stage(x, filters, scope=f"stage_{stage}")
    x = layers.apply(keras.layers.GlobalMaxPooling2D, x, "head.global_max_pool")
    logits = classification_head(
        x * _LOGIT_FACTOR,
        num_classes=num_classes,
        dropout_rate=dropout_rate,
        kernel_initializer=keras.initializers.VarianceScaling(
            scale=1 / 3, mode="fan_in", distribution="uniform"
        ),
        use_bias=False,
        dtype=layers.policy,
    )
    return keras.Model(images, logits, name=name)


def check_width(width):
    """Raises ValueError for a width that no speednet can have."""
    if not 1 <= width <= _WIDEST:
        raise ValueError(
            f"width of a speednet must be from 1 to {_WIDEST}, got {width}."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layers(LayerFactory):
    def stage(self, x, filters, *, scope):
        """Two 3x3 convolutions; the first halves the image."""
        x = self.conv_norm_gelu(x, filters, scope=f"{scope}.conv_1", pool=True)
        return self.conv_norm_gelu(x, filters, scope=f"{scope}.conv_2")

    def conv_norm_gelu(self, x, filters, *, scope, pool=False):
        """Convolution, max pooling if asked for, batch norm, activation."""
        x = self.apply(
            keras.layers.Conv2D,
            x,
            f"{scope}.conv2d",
            filters=filters,
            kernel_size=3,
            padding="same",
            use_bias=False,
            kernel_initializer=Dirac(),
        )
        if pool:
            x = self.apply(keras.layers.MaxPooling2D, x, f"{scope}.max_pool")
        x = self.apply(
            self.norm.layer,
            x,
            f"{scope}.batch_norm",
            scale=False,
            beta_factor=_BETA_FACTOR,
        )
        return self.gelu(x, scope=scope)

    def gelu(self, x, *, scope):
        name = f"{scope}.gelu"
        return self.apply(keras.layers.Activation, x, name, activation=gelu)


@FAMILIES.register("speednet")
class Speednets(Family):
    known = "speednet-<width>"
    examples = ("speednet-32", "speednet-64")
    builder = staticmethod(speednet)

    @staticmethod
    def sizes(model_type):
        number = re.fullmatch(r"speednet-(\d{1,9})", model_type)
        if not number:
            return None
        check_width(int(number[1]))
        return dict(width=int(number[1]))

    @staticmethod
    def weights(sizes, *, input_shape, num_classes):
        width = sizes["width"]
        patch = 2 * _PATCH**2 * input_shape[-1]
        # Two convolutions per stage, with 1, 4 and 4 times width filters.
        pairs = patch + (1 + 4 + 16 + 16 + 16) * width
        return 9 * width * pairs + 4 * width * num_classes
