"""Calls of models that leave no unwanted side effects behind."""

import keras
import tensorflow as tf


class LossScope(keras.StatelessScope):
    """Collects what layers add to the loss; variables change as usual.

    Keras keeps these losses on the layers, where replicas that are traced side
    by side would find each other's. States move as `move_state` says.

    Attributes:
      losses: a list of tensors.
    """

    def __init__(self):
        super().__init__(collect_losses=True, initialize_variables=False)

    def get_current_value(self, variable):
        return None  # The variable's own value.

    def add_update(self, update):
        variable, value = update
        self.__exit__()
        try:
            move_state(variable, value)
        finally:
            self.__enter__()


def move_state(variable, value):
    """Gives a layer's state a value; numbers that are not finite keep the old.

    Otherwise one image that is not a number, on which no step is taken, would
    stay in the averages of Keras's batch norm forever.
    """
    if "float" in variable.dtype:
        value = tf.cast(value, variable.dtype)
        value = tf.where(tf.math.is_finite(value), value, variable.value)
    variable.assign(value)


def call_with(model, values, inputs, *, training):
    """Calls a model once with other values for its variables.

    Why not `model.stateless_call`: it runs `model.call`, and so skips what
    `model(...)` does around it. A subclassed model then does not pass
    `training` on to its layers, which assume False, and one whose `call` has
    no such argument fails.

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
    # Not `model.losses`, which other replicas empty; see `LossScope`.
    losses = [*scope.losses]
    for v in model.trainable_variables:
        if v.regularizer is not None:
            losses.append(v.regularizer(scope.get_current_value(v)))
    states = [scope.get_current_value(v) for v in model.non_trainable_variables]
    return outputs, states, losses
