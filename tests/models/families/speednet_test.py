import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.learners import MetaPseudoLabels, Supervised
from meta_pseudo_labels.learners.feedback import exact, reinforce_per_example
from meta_pseudo_labels.learners.student_step import take_student_step
from meta_pseudo_labels.optimizers import Momentum
from tests.models.helpers import output_of

CLASSES, SIDE, UNLABELED = 3, 10, 5


def images(count=12, side=SIDE, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, side, side, 3)).astype("float32")


def tiny(width=3, *, adapted=True, seed=1, **settings):
    keras.utils.set_random_seed(seed)
    sizes = dict(input_shape=(SIDE, SIDE, 3), num_classes=CLASSES)
    model = models.build(f"speednet-{width}", **sizes | settings)
    if adapted:
        models.adapt(model, images(50, seed=9))
    return model


def batch(labeled=6, seed=0):
    random = np.random.default_rng(seed)
    return {
        "labeled": images(labeled, seed=seed).astype("float64"),
        "labels": random.integers(CLASSES, size=labeled).astype("int32"),
        "weak": images(UNLABELED + 1, seed=seed + 1).astype("float64"),
        "strong": images(UNLABELED + 1, seed=seed + 2).astype("float64"),
    }


def test_its_parts_are_those_of_the_paper():
    model = models.build("speednet-64", input_shape=(32, 32, 3), num_classes=10)
    shapes = {layer.name: layer.output.shape[1:] for layer in model.layers}
    assert shapes["whitening"] == (31, 31, 24)
    assert shapes["stage_1.conv_2.gelu"] == (15, 15, 64)
    assert shapes["stage_2.conv_2.gelu"] == (7, 7, 256)
    assert shapes["stage_3.conv_2.gelu"] == (3, 3, 256)
    names = {variable.path for variable in model.weights}
    assert not any("gamma" in name for name in names)
    assert "head.dense/bias" not in names
    # A bias for each whitened value and each filter; the rest is known before.
    biases = 24 + 2 * 64 + 4 * 256
    known = models.fewest_weights(
        "speednet-64", input_shape=(32, 32, 3), num_classes=10
    )
    trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert trained == known + biases


def test_the_first_convolution_passes_the_whitened_patches_on():
    model = tiny(width=32)
    for stage, channels in ((1, 24), (2, 32), (3, 128)):
        name = f"stage_{stage}.conv_1"
        layer = model.get_layer(f"{name}.conv2d")
        inputs = keras.Model(model.input, layer.input)(images())
        passed = np.asarray(layer(inputs))[..., :channels]
        np.testing.assert_allclose(passed, inputs, atol=1e-6)


def test_logits_are_a_ninth_of_the_maxima_through_the_head():
    model = tiny()
    maxima = output_of(model, "head.global_max_pool")(images())
    kernel = model.get_layer("head.dense").kernel
    np.testing.assert_allclose(
        model(images()), maxima @ kernel / 9, rtol=1e-5, atol=1e-6
    )


@pytest.mark.long
def test_the_bias_of_batch_norm_learns_at_64_times_the_rate():
    """As in a network without the factor, where its rate is 64-fold."""
    model, rate = tiny(dtype="float64"), 0.01
    plain = keras.models.clone_model(model, clone_function=_without_beta_factor)
    plain.set_weights(model.get_weights())
    slow, fast = Momentum(rate), Momentum(64 * rate)
    biases = [v for v in plain.trainable_variables if v.name == "beta"]
    others = [v for v in plain.trainable_variables if v.name != "beta"]
    optimizer = Momentum(rate)
    targets = tf.one_hot(np.arange(12) % CLASSES, CLASSES, dtype="float64")

    def gradients(network, variables):
        with tf.GradientTape() as tape:
            log = tf.nn.log_softmax(network(images(), training=True))
            loss = -tf.reduce_mean(targets * log)
        return tape.gradient(loss, variables)

    for _ in range(3):
        variables = model.trainable_variables
        optimizer.apply(gradients(model, variables), variables)
        moves = gradients(plain, biases + others)
        fast.apply(moves[: len(biases)], biases)
        slow.apply(moves[len(biases) :], others)
    assert max(np.abs(bias).max() for bias in biases) > 1e-3
    np.testing.assert_allclose(model(images()), plain(images()), rtol=1e-9)


def _without_beta_factor(layer):
    config = layer.get_config()
    if isinstance(layer, models.BatchNorm):
        assert config["beta_factor"] == 8
        config["beta_factor"] = 1.0
    return layer.__class__.from_config(config)


