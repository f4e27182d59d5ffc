"""How much arithmetic a network and a step of Meta Pseudo Labels need.

Only multiplications with kernels of convolutions and dense layers count, a
multiply-add as two; the rest is under a hundredth of them. Padding counts, as
the hardware computes it. A backward pass counts as two forward passes: one for
the gradient of the kernels, one for that of the inputs.
"""

import math

import keras

from meta_pseudo_labels.utils import compat

_COUNTED = (
    keras.layers.Conv2D,
    keras.layers.Dense,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)
FORWARD_AND_BACKWARD = 3  # In forward passes.

# Estimators that need the student's gradient on the labeled batch at its new
# weights, and those that also differentiate through the student's step.
_NEW_GRADIENT = ("reinforce_dot_product", "reinforce_cosine")
_SECOND_ORDER = ("exact", "reinforce_per_example")


def forward_flops(model):
    """Floating-point operations of a forward pass, an int per example.

    Args:
      model: a functional or sequential Keras model of fixed input shape, in
        which every layer is called once.

    Raises:
      ValueError: for an unknown layer with a kernel, or a layer without a fixed
        output shape.
    """
    return sum(layer_flops(layer) for layer in flat_layers(model))


def flat_layers(model):
    """The layers of a model and of models nested in it, without the models."""
    return [
        layer
        for layer in compat.layers_of(model)
        if not isinstance(layer, keras.Model)
    ]


def layer_flops(layer):
    """Like `forward_flops`, for one built layer."""
    kernels = [w for w in layer._trainable_variables if len(w.shape) > 1]
    if not kernels:
        return 0
    if not isinstance(layer, _COUNTED):
        raise ValueError(
            f"Layer {layer.name!r} is a {type(layer).__name__}, whose work is "
            "not known; add it to benchmarks/common/flops.py."
        )
    # Every entry of a kernel is used once per position of the output.
    positions = output_elements(layer) // layer.output.shape[-1]
    return 2 * positions * sum(math.prod(w.shape) for w in kernels)


def output_elements(layer):
    """How many numbers a layer outputs for one example.

    Raises:
      ValueError: if its output shape is unknown.
    """
    shape = layer.output.shape[1:]
    if None in shape:
        raise ValueError(
            f"Layer {layer.name!r} has output shape {shape}; build the model "
            "for a fixed input shape."
        )
    return math.prod(shape)


def mpl_step_flops(
    *, teacher, student, batch_size, unlabeled_ratio, feedback="exact"
):
    """Floating-point operations of one step of `MetaPseudoLabels`, an int.

    Left out: what is computed only in logged steps (a backward pass of the
    teacher), and what `exact` saves in the first layer.

    Args:
      teacher: operations of its forward pass per example, see `forward_flops`.
      student: the same for the student.
      batch_size: labeled examples, B.
      unlabeled_ratio: unlabeled examples per labeled one, mu.
      feedback: name of the estimator.
    """
    labeled, unlabeled = batch_size, batch_size * unlabeled_ratio
    teacher_forwards = FORWARD_AND_BACKWARD * (labeled + 2 * unlabeled)
    student_forwards = FORWARD_AND_BACKWARD * (unlabeled + labeled) + labeled
    if feedback in _NEW_GRADIENT + _SECOND_ORDER:
        student_forwards += 2 * labeled
    if feedback in _SECOND_ORDER:
        # The derivative of the gradient along a direction in weights: a second
        # pass over the joint batch with two products in each layer, of the
        # direction with inputs, and of weights with the inputs' derivatives.
        student_forwards += 2 * (unlabeled + labeled)
    return teacher * teacher_forwards + student * student_forwards
