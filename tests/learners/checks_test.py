"""What learners refuse, before any work starts."""

import keras
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import Supervised
from tests.learners.helpers import make


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
        {"ema_decay": 1.0},
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


def test_several_replicas_are_refused(monkeypatch):
    class Strategy:
        num_replicas_in_sync = 4

    monkeypatch.setattr(tf.distribute, "get_strategy", Strategy)
    with pytest.raises(ValueError, match="4 replicas"):
        make(Supervised)
