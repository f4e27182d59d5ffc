"""Recomputed blocks change nothing but the memory."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.learners import Supervised
from meta_pseudo_labels.learners.passes import forward_together, gradients_of
from meta_pseudo_labels.models.remat import _segments
from meta_pseudo_labels.optimizers import Momentum

SMALL = dict(input_shape=(16, 16, 3), num_classes=5, dtype="float64")


def network(model_type, *, remat, **settings):
    keras.utils.set_random_seed(1)
    model = models.build(model_type, **SMALL | settings)
    return models.rematerialized(model) if remat else model


def images(rows=4):
    random = np.random.default_rng(0)
    return tf.constant(random.normal(size=(rows, 16, 16, 3)))


def derivatives(model, *, second=True):
    """Logits, gradients by weights, and of a function of these by labels."""

    @tf.function(autograph=False)
    def run(labels):
        with tf.GradientTape() as label_tape:
            label_tape.watch(labels)
            with tf.GradientTape() as tape:
                x = images()
                logits = tf.concat(forward_together(model, x[:2], x[2:]), 0)
                loss = -tf.reduce_sum(labels * tf.nn.log_softmax(logits))
            gradients = gradients_of(tape, loss, model)
            if not second:
                return logits, gradients
            cubes = tf.add_n([tf.reduce_sum(g**3) for g in gradients])
        return logits, gradients, label_tape.gradient(cubes, labels)

    labels = tf.constant(np.random.default_rng(1).normal(size=(4, 5)))
    return [x.numpy() for x in tf.nest.flatten(run(labels))]


def assert_close(one, other):
    for a, b in zip(one, other, strict=True):
        scale = max(np.abs(a).max(), 1e-9)
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10 * scale)


@pytest.mark.long
def test_all_derivatives_and_states_are_those_of_the_network():
    """Second derivatives too, and states that moved once."""
    plain, again = (
        network("wrn-10-1", remat=remat, dropout_rate=0.3)
        for remat in (False, True)
    )
    before = [v.numpy().copy() for v in again.non_trainable_variables]
    assert_close(derivatives(plain), derivatives(again))
    states = [
        [v.numpy() for v in model.non_trainable_variables]
        for model in (plain, again)
    ]
    assert_close(*states)
    for value, now in zip(before, states[1], strict=True):
        assert not np.array_equal(value, now)


@pytest.mark.long
def test_a_block_that_draws_draws_the_same_again():
    """A gradient of other draws would be another."""
    results = []
    for remat in (False, True):
        keras.utils.set_random_seed(1)
        model = models.efficientnet(
            width=0.25, depth=0.5, stochastic_depth_drop_rate=0.9, **SMALL
        )
        if remat:
            model = models.rematerialized(model)
        results.append(derivatives(model, second=False))
    assert_close(*results)


@pytest.mark.long
def test_replicas_normalize_together_in_the_recomputation(mirrored):
    """Their gradients are then those of one device, and their moments."""
    results = []
    for scope in (contextlib.nullcontext(), mirrored(2).scope()):
        with scope:
            learner = Supervised(network("wrn-10-1", remat=True))
            learner.compile(Momentum(0.1))
        data = {"labeled": images(8), "labels": tf.range(8) % 5}
        learner.fit(tf.data.Dataset.from_tensors(data), verbose=0)
        results.append([v.numpy() for v in learner.student.variables])
    assert_close(*results)


def test_gradients_in_eager_mode():
    results = []
    for remat in (False, True):
        model = network("wrn-10-1", remat=remat)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images(), training=True) ** 2)
        results.append([g.numpy() for g in gradients_of(tape, loss, model)])
    assert_close(*results)


@pytest.mark.long
def test_a_resnet_has_a_segment_for_each_block():
    """16 blocks, a stem and a head, which hold all weights between them."""
    model = models.rematerialized(
        models.build("resnet-50", input_shape=(32, 32, 3), num_classes=5)
    )
    segments = _segments(model)
    assert [block for block, _ in segments] == [False, *[True] * 16, False]
    found = [v.path for _, part in segments for v in part.variables]
    assert len(found) == len(set(found))
    assert set(found) == {v.path for v in model.variables}


def test_a_block_is_computed_once_more_for_the_gradient():
    """As many convolutions more as blocks have; none of them is left out."""
    counts = []
    for remat in (False, True):
        model = network("wrn-10-1", remat=remat)

        @tf.function(autograph=False)
        def run(x, model=model):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(x, training=True) ** 2)
            return gradients_of(tape, loss, model)

        run(images())
        graph = run.get_concrete_function(images()).graph
        counts.append(sum(op.type == "Conv2D" for op in graph.get_operations()))
    stem, in_blocks = 1, 2 + 3 + 3  # Two of the shortcuts have one.
    assert counts == [stem + in_blocks, stem + 2 * in_blocks]


def test_inference_is_the_network_s():
    plain, again = (network("wrn-10-1", remat=r) for r in (False, True))
    np.testing.assert_array_equal(plain(images()), again(images()))
    predicted = again.predict(tf.cast(images(), "float32"), verbose=0)
    np.testing.assert_allclose(predicted, plain(images()), rtol=1e-4)


def test_it_comes_back_from_its_config():
    model = network("wrn-10-1", remat=True)
    model(images(), training=True)
    config = keras.saving.serialize_keras_object(model)
    copy = keras.saving.deserialize_keras_object(config)
    assert isinstance(copy, models.Rematerialized)
    copy.set_weights(model.get_weights())
    assert [v.path for v in copy.variables] == [v.path for v in model.variables]
    np.testing.assert_array_equal(copy(images()), model(images()))


@pytest.mark.parametrize("model_type", ["mlp", "MobileNetV2"])
def test_a_network_without_blocks_is_refused(model_type):
    model = models.build(model_type, input_shape=(32, 32, 3), num_classes=5)
    with pytest.raises(ValueError, match="has no blocks"):
        models.rematerialized(model)
