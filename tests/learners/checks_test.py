"""What learners refuse, before any work starts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels, Supervised
from meta_pseudo_labels.learners.finetuning import finetune
from tests.learners.helpers import batch, conv_net, make


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "no weights"),
        (lambda: lambda images: images, "must be a keras.Model"),
        (
            lambda: keras.Sequential(
                [keras.Input((4,)), keras.layers.Dense(3, "softmax")]
            ),
            "must return logits",
        ),
        (
            lambda: keras.Sequential(
                [
                    keras.Input((4,)),
                    keras.layers.Dense(3),
                    keras.layers.Softmax(),
                ]
            ),
            "must return logits",
        ),
    ],
)
def test_models_that_cannot_be_trained_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        Supervised(model())


@pytest.mark.parametrize(
    "settings",
    [
        {"label_smoothing": 1.5},
        {"label_smoothing": -0.1},
        {"ema_decay": 1.5},
        {"log_every": 0},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        make(Supervised, **settings)


@pytest.mark.parametrize(
    "settings", [{"weight_decay": -1.0}, {"grad_bound": 0.0}]
)
def test_compile_refuses_what_cannot_be_meant(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        make(Supervised).compile(**settings)


def test_models_from_outside_of_the_strategy_are_refused(mirrored):
    student = conv_net("student")
    with mirrored(2).scope(), pytest.raises(ValueError, match="'student' was"):
        Supervised(student)


def test_raw_images_are_refused():
    learner = make(Supervised)
    learner.compile("sgd")
    with pytest.raises(ValueError, match="data.normalize"):
        learner.predict(np.zeros([2, 6, 6, 2], "uint8"), verbose=0)


def test_unequal_classes_of_subclassed_models_are_refused():
    """Their output shapes are not known before they are called."""

    class Model(keras.Model):
        def __init__(self, classes):
            super().__init__()
            self.dense = keras.layers.Dense(classes)
            self(np.zeros([1, 6, 6, 2]))

        def call(self, inputs):
            return self.dense(keras.ops.reshape(inputs, [-1, 72]))

    learner = MetaPseudoLabels(Model(4), Model(3))
    learner.compile("sgd")
    with pytest.raises(ValueError, match="got 4 and 3"):
        learner.train_step(batch(dtype="float32"))


class Late(keras.Model):
    """Its inputs are not known before it trains, so its output is not."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4)
        self({"a": np.zeros([2, 3])})

    def call(self, inputs):
        return keras.ops.reshape(self.dense(inputs["a"]), [-1, 2, 2])


def test_an_output_that_was_not_known_is_refused_where_it_comes():
    learner = Supervised(Late())
    learner.compile("sgd")
    rows = {"labeled": {"a": np.ones([2, 3])}, "labels": np.zeros(2, "int32")}
    data = tf.data.Dataset.from_tensors(rows)
    with pytest.raises(ValueError, match=r"returns \[batch, 2, 2\]"):
        learner.fit(data, verbose=0)


def net(activation=None, units=3):
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(units, activation)]
    )


def test_teachers_are_looked_at_as_students_are():
    with pytest.raises(ValueError, match="The teacher .* probabilities"):
        MetaPseudoLabels(net(), net("softmax"))
    with pytest.raises(ValueError, match="The teacher .* classes or more"):
        MetaPseudoLabels(net(), net(units=1))


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_frozen_networks_are_told_so(role):
    networks = {"student": net(), "teacher": net()}
    networks[role].trainable = False
    with pytest.raises(ValueError, match=f"{role} .* all 2 are frozen"):
        MetaPseudoLabels(**networks)


def test_finetuning_looks_too():
    data = tf.data.Dataset.from_tensors((np.ones([2, 4]), np.zeros(2)))
    with pytest.raises(ValueError, match="The student .* probabilities"):
        finetune(net("sigmoid"), data, learning_rate=0.1, steps=1)
    frozen = net()
    frozen.layers[0].trainable = False
    with pytest.raises(ValueError, match="frozen"):
        finetune(frozen, data, learning_rate=0.1, steps=1)
