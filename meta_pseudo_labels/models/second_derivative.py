"""Derivatives that TensorFlow lacks: defined here, or refused by layer name.

Feedback through the student's update differentiates its gradient again, with
respect to the pseudo labels. TensorFlow silently treats an operation that is
registered as not differentiable as a constant, and everything behind it drops
out.
"""

import re

import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.utils import compat

# Their derivative is 0 wherever it exists.
_CONSTANT = {
    *("StopGradient", "ZerosLike", "OnesLike"),
    *("Ceil", "Floor", "Rint", "Round", "Sign"),
}
# Exchanges between replicas have a derivative, defined by the strategies.
_EXCHANGES = ("Collective", "Nccl")
# Operations whose derivatives fail when asked for, or belong to another
# function: for turned images, TensorFlow takes the gradient turned back.
_WRONG = {
    "QuantizeAndDequantizeV4Grad",
    *("ImageProjectiveTransformV2", "ImageProjectiveTransformV3"),
}


def check(learner, learn, learned):
    """Refuses a student whose gradient has no derivative w.r.t. the labels.

    Args:
      learner: the learner of the student.
      learn: function from pseudo labels to something like `learned`.
      learned: has `pseudo_labels` and, as `prepared`, the gradients for them.

    Raises:
      ValueError: see `check_path`.
    """
    if not tf.executing_eagerly():
        check_path(learned.prepared, learned.pseudo_labels, learner.student)
    elif learner.run_eagerly and not replicas.merges():  # Without a graph.

        def trace(labels):
            again = learn(labels)
            check_path(again.prepared, again.pseudo_labels, learner.student)

        tf.function(trace, autograph=False).get_concrete_function(
            learned.pseudo_labels
        )


def check_path(gradients, labels, model):
    """Refuses operations that cut gradients off from labels.

    Args:
      gradients: tensors of the graph that is being traced, computed from the
        labels through the model's gradient.
      labels: a tensor of the same graph.
      model: the model whose layers the message can name.

    Raises:
      ValueError: for an operation without a derivative between the two.
    """
    wanted, todo = set(), [gradient.op for gradient in gradients]
    while todo:
        operation = todo.pop()
        if operation not in wanted:
            wanted.add(operation)
            todo += [x.op for x in operation.inputs if _is_smooth(x)]
    operations = [
        op for op in labels.graph.get_operations() if op in wanted
    ]  # In the order of creation: outputs come before their uses.
    _walk(operations, {id(labels)}, model)


def _walk(operations, reached, model, scopes=()):
    """Adds to `reached` the ids of outputs that depend on reached tensors."""
    for operation in operations:
        named = (*scopes, *operation.name.split("/"))
        which = [
            index
            for index, x in enumerate(operation.inputs)
            if id(x) in reached and _is_smooth(x)
        ]
        outputs = [x for x in operation.outputs if _is_smooth(x)]
        if not which or not outputs or operation.type in _CONSTANT:
            continue
        if not operation.type.startswith(_EXCHANGES):
            _check(operation, model, named)
        for graph, offset in compat.graphs_within(operation):
            inner = {
                id(graph.inputs[index - offset])
                for index in which
                if index >= offset
            }
            if "While" in operation.type:  # Later rounds may reach any input.
                inner = {id(x) for x in graph.inputs}
            _walk(graph.get_operations(), inner, model, named)
        reached.update(map(id, outputs))


def _check(operation, model, scopes):
    try:
        known = compat.gradient_function(operation) is not None
        if known and operation.type not in _WRONG:
            return
    except LookupError:
        pass
    where = _layer_of(scopes, model) or repr(operation.name)
    raise ValueError(
        f"{where} of the student {model.name!r} has no second derivative "
        f"(TensorFlow's {operation.type}), which exact, reinforce_per_example "
        "and estimators that use them need. Use another layer, or "
        'feedback="reinforce", "reinforce_cosine" or "reinforce_dot_product".'
    )


def underived(error, model):
    """The error to raise for an operation without even a first derivative.

    Args:
      error: the LookupError of a tape that met it.
      model: the model whose gradient was asked for.

    Returns:
      A ValueError that names the layer if there is a graph to find it in; any
      other error as it is.
    """
    found = re.search(r"(?:no entry for: |op type: )(\w+)", str(error))
    if not found:
        return error
    kind = found[1]
    layers = [
        _layer_of(scopes, model)
        for operation, scopes in _all_within(_graph_of(model))
        if operation.type == kind
    ]
    # Others may lie before all that is trained, where no derivative is needed.
    where = ([None, *filter(None, layers)])[-1] or "An operation"
    return ValueError(
        f"{where} of {model.name!r} has no derivative (TensorFlow's {kind}), "
        "so no weights below it can learn, whatever the method or the "
        "feedback, even with reinforce. Use another layer (instead of area "
        "resizing: bilinear), or put it before the first one with weights."
    )


