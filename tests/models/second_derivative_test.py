"""The labels' gradient through layers whose own has no derivative by itself."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels, Supervised
from meta_pseudo_labels.learners.finetuning import finetune
from meta_pseudo_labels.learners.student_step import take_student_step
from tests.learners.helpers import CLASSES, values

L = keras.layers
SGD = keras.optimizers.SGD


class Applies(L.Layer):
    """A function as a layer."""

    def __init__(self, function, name=None):
        super().__init__(name=name)
        self.function = function

    def call(self, x):
        return self.function(x)


def crop(x):
    rows = tf.shape(x)[0]
    boxes = tf.tile([[0.1, 0.1, 0.8, 0.9]], [rows, 1])
    return tf.image.crop_and_resize(x, boxes, tf.range(rows), (3, 3))


def resize_in_function(x):
    return tf.function(lambda x: tf.image.resize(x, (3, 3)), autograph=False)(x)


def quantize(x):
    return tf.quantization.fake_quant_with_min_max_vars(x, -1.0, 1.0)


def rotate(x):
    turned = [[1.0, 0.1, 0.0, 0.1, 1.0, 0.0, 0.0, 0.0]]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x,
        transforms=turned,
        output_shape=(4, 4),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )


def shrink(x):
    return tf.image.resize(x, (3, 3), method="area")


def only_known(x):
    """What has no derivative, and is not meant to have one."""
    best = tf.cast(tf.argmax(x, axis=-1), x.dtype)[..., None]
    return x + 0.1 * tf.stop_gradient(tf.tanh(x)) * tf.stop_gradient(best)


DERIVED = {
    "bilinear": lambda: L.Resizing(3, 3),
    "bilinear up": lambda: L.UpSampling2D(2, interpolation="bilinear"),
    "nearest": lambda: L.Resizing(3, 3, interpolation="nearest"),
    "bicubic": lambda: L.UpSampling2D(2, interpolation="bicubic"),
    "lanczos": lambda: L.Resizing(3, 3, interpolation="lanczos3"),
    "crop": lambda: Applies(crop),
    "in a function": lambda: Applies(resize_in_function),
    "softsign": lambda: L.Activation("softsign"),
    "max pooling": lambda: L.MaxPooling2D(2),
    "map": lambda: Applies(lambda x: tf.map_fn(tf.tanh, x)),
}
REFUSED = {
    "FakeQuantWithMinMaxVarsGradient": quantize,
    "LRNGrad": tf.nn.lrn,
    # Which TensorFlow has, but wrong.
    "ImageProjectiveTransformV3": rotate,
    "QuantizeAndDequantizeV4Grad": lambda x: (
        tf.quantization.quantize_and_dequantize_v2(x, -1.0, 1.0)
    ),
    "Dilation2DBackpropInput": lambda x: tf.nn.dilation2d(
        x, tf.zeros((2, 2, 2)), [1, 1, 1, 1], "SAME", "NHWC", [1, 1, 1, 1]
    ),
}


UNDERIVED = {
    "ResizeArea": shrink,
    "DenseBincount": lambda x: tf.map_fn(
        lambda y: (
            y + tf.math.bincount(tf.range(2), weights=y[0, 0], minlength=2)
        ),
        x,
    ),
    "AdjustSaturation": tf.function(
        lambda x: tf.image.adjust_saturation(
            tf.concat([x, x[..., :1]], axis=-1), 2.0
        ),
        autograph=False,
    ),
}


def network(layer):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            L.Conv2D(2, 2, activation="tanh"),
            layer,
            L.Flatten(),
            L.Dense(CLASSES),
        ],
        name="student",
    )


def learner(layer, feedback="exact", **settings):
    student = network(layer)
    teacher = keras.Sequential(
        [keras.Input((5, 5, 2)), L.Flatten(), L.Dense(CLASSES)]
    )
    made = MetaPseudoLabels(student, teacher, feedback=feedback, uda=None)
    made.compile(SGD(0.5), SGD(0.1), **settings)
    return made


def batch():
    random = np.random.default_rng(0)
    images = random.normal(size=(2, 8, 5, 5, 2)).astype("float32")
    return {
        "labeled": tf.constant(images[0]),
        "labels": tf.constant(random.integers(CLASSES, size=8)),
        "strong": tf.constant(images[1]),
    }


def slopes(made, by=0.05):
    """Along a direction of the labels: by the gradient, by differences."""
    random = np.random.default_rng(1)
    labels, direction = random.normal(size=(2, 8, CLASSES)).astype("float32")
    labels = tf.nn.softmax(labels)
    start = values(made.variables)

    @tf.function(autograph=False)
    def step(labels):
        step, _ = take_student_step(made, batch(), pseudo_labels=labels)
        return step.label_gradient(), step.labeled_loss_new

    def at(change):
        for variable, value in zip(made.variables, start, strict=True):
            variable.assign(value)
        return step(labels + change * direction)

    gradient, _ = at(0.0)
    got = float(tf.reduce_sum(gradient * direction))
    up, down = (float(at(change)[1]) for change in (by, -by))
    return got, (up - down) / (2 * by)


@pytest.mark.fast("bilinear", "in a function", "map")
@pytest.mark.parametrize("name", DERIVED)
def test_the_gradient_of_labels_is_that_of_differences(name):
    got, want = slopes(learner(DERIVED[name]()))
    assert abs(want) > 1e-3
    np.testing.assert_allclose(got, want, rtol=0.02, atol=2e-4)


@pytest.mark.fast(
    "Dilation2DBackpropInput-reinforce_per_example", "LRNGrad-exact"
)
@pytest.mark.parametrize("feedback", ["exact", "reinforce_per_example"])
@pytest.mark.parametrize("operation", REFUSED)
def test_a_layer_without_a_second_derivative_is_named(operation, feedback):
    made = learner(Applies(REFUSED[operation], name="odd_one"), feedback)
    data = tf.data.Dataset.from_tensors(batch())
    before = values(made.variables)
    with pytest.raises(ValueError, match="'odd_one'.*" + operation) as error:
        made.fit(data, verbose=0)
    assert "reinforce_dot_product" in str(error.value)
    assert "\n" not in str(error.value)
    np.testing.assert_equal(values(made.variables), before)


def refusal(train):
    """Why a network is not trained, of which a layer has no derivative."""
    with pytest.raises(ValueError, match="'odd_one'.* no derivative") as error:
        train()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("operation", UNDERIVED)
def test_a_layer_without_a_derivative_is_named(operation):
    """And that no feedback helps; in loops and functions too."""
    made = learner(Applies(UNDERIVED[operation], name="odd_one"))
    before = values(made.variables)
    data = tf.data.Dataset.from_tensors(batch())
    said = refusal(lambda: made.fit(data, verbose=0))
    assert operation in said and "whatever the method or the feedback" in said
    np.testing.assert_equal(values(made.variables), before)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_no_method_trains_through_it(run_eagerly):
    """It is the layer that is named, not one before all that learns."""
    net = network(Applies(shrink, name="odd_one"))
    early = Applies(lambda x: tf.image.resize(x, (5, 5), "area"), name="early")
    made = Supervised(
        keras.Sequential([keras.Input((5, 5, 2)), early, *net.layers])
    )
    made.compile(SGD(0.1), run_eagerly=run_eagerly)
    data = tf.data.Dataset.from_tensors(batch())
    refusal(lambda: made.fit(data, verbose=0))


def test_finetuning_names_it_too():
    net = network(Applies(shrink, name="odd_one"))
    data = tf.data.Dataset.from_tensors((batch()["labeled"], batch()["labels"]))
    refusal(lambda: finetune(net, data, learning_rate=0.1, steps=1))


@pytest.mark.fast("1")
@pytest.mark.parametrize("iterations", [1, 10])
def test_spectral_normalization_holds_its_vectors(iterations, monkeypatch):
    """As Keras's own gradient does, which is right once they stand still."""
    if iterations == 1:  # They do not yet: right without that.
        keras_ops = sys.modules[L.SpectralNormalization.__module__].ops
        monkeypatch.setattr(keras_ops, "stop_gradient", tf.identity)
    layer = L.Conv2D(3, 2, activation="tanh")
    got, want = slopes(
        learner(L.SpectralNormalization(layer, power_iterations=iterations)),
        by=0.01,
    )
    np.testing.assert_allclose(got, want, rtol=1e-3)


