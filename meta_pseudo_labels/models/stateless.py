"""A model called with given values for its variables, none of which moves."""

import keras


def call_with(model, values, inputs, *, training):
    """Outputs of a model whose variables have other values for one call.

    Why not `model.stateless_call`: it runs `model.call`, and so leaves out what
    `model(...)` does around it. A subclassed model then does not hand
    `training` on to its layers, which take it for False, and one whose `call`
    has no such argument fails.

    Args:
      model: a built Keras model.
      values: {id of a variable: tensor}; the others keep their own.
      inputs: of the model.
      training: whether to call it in training mode.

    Returns:
      The outputs, the states after the call (a list with one tensor per
      non-trainable variable), and the losses of the call and of regularizers.
    """
    mapping = [(v, values.get(id(v), v.value)) for v in model.variables]
    with keras.StatelessScope(
        state_mapping=mapping, collect_losses=True
    ) as scope:
        outputs = model(inputs, training=training)
        losses = list(model.losses)
    states = [scope.get_current_value(v) for v in model.non_trainable_variables]
    return outputs, states, losses