def _layer_of(scopes, model):
    """The innermost layer in the scopes of an operation, in words."""
    names = {layer.name for layer in compat.layers_of(model)} - {model.name}
    tried = [t for s in scopes for t in (re.sub(r"_\d+$", "", s), s)]
    layers = [scope for scope in tried if scope in names]
    return f"The layer {layers[-1]!r}" if layers else None


def _graph_of(model):
    """The graph that is being traced; without one, a graph of the model."""
    if not tf.executing_eagerly():
        return tf.compat.v1.get_default_graph()
    inputs = [
        tf.TensorSpec(x.shape, x.dtype) for x in getattr(model, "inputs", [])
    ]
    if not inputs:
        return None
    call = tf.function(
        lambda *x: model(x[0] if len(x) == 1 else [*x], training=True),
        autograph=False,
    )
    return call.get_concrete_function(*inputs).graph


def _all_within(graph, scopes=()):
    """Operations of a graph and its functions, each with its scope names."""
    for operation in graph.get_operations() if graph else []:
        named = (*scopes, *operation.name.split("/"))
        yield operation, named
        for inner, _ in compat.graphs_within(operation):
            yield from _all_within(inner, named)


def _is_smooth(tensor):
    """Whether it can have a derivative: numbers, or lists of them."""
    dtype = tensor.dtype
    return dtype.is_floating or dtype.is_complex or dtype == tf.variant


def _spatial(tensor):
    return tf.shape(tensor)[1:3]


def _resized(resize):
    """The derivative of resizing's gradient, which is linear: resizing."""

    def derivative(operation, upstream):
        gradient = operation.inputs[0]
        resized = resize(
            images=upstream,
            size=_spatial(gradient),
            align_corners=operation.get_attr("align_corners"),
            half_pixel_centers=operation.get_attr("half_pixel_centers"),
        )
        return tf.cast(resized, gradient.dtype), None

    return derivative


def _scale_and_translate(operation, upstream):
    gradient, _, scale, translation = operation.inputs
    resized = tf.raw_ops.ScaleAndTranslate(
        images=upstream,
        size=_spatial(gradient),
        scale=scale,
        translation=translation,
        kernel_type=operation.get_attr("kernel_type"),
        antialias=operation.get_attr("antialias"),
    )
    return resized, None, None, None


def _crop_and_resize(operation, upstream):
    gradient, boxes, indices, _ = operation.inputs
    cropped = tf.raw_ops.CropAndResize(
        image=upstream,
        boxes=boxes,
        box_ind=indices,
        crop_size=_spatial(gradient),
        method=operation.get_attr("method"),
    )
    return tf.cast(cropped, gradient.dtype), None, None, None


def _softsign(operation, upstream):
    gradient, features = operation.inputs
    slope = -2.0 * tf.sign(features) * tf.pow(1.0 + tf.abs(features), -3.0)
    return (
        tf.raw_ops.SoftsignGrad(gradients=upstream, features=features),
        upstream * gradient * slope,
    )


DERIVATIVES = {
    "ResizeBilinearGrad": _resized(tf.raw_ops.ResizeBilinear),
    "ResizeNearestNeighborGrad": _resized(tf.raw_ops.ResizeNearestNeighbor),
    "ResizeBicubicGrad": _resized(tf.raw_ops.ResizeBicubic),
    "ScaleAndTranslateGrad": _scale_and_translate,
    "CropAndResizeGradImage": _crop_and_resize,
    "SoftsignGrad": _softsign,
}


def _bilinear(operation, upstream):
    """The gradient of ResizeBilinear, like TensorFlow's, with a derivative.

    A tape does not keep what the derivative above needs, since it assumes that
    there is none.
    """
    images, size = operation.inputs[0], _spatial(upstream)
    settings = {
        name: operation.get_attr(name)
        for name in ("align_corners", "half_pixel_centers")
    }

    @tf.custom_gradient
    def gradient(grads):
        result = tf.raw_ops.ResizeBilinearGrad(
            grads=grads, original_image=images, **settings
        )

        def derivative(upstream):
            return tf.raw_ops.ResizeBilinear(
                images=upstream, size=size, **settings
            )

        return result, derivative

    return gradient(upstream), None


for _name, _derivative in DERIVATIVES.items():
    compat.give_gradient(_name, _derivative)
compat.give_gradient("ResizeBilinear", _bilinear, instead=True)
