"""Keras and TensorFlow still have what `compat` takes of them, and mean it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners.trainer import Trainer
from meta_pseudo_labels.utils import compat


def network():
    return keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])


def test_layers_of_a_model_are_all_however_deep():
    inner = network()
    outer = keras.Sequential([keras.Input([2]), inner, keras.layers.ReLU()])

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [outer]

    model = Subclassed()
    found = compat.layers_of(model)
    for layer in (model, outer, *outer.layers, *inner.layers):
        assert sum(layer is other for other in found) == 1
    assert found[0] is model


def test_metrics_are_unbuilt_until_they_saw_a_batch():
    model = network()
    assert not compat.unbuilt_metrics(model)
    model.compile(loss="mse", metrics=["mae"])
    assert compat.unbuilt_metrics(model)
    model.evaluate(np.ones([2, 2]), np.ones([2, 1]), verbose=0)
    assert not compat.unbuilt_metrics(model)


@pytest.mark.parametrize("replicas", [1, 2])
def test_endless_batches_of_replicas_are_known(mirrored, replicas):
    strategy = mirrored(replicas)
    data = tf.data.Dataset.range(4).batch(2, drop_remainder=True)
    endless, finite, unknown = (
        iter(strategy.distribute_datasets_from_function(lambda _, x=x: x))
        for x in (data.repeat(), data, data.filter(lambda x: True))
    )
    assert compat.never_ends(endless)
    assert not compat.never_ends(finite) and not compat.never_ends(unknown)
    assert not compat.never_ends(iter(data))


@pytest.fixture
def optimizer():
    return keras.optimizers.SGD(0.5)


def test_variables_have_their_places(optimizer):
    """Of Keras's variables, and of TensorFlow's, which an update gets."""
    variables = [keras.Variable([float(n)]) for n in range(3)]
    optimizer.build(variables)
    for index, variable in enumerate(variables):
        assert compat.variables_of(optimizer)[index] is variable
        assert compat.index_of(optimizer, variable) == index
        assert compat.index_of(optimizer, variable.value) == index
    assert len(compat.variables_of(optimizer)) == 3


def test_another_rate_for_a_while():
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    optimizer = keras.optimizers.SGD(schedule)
    variable = keras.Variable([1.0])
    optimizer.build([variable])
    with compat.at_rate(optimizer, 0.25):
        assert optimizer.learning_rate == 0.25
        optimizer.apply([tf.ones([1])], [variable])
    np.testing.assert_allclose(variable, [0.75])
    assert float(optimizer.learning_rate) == 0.5  # After one of its steps.
    assert (
        optimizer.get_config()["learning_rate"]["config"]["decay_rate"] == 0.5
    )
    with compat.at_rate(optimizer, None):
        assert float(optimizer.learning_rate) == 0.5


@pytest.mark.parametrize(("take", "moved"), [(True, 0.5), (False, 1.0)])
def test_gradients_are_summed_once_at_most(optimizer, take, moved, mirrored):
    """Keras sums over both replicas what it is not told to be reduced."""
    strategy = mirrored(2)
    with strategy.scope():
        variable = keras.Variable([0.0])
        optimizer.build([variable])
    if take:
        compat.take_reduced(optimizer)

    @tf.function
    def step():
        strategy.run(lambda: optimizer.apply([tf.ones([1])], [variable]))

    step()
    np.testing.assert_allclose(variable, [-moved])


def test_keras_takes_reduced_gradients_by_a_name_it_still_has():
    class Renamed(keras.optimizers.SGD):
        _all_reduce_sum_gradients = None

    with pytest.raises(RuntimeError, match="summed over replicas twice"):
        compat.take_reduced(Renamed())


def test_mirrored_replicas_are_threads(mirrored):
    assert not compat.replicas_are_threads()
    with mirrored(2).scope():
        assert compat.replicas_are_threads()


def test_an_event_holds_what_tensorflow_writes(tmp_path):
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        tf.summary.scalar("loss", 0.5, step=3)
    (path,) = tmp_path.iterdir()
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(path))]
    event = compat.event_class().FromString(records[-1])
    assert event.step == 3
    (value,) = event.summary.value
    assert value.tag == "loss"
    summary = compat.summary_class()(value=[value])
    assert summary.SerializeToString() == event.summary.SerializeToString()


def test_keras_calls_the_hook_that_builds_a_model():
    """Which `Trainer` overrides to do nothing."""
    assert "_maybe_symbolic_build" in vars(Trainer)
    calls = []

    class Model(keras.Model):
        def _maybe_symbolic_build(self, iterator=None, data_batch=None):
            calls.append(iterator is not None)

        def train_step(self, batch):
            return {"loss": tf.reduce_sum(batch)}

        def test_step(self, batch):
            return {"loss": tf.reduce_sum(batch)}

    model = Model()
    model.compile()
    batches = tf.data.Dataset.from_tensors(tf.ones([2, 2]))
    model.fit(batches, shuffle=False, verbose=0)
    model.evaluate(batches, verbose=0)
    assert calls == [True, True]


def test_a_plain_model_is_keras_own():
    inputs = keras.Input([2])

    class Mine(keras.Model):
        pass

    inner = network()
    functional = keras.Model(inputs, inner(inputs))
    assert compat.is_plain(inner) and compat.is_plain(functional)
    assert not compat.is_plain(Mine())
    assert not compat.is_plain(Mine(inputs, inner(inputs)))
    assert not compat.is_plain(keras.Sequential([keras.layers.Dense(1)]))


def test_the_states_of_seed_generators_are_told_from_counts():
    class Counting(keras.layers.Dropout):
        def build(self, shape):
            self.calls = self.add_weight(shape=(), dtype="int32", name="calls")

    deep = keras.Sequential([keras.Input((2,)), Counting(0.5, seed=1)])
    model = keras.Sequential([keras.Input((2,)), deep, keras.layers.Dense(2)])
    found = compat.seed_states(model)
    assert [
        v.path.split("/")[-1] for v in model.variables if id(v) in found
    ] == ["seed_generator_state"]


def test_a_symbolic_tensor_knows_what_made_it():
    inputs = keras.Input([2])
    one, two = keras.ops.split(inputs, 2, axis=-1)
    inner = network()
    assert compat.producer(inner(inputs)) == (inner, 0)
    (first, _), (second, index) = compat.producer(one), compat.producer(two)
    assert first is second and index == 1


def test_the_global_generator_is_looked_at_and_not_made():
    before = compat.present_global_generator()
    try:
        tf.random.set_global_generator(None)
        assert compat.present_global_generator() is None
        made = tf.random.get_global_generator()
        assert compat.present_global_generator() is made
    finally:
        tf.random.set_global_generator(before)


def test_an_operation_knows_its_gradient():
    with tf.Graph().as_default():
        x = tf.constant([1.0])
        assert compat.gradient_function(tf.tanh(x).op) is not None
        assert compat.gradient_function(tf.stop_gradient(x).op) is None
        lrn = tf.nn.lrn(tf.ones([1, 2, 2, 1]))
        (gradient,) = tf.gradients(lrn, lrn.op.inputs[0])
        with pytest.raises(LookupError):
            compat.gradient_function(gradient.op)


@pytest.mark.parametrize("kind", ["BitwiseXor", "AccumulatorApplyGradient"])
def test_a_gradient_is_given_where_there_is_none(kind, monkeypatch):
    registry = compat._tensorflow_ops().gradient_registry
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    given = []
    for function in (given.append, given.extend):
        compat.give_gradient(kind, function)
        assert registry.lookup(kind) == given.append  # The first remains.
    compat.give_gradient(kind, given.extend, instead=True)
    assert registry.lookup(kind) == given.extend


def test_the_graphs_within_operations_are_found():
    called = tf.function(lambda x: tf.tanh(x), autograph=False)

    @tf.function(autograph=False)
    def outer(x):
        once = called(x)
        return tf.cond(tf.reduce_all(once > 0), lambda: tf.sin(x), lambda: x)

    graph = outer.get_concrete_function(tf.ones([1])).graph
    found = [
        ({inner.type for inner in within.get_operations()}, skipped)
        for operation in graph.get_operations()
        for within, skipped in compat.graphs_within(operation)
    ]
    assert len(found) == 3 and "Tanh" in found[0][0]
    assert any("Sin" in kinds for kinds, _ in found)
    assert [skipped for _, skipped in found] == [0, 1, 1]


def test_the_variable_of_a_rate_is_found():
    plain = keras.optimizers.SGD(0.5)
    rate = compat.rate_variable(keras.optimizers.LossScaleOptimizer(plain))
    plain.learning_rate = 0.25
    assert rate is compat.rate_variable(plain) and float(rate) == 0.25
    assert compat.rate_variable(keras.optimizers.SGD(lambda: 0.5)) is None


def test_a_copy_shares_the_schedule_and_nothing_else():
    rate = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    one = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(rate, beta_1=0.3), initial_scale=8.0
    )
    two = compat.copy_of(one)
    assert two.initial_scale == 8.0 and two.inner_optimizer.beta_1 == 0.3
    assert two.inner_optimizer is not one.inner_optimizer
    assert (
        two.get_config()["inner_optimizer"]["config"]["learning_rate"]
        == (one.get_config()["inner_optimizer"]["config"]["learning_rate"])
    )


def test_the_count_of_an_optimizer_is_that_of_its_calls():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    optimizer.build([keras.Variable([1.0])])
    compat.count_of(optimizer).assign(7)
    assert int(optimizer.iterations) == 2


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adams_moments_are_these(amsgrad):
    """By hand, with beta_1 = 0.5 and beta_2 = 0.75, of gradients 2 and -1."""
    optimizer = keras.optimizers.Adam(
        0.0, beta_1=0.5, beta_2=0.75, amsgrad=amsgrad
    )
    variables = [keras.Variable([1.0]), keras.Variable([1.0])]
    optimizer.build(variables)
    for gradient in (2.0, -1.0):
        optimizer.apply([tf.zeros([1]), tf.constant([gradient])], variables)
    mean, square, most = compat.adam_moments(optimizer, variables[1])
    assert (mean, square) == (0.0, 1.0)
    assert most == 1.0 if amsgrad else most is None
