import sys

import keras_cv
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import stateful_random_ops

from meta_pseudo_labels.data.images import keras_cv_policy, views
from meta_pseudo_labels.data.images.keras_cv_policy import keras_cv_rand_augment

SEED = tf.constant([1, 2], tf.int64)
LAYERS = range(10)


def noise(batch=32, size=16):
    images = np.random.RandomState(0).randint(
        0, 256, [batch, size, size, 3], np.uint8
    )
    return tf.constant(images)


@pytest.fixture(scope="module")
def policy():
    return keras_cv_rand_augment(magnitude=5)


def test_same_seed_same_images(policy):
    np.testing.assert_array_equal(policy(noise(), SEED), policy(noise(), SEED))


@pytest.mark.parametrize("other", [[1, 3], [2, 2], [2, 1]])
def test_other_seed_other_images(policy, other):
    other = tf.constant(other, tf.int64)
    different = policy(noise(), SEED) != policy(noise(), other)
    assert np.mean(np.any(different, axis=(1, 2, 3))) > 0.5


@pytest.mark.long
def test_alike_in_graphs_eagerly_and_with_empty_groups(policy):
    images = noise(batch=3)  # Of ten operations, most have no image.
    graph = tf.function(policy, autograph=False)
    got = graph(images, SEED)
    assert (got.dtype, got.shape) == (tf.uint8, images.shape)
    np.testing.assert_array_equal(got, policy(images, SEED))


@pytest.mark.long
def test_the_stream_from_a_step_is_the_tail_of_the_whole(policy):
    def stream(start, threads):
        # As data.pipeline maps, without AutoGraph.
        batch = tf.autograph.experimental.do_not_convert(
            lambda step: policy(noise(8), tf.stack([0, step]))
        )
        steps = tf.data.Dataset.range(start, 6).map(
            batch, num_parallel_calls=threads
        )
        return np.stack([*steps.as_numpy_iterator()])

    np.testing.assert_array_equal(stream(4, 2), stream(0, 1)[4:])


def test_no_draw_has_a_state(policy):
    """Each random operation of the graph is one of the stateless ones."""
    graph = tf.function(policy, autograph=False).get_concrete_function(
        noise(), SEED
    )
    definition = graph.graph.as_graph_def()
    nodes = [*definition.node]
    for function in definition.library.function:
        nodes += function.node_def
    # RandomUniform, RandomStandardNormal; and of tf.random.Generator.
    words = ("Random", "Rng")
    random = {n.op for n in nodes if any(word in n.op for word in words)}
    assert any("StatelessRandomNormal" in op for op in random)
    assert all(op.startswith("Stateless") for op in random)


@pytest.mark.parametrize("before", [None, tf.random.Generator])
def test_building_it_leaves_the_global_generator_alone(monkeypatch, before):
    """The one that is there stays, and where none is none is made."""

    def fail(*args, **settings):
        raise AssertionError("The global generator makes a variable.")

    monkeypatch.setattr(stateful_random_ops, "global_generator", before)
    for name in ("__init__", "from_seed", "from_non_deterministic_state"):
        monkeypatch.setattr(tf.random.Generator, name, fail)
    keras_cv_rand_augment(magnitude=5)
    assert stateful_random_ops.global_generator is before


@pytest.mark.parametrize("index", LAYERS)
def test_amounts_have_kerascvs_distribution(index):
    """Mean, deviation and tails of 20,000 draws, ours and KerasCV's."""
    draws = keras_cv_policy.KeyedDraws()
    draws.start(SEED)
    ours = keras_cv_policy.policy_layers(0.7, 0.15, draws)[index]
    theirs = keras_cv.layers.RandAugment.get_standard_policy(
        (0, 255), 0.7, 0.15
    )[index]
    assert type(ours) is type(theirs)
    got, want = (
        tf.nest.flatten(layer.get_random_transformation_batch(20_000))
        for layer in (ours, theirs)
    )
    assert len(got) == len(want)
    for ours, theirs in zip(got, want, strict=True):
        if theirs is None:
            assert ours is None
            continue
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        scale = max(np.std(theirs), 1e-9)
        # Four to six standard errors, as theirs start from anywhere.
        assert abs(np.mean(ours) - np.mean(theirs)) < 0.06 * scale
        assert abs(np.std(ours) - np.std(theirs)) < 0.06 * scale
        for tail in (0.01, 0.99):
            distance = np.quantile(ours, tail) - np.quantile(theirs, tail)
            assert abs(distance) < 0.2 * scale


def test_each_operation_is_as_likely_and_the_rate_holds():
    draws = keras_cv_policy.KeyedDraws()
    draws.start(SEED)

    def writes(number):
        return lambda images, places: tf.ones_like(images) * number

    got = keras_cv_policy._random_operation(
        tf.zeros([30_000, 1, 1, 3]), [writes(1), writes(2)], draws, rate=0.8
    )
    counts = np.bincount(tf.cast(got[:, 0, 0, 0], tf.int32), minlength=3)
    np.testing.assert_allclose(counts / 30_000, [0.2, 0.4, 0.4], atol=0.01)


def test_no_layers_or_no_rate_change_nothing():
    images = noise()
    for settings in ({"num_layers": 0}, {"rate": 0}):
        policy = keras_cv_rand_augment(magnitude=5, **settings)
        np.testing.assert_array_equal(policy(images, SEED), images)


def test_it_takes_its_place_in_a_chain(policy):
    chain = views.chain(views.flip(), policy)
    assert chain(noise(), SEED).shape == noise().shape


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"magnitude": 16}, "magnitude is 16.*--augment_magnitude"),
        ({"magnitude": -1}, "magnitude is -1"),
        ({"magnitude": 5, "rate": 1.1}, "rate must be in .*got 1.1"),
        (
            {"magnitude": 5, "magnitude_stddev": -0.1},
            "magnitude_stddev must be in .*got -0.1",
        ),
    ],
)
def test_refuses_what_is_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        keras_cv_rand_augment(**settings)


def test_says_how_to_install_kerascv(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match="pip install 'keras-cv"):
        keras_cv_rand_augment(magnitude=5)
