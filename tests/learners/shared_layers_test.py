"""Layers that two networks share, and layers that nobody has called yet."""

import keras
import numpy as np
import pytest

from meta_pseudo_labels.learners import MetaPseudoLabels, Supervised
from meta_pseudo_labels.learners.checks import check_pair

ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
BATCH = {
    "labeled": ROWS,
    "labels": np.int32([0, 1, 2, 0, 1, 2]),
    "strong": ROWS[::-1].copy(),
}


def dense(trainable=False):
    layer = keras.layers.Dense(4, name="shared")
    layer.trainable = trainable
    return layer


def normalization():
    layer = keras.layers.Normalization(name="shared")
    layer.adapt(ROWS)
    return layer


def moments(trainable=False):
    layer = keras.layers.BatchNormalization(center=False, scale=False)
    layer.trainable = trainable
    return layer


def on_top_of(layer):
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(3)(layer(inputs)))


@pytest.mark.parametrize("make", [dense, normalization, moments])
def test_layers_that_do_not_change_may_be_shared(make):
    shared = make()
    networks = [on_top_of(shared) for _ in range(2)]
    before = shared.get_weights()
    learner = MetaPseudoLabels(*networks, uda=None, ema_decay=0.9)
    learner.compile("sgd")
    heads = [network.layers[-1].get_weights()[0] for network in networks]
    learner.fit(BATCH, epochs=2, verbose=0)
    for want, got in zip(before, shared.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    for head, network in zip(heads, networks, strict=True):
        assert (network.layers[-1].get_weights()[0] != head).any()


def test_a_file_that_could_not_be_loaded_is_not_saved(tmp_path):
    shared = dense()
    learner = MetaPseudoLabels(on_top_of(shared), on_top_of(shared))
    (tmp_path / "learner.keras").write_text("of an earlier run")
    with pytest.raises(ValueError, match="share the layer 'shared'"):
        learner.save(tmp_path / "learner.keras")
    assert (tmp_path / "learner.keras").read_text() == "of an earlier run"
    learner.save_weights(tmp_path / "learner.weights.h5")
    learner.finished_student().save(tmp_path / "student.keras")
    keras.models.load_model(tmp_path / "student.keras")


@pytest.mark.parametrize("make", [dense, moments])
def test_layers_that_change_may_not(make):
    shared = make(trainable=True)
    with pytest.raises(ValueError, match="or freeze the layers that they"):
        check_pair(on_top_of(shared), on_top_of(shared))


# Keras only warns of the layers that we refuse.
LATE = pytest.mark.filterwarnings("ignore:`build..` was called on layer")


class OnlyInTraining(keras.Model):
    def __init__(self, extra, **kwargs):
        super().__init__(**kwargs)
        self.extra, self.head = extra, keras.layers.Dense(3)
        self(ROWS)

    def call(self, inputs, training=False):
        return self.head(self.extra(inputs) if training else inputs)


@LATE
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_layers_without_weights_yet_are_refused(role):
    late = OnlyInTraining(keras.layers.Dense(4, name="late"))
    networks = {name: on_top_of(dense()) for name in ("student", "teacher")}
    networks[role] = late
    words = f"The {role} .* yet: late. Call it once .* training=True"
    with pytest.raises(ValueError, match=words):
        MetaPseudoLabels(**networks)
    late(ROWS, training=True)
    MetaPseudoLabels(**networks)


@LATE
@pytest.mark.parametrize("kind", ["Dropout", "Flatten", "GaussianNoise"])
def test_layers_that_have_none_may_be_called_later(kind):
    rate = [] if kind == "Flatten" else [0.1]
    learner = Supervised(OnlyInTraining(getattr(keras.layers, kind)(*rate)))
    learner.compile("sgd")
    learner.fit({key: BATCH[key] for key in ("labeled", "labels")}, verbose=0)
    assert learner.step.numpy() == 1
