"""All private names of Keras and TensorFlow that the package uses, once each.

Each name has a function of its own that says why no public one will do, and a
test in `tests/utils/compat_test.py` that fails if a new version renames it or
changes its meaning. Hooks that our classes override must stay where they are;
their tests are in that file too:

* `Trainer._maybe_symbolic_build` (learners/trainer.py).
"""

import contextlib

import keras
import tensorflow as tf
from tensorflow.python.ops import stateful_random_ops


def layers_of(model):
    """All layers of a Keras model, however deep, and the model itself.

    Why: `model.layers` has only those of the first level, and a subclassed
    model's `submodules` are TensorFlow's, in another order.
    """
    return list(model._flatten_layers())


def is_plain(model):
    """Whether a model is of Keras's own functional or sequential class.

    Then its graph tells everything that a call of it does. Why: the class of
    functional models has no public name, and users' classes inherit from it.
    """
    module = type(model).__module__
    return module.startswith("keras.") and bool(getattr(model, "outputs", None))


def seed_states(model):
    """Identities of the states of a model's seed generators, as a set.

    Why: a layer's variables do not tell which of them these are.
    """
    return {
        id(generator.state)
        for layer in layers_of(model)
        for generator in layer._seed_generators
    }


def producer(tensor):
    """What made a symbolic Keras tensor, and which of its outputs it is.

    Why: layers know their outputs, but not the other way round.

    Returns:
      A layer, a model or another operation; an index.
    """
    history = tensor._keras_history
    return history.operation, history.tensor_index


def unbuilt_metrics(model):
    """Whether metrics were compiled into a model but have not seen a batch.

    Why: `model.metrics` asks them for their list, which fails in that case.
    """
    metrics = model._compile_metrics
    return metrics is not None and not metrics.built


def never_ends(iterator):
    """Whether an iterator over batches of several replicas is endless.

    Why: a `tf.distribute.DistributedDataset` knows, but `fit` hands on only its
    iterator. Those of other data sets are taken for finite.
    """
    found = getattr(iterator, "_cardinality", None)
    return found is not None and int(found) == tf.data.INFINITE_CARDINALITY


def index_of(optimizer, variable):
    """The place of a variable among those that an optimizer was built with.

    Why: `update_step` gets TensorFlow's variable, or a replica's part of it,
    and only Keras knows to which of its variables it belongs.
    """
    return optimizer._get_variable_index(variable)


def variables_of(optimizer):
    """The variables that an optimizer was built with, in their order.

    Why: `optimizer.variables` are its own, such as slots.
    """
    return list(optimizer._trainable_variables)


def adam_moments(optimizer, variable):
    """Adam's present moments of a variable: mean, square, largest square.

    Why: Keras has no public name for any of them. The last is None without
    AMSGrad.
    """
    index = index_of(optimizer, variable)
    hats = optimizer._velocity_hats if optimizer.amsgrad else None
    return [
        slots and tf.convert_to_tensor(slots[index])
        for slots in (optimizer._momentums, optimizer._velocities, hats)
    ]


def unscaled(optimizer):
    """The optimizer that updates the weights, without what scales its loss."""
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


@contextlib.contextmanager
def at_rate(optimizer, learning_rate):
    """Makes an optimizer use another learning rate for a while.

    Why: the public `learning_rate` is the present value of a schedule, so it
    cannot restore the schedule.

    Args:
      optimizer: a Keras optimizer.
      learning_rate: a number or a scalar tensor; None for its own.
    """
    optimizer = unscaled(optimizer)  # This one has the rate.
    before = optimizer._learning_rate
    if learning_rate is not None:
        optimizer._learning_rate = lambda: learning_rate
    try:
        yield
    finally:
        optimizer._learning_rate = before


def rate_variable(optimizer):
    """The variable that setting an optimizer's learning rate sets, or None.

    Why: the public `learning_rate` is a value if there is a schedule, and
    belongs to the wrapped optimizer if the loss is scaled.
    """
    rate = unscaled(optimizer)._learning_rate
    return rate if isinstance(rate, keras.Variable) else None


def count_of(optimizer):
    """The variable that counts an optimizer's calls.

    Why: the public `iterations` is a quotient if gradients are accumulated, and
    belongs to the wrapped optimizer if the loss is scaled.
    """
    return optimizer._iterations


