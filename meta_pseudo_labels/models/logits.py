"""What a classifier must return: logits of classes, [batch, classes].

A network is checked once, on entry, and refused there with an explanation:
with another output it would silently train on something else.
"""

import math
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels.utils import compat


def check_classifier(model, *, role):
    """Refuses a built model that is known not to return logits.

    A functional model is checked by its graph. A subclassed one is traced in
    inference mode, on inputs of the shape that built it; if that fails,
    nothing is known before it is called (see `check_logits`).

    Args:
      model: a built `keras.Model`.
      role: such as "student", for the message.

    Raises:
      ValueError: see `check_logits`.
    """
    owner = f"The {role} {model.name!r}"
    if compat.is_plain(model):
        (*others, output) = model.outputs
        outputs = getattr(model, "output", None)  # Sequential has none.
        named = isinstance(outputs, dict)
        check_logits(outputs if others or named else output, owner=owner)
        if _is_linear(output):
            return
    inputs = _input_specs(model)
    outputs, function = _traced(model, inputs)
    if outputs is None:
        return
    check_logits(outputs, owner=owner)
    if _range(outputs, {}).low >= 0 and _gives_distributions(function, inputs):
        raise ValueError(_words_of_probabilities(outputs, owner))


def check_logits(outputs, *, owner, rows=None):
    """Refuses what a model returned unless it can be logits.

    Args:
      outputs: of a call: symbolic, in a graph, or eager. In a graph, values
        that can only lie in [0, 1], probabilities, are refused too.
      owner: the first words of the message.
      rows: number of rows of the inputs; None if unknown.

    Raises:
      ValueError: for several outputs, a shape other than [batch, classes] with
        two classes or more, a type other than float, a number of rows other
        than the inputs', or probabilities. Anything unknown is accepted.
    """
    must = owner + _MUST
    if not hasattr(outputs, "dtype"):
        found = tf.nest.flatten(outputs)
        shapes = ", ".join(_words(getattr(x, "shape", x)) for x in found)
        raise ValueError(
            f"{must}; it returns {len(found)} outputs ({shapes}) in a "
            f"{type(outputs).__name__}. Make a keras.Model of the logits alone."
        )
    shape = tf.TensorShape(outputs.shape)
    if shape.rank not in (None, 2):
        raise ValueError(
            f"{must}; it returns {_words(shape)}. Flatten or pool what comes "
            "before its last layer."
        )
    if shape.rank == 2 and shape[1] is not None and shape[1] < 2:
        raise ValueError(
            f"{must}, with two classes or more; it returns {_words(shape)}. "
            "Give it a logit for each class: two classes need Dense(2)."
        )
    if not tf.as_dtype(outputs.dtype).is_floating:
        raise ValueError(
            f"{must}, of a float type; it returns "
            f"{tf.as_dtype(outputs.dtype).name}."
        )
    if shape.rank == 2 and None not in (rows, shape[0]) and shape[0] != rows:
        raise ValueError(
            f"{must}; it returns {shape[0]} rows for {rows} inputs. Reshape "
            "and average within each row of a batch, not across them."
        )
    bounded = _range(outputs, {}) if tf.is_symbolic_tensor(outputs) else _ANY
    if bounded.low >= 0 and bounded.high <= 1:
        raise ValueError(_words_of_probabilities(outputs, owner))


_MUST = " must return logits, one tensor [batch, classes]"


def _words_of_probabilities(outputs, owner):
    source = _range(outputs, {}).source or outputs.name
    return (
        f"{owner}{_MUST}; its output is probabilities, from {source!r}. "
        "Leave that out (activation=None), as softmax is part of the loss."
    )


def _words(shape):
    sizes = ("batch", *shape[1:]) if len(shape) else ()
    return f"[{', '.join(str(size) for size in sizes)}]"


def _is_linear(tensor):
    """Whether a symbolic output comes from a dense layer without activation.

    That holds for most networks, and tracing one takes as long as building it.
    """
    layer, index = compat.producer(tensor)
    if isinstance(layer, keras.Model):
        return compat.is_plain(layer) and _is_linear(layer.outputs[index])
    plain = type(layer) is keras.layers.Dense
    return plain and layer.activation is keras.activations.linear


def _traced(model, inputs):
    """A model's outputs in a graph of its inference mode, and its function.

    Both are None if they are unknown, for example because the inputs are.
    """
    if inputs is None:
        return None, None
    outputs = []

    def call(inputs):
        eagerly = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)  # Everything in one graph.
        try:
            outputs.append(model(inputs, training=False))
        finally:
            tf.config.run_functions_eagerly(eagerly)
        return outputs[0]

    call = tf.function(call, autograph=False)
    try:
        function = call.get_concrete_function(inputs)
    except (TypeError, ValueError, AttributeError, tf.errors.OpError):
        return None, None  # Its inputs are not what they seem.
    return outputs[0], function


