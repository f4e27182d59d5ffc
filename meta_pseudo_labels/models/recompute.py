"""Saves memory at the cost of time: gradients recompute what they need.

A tape keeps what lies between a function's inputs and its outputs until it
computes the gradient. Here only the inputs are kept, and the gradient computes
the rest again (Chen et al., arXiv 1604.06174). Why not `tf.recompute_grad`, or
`keras.remat` on top of it: it refuses a gradient of a gradient, which `exact`
feedback needs, and moves batch norm's moving averages twice.
"""

import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.models.stateless import call_with


def call_again(model, slices, layouts=None):
    """Training-mode outputs of a model, slice by slice; keeps no activations.

    Slices are computed one after the other, in the gradient too, so that only
    one is in memory at a time. All start from the same states: seeds of random
    layers, moving averages. The model's variables do not move.

    Args:
      model: a built Keras model that adds no losses when called.
      slices: list of inputs of the model.
      layouts: for each slice a function that returns a context manager, see
        `replicas.joint_batch`; None keeps the present layout.

    Returns:
      The outputs, a list with one element for each slice, and the new states
      after each: lists of tensors, one per non-trainable variable.

    Raises:
      ValueError: for a model that adds losses when it is called.
    """
    weights = [tf.convert_to_tensor(v.value) for v in model.trainable_variables]
    states = [
        tf.convert_to_tensor(v.value) for v in model.non_trainable_variables
    ]
    variables = [
        id(v)
        for v in (*model.trainable_variables, *model.non_trainable_variables)
    ]
    layouts = layouts or [replicas.present_layout()] * len(slices)
    structure = slices[0]
    new_states = {}

    def function(number, weights, inputs):
        with layouts[number]():
            outputs, changed, losses = call_with(
                model,
                dict(zip(variables, [*weights, *states], strict=True)),
                tf.nest.pack_sequence_as(structure, inputs),
                training=True,
            )
        _check_losses(model, losses)
        # A recomputation begins and ends with the same states.
        new_states.setdefault(number, changed)
        return [], [outputs]

    _, outputs = _map_and_sum(
        function, weights, [tf.nest.flatten(inputs) for inputs in slices]
    )
    return (
        [output for (output,) in outputs],
        [new_states[number] for number in range(len(slices))],
    )


def _check_losses(model, losses):
    """Refuses losses that would never reach the learner."""
    regularized = [v for v in model.trainable_variables if v.regularizer]
    if len(losses) > len(regularized):
        raise ValueError(
            f"{model.name!r} adds losses of its own when it is called, which "
            "are lost when activations are recomputed. Remove them from the "
            "model, or use neither remat nor batch_slices."
        )


def _map_and_sum(function, shared, slices, after=()):
    """Applies a function to slices in turn, and so does its gradient.

    The gradient has the same form, with the gradients of shared tensors as
    sums; so derivatives of every order keep nothing but their inputs.

    Args:
      function: takes the slice's number, a list of shared tensors and a list
        of the slice's tensors; returns a list of tensors to sum over slices,
        and a list of the slice's own, all of float type. No side effects.
      shared: list of tensors.
      slices: list of lists of tensors; those not of float type have no
        gradient.
      after: tensors to wait for.

    Returns:
      The sums, and for each slice the list of its own outputs.
    """
    width, count = len(slices[0]), len(slices)

    @tf.custom_gradient
    def run(*inputs):
        shared_inputs = list(inputs[: len(shared)])
        own_inputs = _rows(inputs[len(shared) :], count)
        sums, outputs = _in_turn(function, shared_inputs, own_inputs, after)

        def gradient(*upstream):
            own_upstream = _rows(upstream[len(sums) :], count)
            shared_gradients, own_gradients = _map_and_sum(
                _pullback(function, len(shared), width),
                [*shared_inputs, *upstream[: len(sums)]],
                [
                    [*own, *of_outputs]
                    for own, of_outputs in zip(
                        own_inputs, own_upstream, strict=True
                    )
                ],
                after=upstream,
            )
            gradients = [iter(g) for g in (shared_gradients, *own_gradients)]
            return [
                next(gradients_of_row) if _is_float(x) else None
                for gradients_of_row, row in zip(
                    gradients, (shared_inputs, *own_inputs), strict=True
                )
                for x in row
            ]

        number_of_sums.append(len(sums))
        return [*sums, *(x for row in outputs for x in row)], gradient

    number_of_sums = []
    results = run(*shared, *(x for row in slices for x in row))
    (split,) = number_of_sums
    return list(results[:split]), _rows(results[split:], count)


def _pullback(function, number_shared, number_own):
    """A function of the same form that computes the gradient of another.

    It returns gradients with respect to all float inputs; its inputs are those
    of the other, followed by the gradients of its sums and of its outputs.
    """

    def pull(number, shared, own):
        inputs = [*shared[:number_shared], *own[:number_own]]
        upstream = [*shared[number_shared:], *own[number_own:]]
        # Copies, so that a tensor that occurs twice counts as two.
        inputs = [tf.identity(x) for x in inputs]
        watched = [x for x in inputs if _is_float(x)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            sums, outputs = function(
                number, inputs[:number_shared], inputs[number_shared:]
            )
        gradients = tape.gradient(
            [*sums, *outputs],
            watched,
            output_gradients=upstream,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        gradients = [tf.convert_to_tensor(g) for g in gradients]
        split = sum(_is_float(x) for x in inputs[:number_shared])
        return gradients[:split], gradients[split:]

    return pull


def _in_turn(function, shared, slices, after):
    """Sums and outputs, each slice computed after the one before."""
    sums, outputs = None, []
    for number, own in enumerate(slices):
        terms, results = function(number, shared, _wait(own, after))
        if sums is None:
            sums = terms
        else:
            sums = [a + b for a, b in zip(sums, terms, strict=True)]
        outputs.append(results)
        after = [*sums, *results]
    return sums, outputs


def _wait(tensors, others):
    """The same tensors, but only once the others have been computed.

    XLA drops control dependencies, and TensorFlow would compute equal things
    once and keep them. So a zero is added that no compiler can know in advance
    (as in `tf.recompute_grad`).
    """
    if tf.executing_eagerly() or not others:
        return tensors
    with tf.control_dependencies(others):
        number = tf.reshape(others[0], [-1])[0]
    known = tf.cast(number, tf.bool)
    zero = tf.where(tf.equal(known, known), 0.0, float("nan"))
    return [x + tf.cast(zero, x.dtype) if _is_float(x) else x for x in tensors]


def _is_float(tensor):
    return tensor.dtype.is_floating


def _rows(values, count):
    """The values in `count` lists of equal length, which may be 0."""
    values = list(values)
    width = len(values) // count
    return [values[i * width : (i + 1) * width] for i in range(count)]