def copy_of(optimizer):
    """A fresh optimizer like another; both share a schedule or rate function.

    Why: a configuration holds schedules and functions in a form from which
    Keras can restore them only if they are registered.

    Raises:
      ValueError: if the configuration does not make such an optimizer.
    """
    kind, rate = type(optimizer), optimizer._learning_rate
    try:
        if issubclass(kind, keras.optimizers.LossScaleOptimizer):
            return kind(
                copy_of(optimizer.inner_optimizer),
                initial_scale=optimizer.initial_scale,
                dynamic_growth_steps=optimizer.dynamic_growth_steps,
            )
        if isinstance(rate, keras.Variable):
            return kind.from_config(optimizer.get_config())
        optimizer._learning_rate = 0.5  # A number needs no restoring.
        config = optimizer.get_config() | {"learning_rate": rate}
        return kind.from_config(config)
    except (AttributeError, KeyError, NotImplementedError, TypeError) as error:
        raise ValueError(f"{kind.__name__} cannot be copied.") from error
    finally:
        optimizer._learning_rate = rate


def take_reduced(optimizer):
    """Tells a Keras optimizer that its gradients are already reduced.

    Why: by default it sums them over replicas when it applies them, which is
    too late for a bound on their norm, and gradients that are already reduced
    would count once for each replica. Keras has no public way to say so.

    Raises:
      RuntimeError: if this Keras has another name for what is replaced, so that
        it would sum after all.
    """
    name = "_all_reduce_sum_gradients"
    if not callable(getattr(optimizer, name, None)):
        raise RuntimeError(
            f"{type(optimizer).__name__} of Keras {keras.__version__} has no "
            f"{name}: its gradients would be summed over replicas twice. Use a "
            "Keras version that requirements.txt names."
        )
    setattr(optimizer, name, list)


def present_global_generator():
    """TensorFlow's global generator, or None if nobody has asked for it.

    Why: `tf.random.get_global_generator` makes one, whose variable fixes the
    devices that later code may use, and fails under enable_op_determinism.
    """
    return stateful_random_ops.global_generator


def replicas_are_threads():
    """Whether each replica of the present strategy is traced by itself.

    Why: such replicas may synchronize only outside branches and loops, and the
    strategy's classes tell it only by this name.
    """
    return not tf.__internal__.distribute.strategy_supports_no_merge_call()


def event_class():
    """The protocol buffer of TensorBoard's files, `Event`.

    Why: TensorFlow, which writes them, keeps its own copies private. Imported
    late, as most of the package does not need TensorBoard.
    """
    from tensorboard.compat.proto import event_pb2

    return event_pb2.Event


def summary_class():
    """The protocol buffer of the content of such an event, `Summary`."""
    from tensorboard.compat.proto import summary_pb2

    return summary_pb2.Summary


def gradient_function(operation):
    """What computes the gradient of an operation; None if it is constant.

    Why: only TensorFlow's registry knows which operations it silently treats
    as constants.

    Raises:
      LookupError: if it has no gradient and TensorFlow says so.
    """
    return _tensorflow_ops().get_gradient_function(operation)


def give_gradient(operation_type, function, *, instead=False):
    """Registers the gradient of a type of operation that has none.

    Why: `tf.RegisterGradient` does not replace an entry that says there is
    none.

    Args:
      operation_type: TensorFlow's name of it.
      function: as for `tf.RegisterGradient`.
      instead: whether to replace an existing gradient too.
    """
    registry = _tensorflow_ops().gradient_registry
    try:
        if registry.lookup(operation_type) is not None and not instead:
            return
        del registry._registry[operation_type]
    except LookupError:
        pass
    registry.register(function, operation_type)


def graphs_within(operation):
    """The graphs of functions that an operation calls.

    Why: a graph finds them only by a private name.

    Returns:
      A list of pairs: the graph, and the number of the operation's inputs that
      are not the function's.
    """
    found = []
    for name, value in operation.node_def.attr.items():
        functions = [value.func, *value.list.func]
        for function in (f.name for f in functions if f.name):
            called = operation.graph._get_function(function)
            if called is not None and name != "cond":
                skipped = len(operation.inputs) - len(called.graph.inputs)
                found.append((called.graph, skipped))
    return found


def _tensorflow_ops():
    from tensorflow.python.framework import ops

    return ops