def test_it_is_found_within_functions_and_loops():
    within = tf.function(quantize, autograph=False)
    made = learner(Applies(lambda x: tf.map_fn(within, x), name="odd_one"))
    with pytest.raises(ValueError, match="'odd_one'.*FakeQuant"):
        made.fit(tf.data.Dataset.from_tensors(batch()), verbose=0)


def test_it_is_found_when_run_eagerly():
    made = learner(Applies(quantize, name="odd_one"), run_eagerly=True)
    with pytest.raises(ValueError, match="'odd_one'.*FakeQuant"):
        made.fit(tf.data.Dataset.from_tensors(batch()), verbose=0)


def test_it_is_found_on_replicas(mirrored):
    with mirrored(2).scope():
        made = learner(Applies(quantize, name="odd_one"))
    with pytest.raises(ValueError, match="'odd_one'.*FakeQuant"):
        made.fit(tf.data.Dataset.from_tensors(batch()), verbose=0)


@pytest.mark.fast("reinforce")
@pytest.mark.parametrize("feedback", ["reinforce", "reinforce_dot_product"])
def test_others_do_not_need_one(feedback):
    made = learner(Applies(quantize), feedback)
    made.fit(tf.data.Dataset.from_tensors(batch()), verbose=0)


@pytest.mark.long
def test_what_is_meant_to_be_constant_is_taken():
    made = learner(Applies(only_known))
    history = made.fit(tf.data.Dataset.from_tensors(batch()), verbose=0)
    assert np.isfinite(history.history["mpl/dot_product"]).all()


@pytest.mark.long
def test_bilinear_resizing_is_differentiated_by_xla_too():
    made = learner(L.Resizing(3, 3), jit_compile=True)
    plain = learner(L.Resizing(3, 3))
    for one in (made, plain):
        one.fit(tf.data.Dataset.from_tensors(batch()), verbose=0)
    for one, two in zip(
        made.teacher.get_weights(), plain.teacher.get_weights(), strict=True
    ):
        np.testing.assert_allclose(one, two, atol=1e-6)
