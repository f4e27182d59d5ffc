"""Batch norm: the release's numbers, its groups, and what Keras's lacks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.models.batch_norm import BatchNorm, replicas_per_group


def images(shape=(4, 3, 3, 2), seed=0, scale=1.0, offset=0.0):
    return offset + scale * np.random.default_rng(seed).normal(size=shape)


def built(channels=2, **settings):
    layer = BatchNorm(**dict(dtype="float64") | settings)
    layer.build((None, 3, 3, channels))
    return layer


class TestArithmetic:
    def test_training_by_hand(self):
        layer = BatchNorm(momentum=0.75, epsilon=1.0, dtype="float64")
        outputs = layer(np.array([[1.0], [3.0], [5.0], [7.0]]), training=True)
        # Mean 4, mean square 21, variance 5, over sqrt(5 + 1).
        np.testing.assert_allclose(
            outputs[:, 0], np.array([-3, -1, 1, 3]) / np.sqrt(6), rtol=1e-12
        )
        # A quarter of the way from 0 and 1; the biased variance there too.
        np.testing.assert_allclose(layer.moving_mean, [1.0])
        np.testing.assert_allclose(layer.moving_variance, [2.0])

    def test_inference_by_hand(self):
        layer = built(1, epsilon=1.0)
        for weight, value in (
            (layer.gamma, 2.0),
            (layer.beta, 10.0),
            (layer.moving_mean, 1.0),
            (layer.moving_variance, 3.0),
        ):
            weight.assign([value])
        outputs = layer(np.full((1, 1, 1, 1), 7.0), training=False)
        np.testing.assert_allclose(outputs, [[[[16.0]]]])  # 2 * 6 / 2 + 10

    def test_agrees_with_keras_up_to_rounding(self):
        ours = BatchNorm(dtype="float64")
        theirs = keras.layers.BatchNormalization(dtype="float64")
        x = images(scale=3.0, offset=5.0)
        for training in (True, False):
            np.testing.assert_allclose(
                ours(x, training=training),
                theirs(x, training=training),
                rtol=1e-9,
            )
        for a, b in zip(ours.weights, theirs.weights, strict=True):
            assert a.name == b.name
            np.testing.assert_allclose(a, b, rtol=1e-9)

    def test_equal_large_values_are_no_nan(self):
        """E[x^2] - E[x]^2 of 333.3 rounds to less than -epsilon in float32."""
        layer = BatchNorm(epsilon=1e-3)
        x = np.full((7, 3, 3, 1), 333.3, np.float32)
        variance = tf.reduce_mean(tf.square(x), [0, 1, 2]) - tf.square(
            tf.reduce_mean(x, [0, 1, 2])
        )
        if variance >= -1e-3:  # Rounding is the processor's affair.
            pytest.skip(f"Here it rounds to {variance}.")
        outputs = layer(x, training=True)
        assert np.all(np.isfinite(outputs))
        assert layer.moving_variance.numpy()[0] >= 0


class TestNotFinite:
    @pytest.mark.parametrize(
        "bad",
        [
            np.nan,
            np.inf,
            -np.inf,
            pytest.param(1e200, id="infinite square"),
        ],
    )
    def test_averages_of_such_a_channel_stand_still(self, bad):
        layer = BatchNorm(momentum=0.75, dtype="float64")
        layer(np.array([[1.0, bad], [3.0, 1.0]]), training=True)
        # The other goes a quarter of the way from 0 to 2, and from 1 to 1.
        np.testing.assert_array_equal(layer.moving_mean, [0.5, 0.0])
        np.testing.assert_array_equal(layer.moving_variance, [1.0, 1.0])

    def test_compiled_they_do_too(self):
        layer = BatchNorm(momentum=0.75)
        layer.build((None, 2))
        step = tf.function(lambda x: layer(x, training=True), jit_compile=True)
        step(tf.constant([[1.0, np.nan], [3.0, 1.0]]))
        step(tf.constant([[1.0, 1e30], [3.0, 1.0]]))
        np.testing.assert_allclose(layer.moving_mean, [0.875, 0.0])
        np.testing.assert_allclose(layer.moving_variance, [1.0, 1.0])


class TestTypes:
    @pytest.mark.parametrize(
        ("policy", "weights", "outputs"),
        [
            ("float32", "float32", "float32"),
            ("float64", "float64", "float64"),
            ("mixed_bfloat16", "float32", "bfloat16"),
            ("bfloat16", "float32", "bfloat16"),
        ],
    )
    def test_never_less_than_float32(self, policy, weights, outputs):
        layer = BatchNorm(dtype=policy)
        result = layer(images().astype("float32"), training=True)
        assert result.dtype == outputs
        assert {w.dtype for w in layer.weights} == {weights}

    def test_bfloat16_inputs_are_summed_in_float32(self):
        """256 + 1 is no bfloat16; the mean of 1,000 ones must be 1."""
        layer = BatchNorm(momentum=0.0, dtype="mixed_bfloat16")
        layer(np.ones((1000, 1, 1, 1), np.float32), training=True)
        np.testing.assert_array_equal(layer.moving_mean, [1.0])

    @pytest.mark.parametrize(
        ("mean", "error"),
        [(0.0, 0.004), (1.0, 0.006), (10.0, 0.05)],
    )
    def test_gradients_of_images_in_bfloat16(self, mean, error):
        """Against float64; what batch norm takes out of them is rounded.

        docs/fidelity.md has these figures; with casts to float32 and back it is
        0.002 in all three.
        """
        random = np.random.default_rng(0)
        x = tf.cast(random.normal(0.5, 2, (16, 16, 16, 16)), tf.bfloat16)
        upstream = tf.cast(random.normal(mean, 1, x.shape), tf.bfloat16)

        def gradient(policy):
            layer = BatchNorm(dtype=policy)
            images = tf.cast(x, layer.compute_dtype)
            with tf.GradientTape() as tape:
                tape.watch(images)
                y = layer(images, training=True)
            weights = tf.cast(upstream, y.dtype)
            return tape.gradient(y, images, output_gradients=weights)

        exact = gradient("float64")
        found = gradient("mixed_bfloat16")
        assert found.dtype == tf.bfloat16
        distance = np.linalg.norm(tf.cast(found, tf.float64) - exact)
        assert distance < error * np.linalg.norm(exact)

    def test_images_in_bfloat16_are_never_cast(self):
        layer = BatchNorm(dtype="mixed_bfloat16")
        layer.build((None, 4, 4, 3))

        @tf.function(autograph=False)
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            return tape.gradient(y, x, output_gradients=y)

        signature = tf.TensorSpec([2, 4, 4, 3], tf.bfloat16)
        graph = step.get_concrete_function(signature).graph
        casts = [op for op in graph.get_operations() if op.type == "Cast"]
        assert all(op.outputs[0].shape.rank != 4 for op in casts)


class TestGradients:
    def test_first_and_second_derivatives_by_finite_differences(self):
        """What `exact` takes: a gradient of a function of a gradient."""
        layer = built()
        layer.gamma.assign([1.5, -0.5])
        x, weight = tf.constant(images()), tf.constant(images(seed=1))

        def gradient(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(
                    weight * tf.tanh(layer(x, training=True)) ** 2
                )
            return tape.gradient(loss, x)

        direction = tf.constant(images(seed=2))
        with tf.GradientTape() as tape:
            tape.watch(x)
            inner = tf.reduce_sum(gradient(x) * weight)
        second = tf.reduce_sum(tape.gradient(inner, x) * direction)
        step = 1e-5 * direction
        difference = tf.reduce_sum(
            (gradient(x + step) - gradient(x - step)) * weight
        )
        np.testing.assert_allclose(second, difference / 2e-5, rtol=1e-6)

    def test_the_second_derivative_of_keras_is_another(self):
        """Why we have a layer of our own; should Keras mend it, look again."""
        x, weight = tf.constant(images()), tf.constant(images(seed=1))

        def second(layer):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    loss = tf.reduce_sum(weight * layer(x, training=True) ** 3)
                inner = tf.reduce_sum(tape.gradient(loss, x) * weight)
            return outer.gradient(inner, x)

        ours = second(BatchNorm(dtype="float64"))
        theirs = second(keras.layers.BatchNormalization(dtype="float64"))
        assert np.max(np.abs(ours - theirs)) > 1e-2


class TestGroups:
    @pytest.mark.parametrize(
        ("replicas", "batch", "group_batch", "expected"),
        [
            (1, 8, None, 1),
            (8, 8, 4, 8),  # Up to 8 replicas there is one group.
            (16, 8, None, 8),
            (128, 8, None, 16),
            (16, 8, 32, 4),
            (16, 8, 50, 4),  # 6 replicas, rounded down to a power of 2.
            (16, 8, 8, 2),  # Never one alone,
            (16, 8, 1000, 16),  # nor more than there are.
            (16, 64, 8, 2),
        ],
    )
    def test_sizes_of_the_release(self, replicas, batch, group_batch, expected):
        size = replicas_per_group(
            replicas, batch_size=batch, group_batch_size=group_batch
        )
        assert size == expected

    def test_replicas_that_do_not_divide_are_refused(self):
        with pytest.raises(ValueError, match="12 replicas .* groups of 8"):
            replicas_per_group(12, batch_size=4)

    @pytest.mark.fast("8")
    @pytest.mark.parametrize("group_batch", [None, 8, 16])
    def test_each_group_has_its_own_moments(self, mirrored, group_batch):
        """16 replicas of 2 images; a layer of its own for each group."""
        members = {None: 8, 8: 4, 16: 8}[group_batch]
        strategy = mirrored(16)
        x = images((32, 3, 3, 2), scale=2.0, offset=1.0)
        with strategy.scope():
            layer = built(momentum=0.5, group_batch_size=group_batch)
        outputs, gradients = run_replicas(strategy, layer, x)
        rows = 2 * members
        means = []
        for start in range(0, 32, rows):
            own = slice(start, start + rows)
            alone = built(momentum=0.5)
            expected, slopes = forward_and_back(alone, tf.constant(x[own]))
            np.testing.assert_allclose(outputs[own], expected, rtol=1e-9)
            np.testing.assert_allclose(gradients[own], slopes, rtol=1e-7)
            means.append(alone.moving_mean.numpy())
        np.testing.assert_allclose(
            layer.moving_mean.numpy(), np.mean(means, axis=0), rtol=1e-9
        )

    def test_two_replicas_are_one_batch(self, mirrored):
        strategy = mirrored(2)
        x = images((8, 3, 3, 2), scale=2.0, offset=1.0)
        with strategy.scope():
            layer = built()
        outputs, gradients = run_replicas(strategy, layer, x)
        alone = built()
        expected, slopes = forward_and_back(alone, tf.constant(x))
        np.testing.assert_allclose(outputs, expected, rtol=1e-9)
        np.testing.assert_allclose(gradients, slopes, rtol=1e-7)
        for ours, one in zip(layer.weights, alone.weights, strict=True):
            np.testing.assert_allclose(ours.numpy(), one.numpy(), rtol=1e-9)


def forward_and_back(layer, x):
    """Outputs, and the gradient of a sum of their cubes by the inputs."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True)
        loss = tf.reduce_sum(outputs**3)
    return outputs, tape.gradient(loss, x)


