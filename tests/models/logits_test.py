"""What passes for logits, and what does not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.models import check_classifier

ops = keras.ops
CLASSES = 3


def dense(units=CLASSES, activation=None, **settings):
    return keras.layers.Dense(units, activation=activation, **settings)


def functional(outputs, shape=(4,)):
    """A model from a function of its symbolic inputs."""
    inputs = keras.Input(shape)
    return keras.Model(inputs, outputs(inputs), name="net")


def nested(activation, *after):
    """Two sequential models deep."""
    inner = keras.Sequential([keras.Input((4,)), dense(activation=activation)])
    outer = keras.Sequential([keras.Input((4,)), inner, *after])
    return functional(outer)


def subclassed(last, dtype=None):
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net", dtype=dtype)
            self.dense = dense()

        def call(self, inputs):
            return last(self.dense(inputs))

    net = Net()
    net(np.ones([2, 4]))
    return net


def overridden():
    """Its layers end in a dense one, its `call` does not."""

    class Net(keras.Model):
        def call(self, inputs, training=False):
            return ops.softmax(super().call(inputs, training=training))

    inputs = keras.Input((4,))
    return Net(inputs, dense()(inputs), name="net")


def soft(inputs):
    return dense(activation="softmax")(inputs)


def classes_of_two(probability):
    return keras.layers.Concatenate()([1 - probability, probability])


def mixture(inputs):
    """Of three experts, weighted by what each image needs."""
    experts = ops.stack([soft(inputs) for _ in range(3)], axis=1)
    return ops.einsum("be,bec->bc", soft(inputs), experts)


def per_pixel(inputs):
    pixels = keras.layers.Conv2D(CLASSES, 1, activation="softmax")(inputs)
    return keras.layers.GlobalAveragePooling2D()(pixels)


def application():
    net = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), weights=None, classes=CLASSES, alpha=0.35
    )
    return keras.Sequential([keras.Input((32, 32, 3)), net], name="net")


PROBABILITIES = {
    "an activation": lambda: functional(soft),
    "sigmoids": lambda: functional(dense(activation="sigmoid")),
    "hard sigmoids": lambda: functional(dense(activation="hard_sigmoid")),
    "a layer": lambda: functional(lambda x: keras.layers.Softmax()(dense()(x))),
    "an operation": lambda: functional(lambda x: ops.sigmoid(dense()(x))),
    "a lambda": lambda: functional(
        lambda x: keras.layers.Lambda(tf.nn.softmax)(dense()(x))
    ),
    "nested": lambda: nested("softmax"),
    "nested, and dropout": lambda: nested("sigmoid", keras.layers.Dropout(0.1)),
    "of keras.applications": application,
    "reshaped": lambda: functional(
        lambda x: keras.layers.Reshape([CLASSES])(ops.expand_dims(soft(x), 1))
    ),
    "cast": lambda: functional(
        lambda x: keras.layers.Activation("linear", dtype="float32")(
            dense(activation="softmax", dtype="mixed_bfloat16")(x)
        )
    ),
    "clipped": lambda: functional(lambda x: ops.clip(soft(x), 1e-7, 1.0)),
    "an ensemble": lambda: functional(
        lambda x: keras.layers.Average()([soft(x), soft(x)])
    ),
    "a mean over pixels": lambda: functional(per_pixel, (4, 4, 2)),
    "both of two classes": lambda: functional(
        lambda x: classes_of_two(dense(1, "sigmoid")(x))
    ),
    "by hand": lambda: functional(
        lambda x: (lambda e: e / ops.sum(e, axis=-1, keepdims=True))(
            ops.exp(dense()(x))
        )
    ),
    "of logarithms": lambda: functional(
        lambda x: ops.exp(ops.log_softmax(dense()(x)))
    ),
    "a mixture of experts": lambda: functional(mixture),
    "by their sum": lambda: functional(
        lambda x: ops.normalize(ops.softplus(dense()(x)), order=1)
    ),
    "choices": lambda: functional(
        lambda x: ops.one_hot(ops.argmax(dense()(x), -1), CLASSES)
    ),
    "subclassed": lambda: subclassed(tf.nn.softmax),
    "in a function": lambda: subclassed(tf.function(ops.sigmoid)),
    "overridden": overridden,
}
LOGITS = {
    "dense": lambda: functional(dense()),
    "float16": lambda: functional(dense(dtype="float16")),
    "positive": lambda: functional(dense(activation="relu")),
    "a gate of logits": lambda: functional(
        lambda x: dense()(x) * dense(activation="sigmoid")(x)
    ),
    "attention to inputs": lambda: functional(
        lambda x: dense()(x * dense(4, "softmax")(x))
    ),
    "a gate listed last": lambda: functional(
        lambda x: keras.layers.Multiply()([dense(name="a")(x), soft(x)])
    ),
    "a mixture of logits": lambda: functional(
        lambda x: ops.einsum("be,bec->bc", soft(x), ops.stack([x] * 3, 1))
    ),
    "soft steps": lambda: functional(dense(activation="softplus")),
    "swish": lambda: functional(dense(activation="silu")),
    "logarithms": lambda: functional(lambda x: ops.log(soft(x))),
    "a dense layer on them": lambda: nested("softmax", dense()),
    "sigmoids on a scale": lambda: functional(
        lambda x: 20 * dense(activation="sigmoid")(x) - 10
    ),
    "added to logits": lambda: functional(lambda x: dense()(x) + soft(x)),
    "subclassed": lambda: subclassed(lambda x: x),
}


@pytest.mark.parametrize("case", PROBABILITIES)
def test_probabilities_are_refused_however_they_come_about(case):
    with pytest.raises(ValueError, match="probabilities") as refused:
        check_classifier(PROBABILITIES[case](), role="student")
    assert "The student 'net' must return logits" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("case", LOGITS)
def test_logits_are_not(case):
    check_classifier(LOGITS[case](), role="student")


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (lambda x: dense(2)(ops.expand_dims(x, 1)), r"\[batch, 1, 2\]"),
        (dense(1), r"\[batch, 1\].*Dense\(2\)"),
        (lambda x: ops.squeeze(dense(1)(x), -1), r"returns \[batch\]"),
        (
            lambda x: [dense()(x), dense(5)(x)],
            r"2 outputs \(\[batch, 3\], \[batch, 5\]\) in a list",
        ),
        (lambda x: {"a": dense()(x)}, "in a dict"),
        (lambda x: ops.cast(dense()(x), "int32"), "float type.*int32"),
    ],
)
def test_other_outputs_are_refused_with_what_came(outputs, words):
    with pytest.raises(ValueError, match=words):
        check_classifier(functional(outputs), role="teacher")


def test_a_subclassed_models_output_is_traced():
    net = subclassed(lambda x: ops.reshape(x, [-1, 1, CLASSES]))
    with pytest.raises(ValueError, match=r"\[batch, 1, 3\]"):
        check_classifier(net, role="student")


def test_what_cannot_be_traced_is_not_known():
    """It takes two arguments, of which Keras keeps the shapes alone."""

    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = dense()

        def call(self, one, other):
            return self.dense(one + other)

    net = Pair()
    net(np.ones([2, 4]), np.ones([2, 4]))
    check_classifier(net, role="student")


def test_a_network_that_says_itself_that_it_is_built_is_taken():
    class ByHand(keras.Model):
        def __init__(self):
            super().__init__()
            self.logits = keras.layers.Dense(3)
            self.logits.build((None, 4))
            self.built = True

        def call(self, inputs):
            return self.logits(inputs)

    model = ByHand()
    assert model.get_build_config() is None
    check_classifier(model, role="student")