def _gives_distributions(function, specs):
    """Whether rows of outputs for noise are not negative and sum to 1.

    Used if the graph leaves that open.

    Args:
      function: a traced function of tensors like `specs`.
      specs: a nest of `tf.TensorSpec`.
    """
    random = np.random.default_rng(0)
    sizes = [size for x in tf.nest.flatten(specs) for size in x.shape[1:]]
    if None in sizes or isinstance(
        tf.distribute.get_strategy(), tf.distribute.TPUStrategy
    ):
        return False

    def noise(spec):
        shape = [spec.shape[0] or 2, *spec.shape[1:]]
        return tf.cast(random.normal(size=shape), spec.dtype)

    outputs = function(tf.nest.map_structure(noise, specs)).numpy()
    sums = outputs.astype("float64").sum(axis=-1)
    return bool((outputs >= 0).all() and (np.abs(sums - 1) < 0.01).all())


def _input_specs(model):
    """`tf.TensorSpec` of a model's inputs; None if unknown."""
    inputs = getattr(model, "inputs", None)
    if isinstance(inputs, list) and isinstance(inputs[0], keras.KerasTensor):
        inputs = getattr(model, "input", inputs[0])
        return tf.nest.map_structure(
            lambda x: tf.TensorSpec(x.shape, x.dtype), inputs
        )
    shape = (model.get_build_config() or {}).get("input_shape")
    if isinstance(shape, (tuple, list)) and shape and shape[1:]:
        if all(size is None or isinstance(size, int) for size in shape):
            return tf.TensorSpec(shape, model.input_dtype)
    return None


class _Range(NamedTuple):
    """Where all values of a tensor lie, and the operation that ensures it."""

    low: float
    high: float
    source: str | None = None


_ANY = _Range(-math.inf, math.inf)
# Where the results of operations lie, whatever their inputs.
_RANGES = {
    "Softmax": (0.0, 1.0),
    "Sigmoid": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "Relu6": (0.0, 6.0),
    "Relu": (0.0, math.inf),
    "Exp": (0.0, math.inf),
    "Softplus": (0.0, math.inf),
    "OneHot": (0.0, 1.0),
}
# Operations that pass values on, or take means of them.
_PASSING = set(
    "AvgPool BroadcastTo Cast CheckNumerics ConcatV2 EnsureShape ExpandDims "
    "GatherV2 Identity Max MaxPool Mean Min Pack PreventGradient Reshape "
    "SelectV2 Slice Split SplitV Squeeze StopGradient StridedSlice Tile "
    "Transpose Unpack".split()
)
# From inputs that are not negative, these make outputs that are not either.
_SUMS = {"BatchMatMulV2", "Einsum", "MatMul", "Prod", "Sum"}
_ARITHMETIC = {
    "Add": lambda a, b: (a.low + b.low, a.high + b.high),
    "AddV2": lambda a, b: (a.low + b.low, a.high + b.high),
    "Sub": lambda a, b: (a.low - b.high, a.high - b.low),
    "Mul": lambda a, b: _product(a, b),
    "RealDiv": lambda a, b: _quotient(a, b),
    "Maximum": lambda a, b: (max(a.low, b.low), max(a.high, b.high)),
    "Minimum": lambda a, b: (min(a.low, b.low), min(a.high, b.high)),
}


def _range(tensor, known):
    """`_Range` of a tensor in a graph, as far as the graph tells.

    Args:
      tensor: symbolic.
      known: a dict that caches the results.
    """
    if tensor.ref() not in known:
        known[tensor.ref()] = _find_range(tensor, known)
    return known[tensor.ref()]


def _find_range(tensor, known):
    operation = tensor.op
    kind, inputs = operation.type, operation.inputs
    if kind in _RANGES:
        return _Range(*_RANGES[kind], operation.name)
    if kind == "Const":
        value = tf.get_static_value(tensor)
        real = tensor.dtype.is_floating and value is not None and value.size
        return _Range(float(value.min()), float(value.max())) if real else _ANY
    if kind == "IdentityN":
        return _range(inputs[tensor.value_index], known)
    if kind in _PASSING:
        parts = [_range(x, known) for x in inputs if x.dtype.is_floating]
        return _hull(parts) if parts else _ANY
    if kind not in _ARITHMETIC and kind not in _SUMS:
        return _ANY
    parts = [_range(x, known) for x in inputs if x.dtype.is_floating]
    source = next((part.source for part in parts if part.source), None)
    if kind in _SUMS:
        positive = parts and all(part.low >= 0 for part in parts)
        return _Range(0.0, math.inf, source) if positive else _ANY
    if kind == "RealDiv" and parts[0].low >= 0 and _is_sum_of(*inputs):
        return _Range(0.0, 1.0, source or operation.name)
    return _Range(*_ARITHMETIC[kind](*parts), source)


def _hull(parts):
    return _Range(
        min(part.low for part in parts),
        max(part.high for part in parts),
        next((part.source for part in parts if part.source), None),
    )


def _is_sum_of(values, total):
    """Whether `total` is the sum of `values`, so that quotients are shares."""
    operation = total.op
    while operation.type in ("Identity", "Reshape", "ExpandDims"):
        operation = operation.inputs[0].op
    return operation.type == "Sum" and (
        operation.inputs[0].ref() == values.ref()
    )


def _product(a, b):
    corners = [x * y for x in a[:2] for y in b[:2]]
    if any(math.isnan(corner) for corner in corners):  # Infinity times 0.
        return (0.0 if a.low >= 0 and b.low >= 0 else -math.inf), math.inf
    return min(corners), max(corners)


def _quotient(a, b):
    if b.low <= 0 <= b.high:
        return -math.inf, math.inf
    return _product(a, _Range(1 / b.high, 1 / b.low))