@pytest.fixture(scope="module")
def problem():
    """A learner, its batch, and a function from labels to a student's step."""
    networks = [tiny(dtype="float64", seed=seed) for seed in (1, 2)]
    learner = MetaPseudoLabels(*networks, label_smoothing=0.1)
    learner.compile(Momentum(0.3), weight_decay=0.01, grad_bound=0.5)
    state = learner.student.variables + learner.optimizer.variables
    saved = [variable.numpy() for variable in state]
    given = batch()

    @tf.function(autograph=False)
    def step(labels):
        step, _ = take_student_step(learner, given, pseudo_labels=labels)
        logits = tf.math.log(tf.fill(labels.shape, 1.0 / CLASSES))
        losses = []
        for estimator in (exact, reinforce_per_example):
            with tf.GradientTape() as tape:
                tape.watch(logits := tf.cast(logits, "float64"))
                loss = estimator(step, logits)
            losses.append(tape.gradient(loss, logits))
        return step.labeled_loss_new, step.label_gradient(), losses

    def from_the_same_weights(labels):
        for variable, value in zip(state, saved, strict=True):
            variable.assign(value)
        return step(tf.constant(labels, "float64"))

    return from_the_same_weights


@pytest.mark.long
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_the_label_gradient_is_that_of_finite_differences(problem, kind):
    """What `exact` (soft) and `reinforce_per_example` (hard) are made of."""
    random = np.random.default_rng(3)
    labels = random.dirichlet(np.ones(CLASSES), size=UNLABELED + 1)
    if kind == "hard":
        labels = np.eye(CLASSES)[labels.argmax(-1)]
    _, gradient, estimated = problem(labels)
    assert np.abs(gradient).max() > 1e-4
    assert all(np.abs(one).max() > 0 for one in estimated)
    h = 1e-5
    for row, column in np.ndindex(labels.shape):
        moved = np.zeros_like(labels)
        moved[row, column] = h
        more, less = (problem(labels + s * moved)[0] for s in (1, -1))
        np.testing.assert_allclose(
            gradient[row, column],
            (more - less) / (2 * h),
            rtol=1e-4,
            atol=1e-8,
        )


@pytest.mark.long
def test_two_replicas_are_as_good_as_one(mirrored):
    data = {
        key: np.stack([batch(seed=seed)[key] for seed in range(3)])
        for key in ("labeled", "labels")
    }

    def train(scope):
        with scope:
            learner = Supervised(tiny(dtype="float64"), ema_decay=0.9)
            learner.compile(Momentum(0.2), weight_decay=0.01, grad_bound=0.5)
        learner.fit(tf.data.Dataset.from_tensor_slices(data), verbose=0)
        return [variable.numpy() for variable in learner.variables]

    one = train(tf.distribute.get_strategy().scope())
    for a, b in zip(one, train(mirrored(2).scope()), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-7, atol=1e-9)


@pytest.mark.long
def test_files_and_exports_keep_the_whitening(tmp_path):
    model, x = tiny(), images()
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    models.check_adapted(loaded)
    np.testing.assert_array_equal(loaded(x), model(x))
    model.export(tmp_path / "saved_model", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved_model")
    np.testing.assert_allclose(served.serve(x), model(x), atol=1e-6)


@pytest.mark.long
def test_a_learner_refuses_one_that_was_not_adapted():
    learner = Supervised(tiny(adapted=False))
    learner.compile(Momentum(0.1))
    data = tf.data.Dataset.from_tensors(
        {key: batch()[key] for key in ("labeled", "labels")}
    )
    with pytest.raises(ValueError, match="must be adapted to images before"):
        learner.fit(data, verbose=0)
    models.adapt(learner.student, images())
    learner.fit(data, verbose=0)


def test_mixed_bfloat16_keeps_variables_and_logits_in_float32():
    model = tiny(dtype="mixed_bfloat16")
    assert {variable.dtype for variable in model.weights} == {"float32"}
    logits = model(images(), training=True)
    assert logits.dtype == "float32"
    precise = tiny(dtype="float64")
    precise.set_weights(model.get_weights())
    np.testing.assert_allclose(
        logits, precise(images(), training=True), atol=0.1, rtol=0.1
    )


@pytest.mark.parametrize("name", ["speednet-0", "speednet-5000"])
def test_refuses_widths_that_no_network_has(name):
    with pytest.raises(ValueError, match="width of a speednet.*got"):
        models.check_model_type(name)


def test_refuses_images_that_vanish():
    with pytest.raises(ValueError, match="9x9 pixels or more, got 8x10"):
        tiny(input_shape=(8, 10, 3))
    tiny(input_shape=(9, 9, 3), adapted=False)


def test_a_wrong_name_is_told_of_it():
    with pytest.raises(ValueError, match="Did you mean one of: speednet-64"):
        models.check_model_type("speednet64")