def run_replicas(strategy, layer, x):
    """As `forward_and_back`, with the batch split over the replicas."""
    count = strategy.num_replicas_in_sync
    parts = np.split(x, count)
    distributed = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )

    @tf.function(autograph=False)
    def step(part):
        return strategy.run(lambda x: forward_and_back(layer, x), args=(part,))

    results = step(distributed)
    return [
        np.concatenate([np.asarray(v) for v in strategy.unwrap(result)])
        for result in results
    ]


class TestLayer:
    def test_frozen_runs_in_inference_mode(self):
        layer = built()
        layer.trainable = False
        x = images()
        np.testing.assert_array_equal(
            layer(x, training=True), layer(x, training=False)
        )
        np.testing.assert_array_equal(layer.moving_mean, [0, 0])

    def test_a_factor_of_beta_and_no_gamma(self):
        x = images()
        plain, layer = built(), built(scale=False, beta_factor=8.0)
        assert [v.name for v in layer.trainable_variables] == ["beta"]
        plain.beta.assign([0.8, -1.6])
        layer.beta.assign([0.1, -0.2])
        for training in (True, False):
            np.testing.assert_allclose(
                layer(x, training=training),
                plain(x, training=training),
                rtol=1e-6,
            )

    def test_config_makes_it_again(self):
        layer = BatchNorm(
            momentum=0.5,
            epsilon=0.25,
            group_batch_size=64,
            scale=False,
            beta_factor=8.0,
        )
        again = BatchNorm.from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert again.group_batch_size == 64

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (dict(momentum=1.5), "momentum .* got 1.5"),
            (dict(beta_factor=0), "beta_factor .* got 0"),
            (dict(epsilon=-1.0), "epsilon .* got -1.0"),
            (dict(group_batch_size=0), "group_batch_size .* got 0"),
        ],
    )
    def test_bad_settings_are_named(self, settings, message):
        with pytest.raises(ValueError, match=message):
            BatchNorm(**settings)
