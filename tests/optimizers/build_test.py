"""Optimizers by name, and what all of them must be able to do."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.optimizers import (
    LARS,
    OPTIMIZERS,
    AdamW,
    Momentum,
    RMSProp,
    build_optimizer,
)
from meta_pseudo_labels.optimizers.schedules import WaitWarmupDecay
from tests.optimizers.helpers import (
    RATES,
    Rate,
    random_gradients,
    tensorflow_1,
    trajectory,
)

UNUSUAL = {
    "momentum": lambda: Momentum(0.3, momentum=0.7, nesterov=False),
    "rmsprop": lambda: RMSProp(0.3, rho=0.6, momentum=0.7, epsilon=0.2),
    "lars": lambda: LARS(
        0.3,
        momentum=0.7,
        weight_decay=0.5,
        eeta=0.4,
        epsilon=0.3,
        skip_list=["kernel"],
        nesterov=False,
    ),
    "adamw": lambda: AdamW(
        0.3,
        weight_decay=0.5,
        beta_1=0.7,
        beta_2=0.6,
        epsilon=0.2,
        amsgrad=True,
    ),
}


def test_every_name_builds_what_it_says():
    kinds = {name: type(build_optimizer(name, 0.1)) for name in OPTIMIZERS}
    assert kinds == {
        "sgd": keras.optimizers.SGD,
        "momentum": Momentum,
        "rmsprop": RMSProp,
        "lars": LARS,
        "adam": keras.optimizers.Adam,
        "adamw": AdamW,
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_settings_reach_the_optimizer(name):
    optimizer = build_optimizer(
        name,
        WaitWarmupDecay(0.2, decay="constant"),
        weight_decay=0.3,
        rmsprop_rho=0.4,
        rmsprop_momentum=0.5,
        rmsprop_epsilon=0.6,
        adam_beta_1=0.7,
        adam_beta_2=0.8,
        adam_epsilon=0.1,
    )
    config = optimizer.get_config()
    settings = ("weight_decay", "rho", "momentum", "epsilon", "nesterov")
    if name.startswith("adam"):
        settings = ("weight_decay", "beta_1", "beta_2", "epsilon", "amsgrad")
    assert {k: config.get(k) for k in settings} == {
        "adam": dict(zip(settings, (None, 0.7, 0.8, 0.1, False), strict=True)),
        "adamw": dict(zip(settings, (0.3, 0.7, 0.8, 0.1, False), strict=True)),
        "sgd": dict(zip(settings, (None, None, 0.0, None, False), strict=True)),
        "momentum": dict(
            zip(settings, (None, None, 0.9, None, True), strict=True)
        ),
        "rmsprop": dict(
            zip(settings, (None, 0.4, 0.5, 0.6, None), strict=True)
        ),
        "lars": dict(zip(settings, (0.3, None, 0.9, 0.0, True), strict=True)),
    }[name]
    assert float(optimizer.learning_rate) == pytest.approx(0.2)


def test_names_may_have_capitals_as_in_the_release():
    assert isinstance(build_optimizer("LARS", 0.1), LARS)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'adamax'.*rmsprop"):
        build_optimizer("adamax", 0.1)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)]
)
def test_sgd_equals_tensorflow_1(dtype, tolerance):
    """Why Keras's own will do."""
    gradients = random_gradients(dtype)
    want, slots = tensorflow_1(
        tf.compat.v1.train.GradientDescentOptimizer, gradients, RATES, dtype
    )
    optimizer = build_optimizer("sgd", Rate(*RATES))
    ours = trajectory(optimizer, gradients, dtype)
    np.testing.assert_allclose(ours, want, rtol=tolerance, atol=tolerance)
    assert not slots


@pytest.mark.parametrize("name", UNUSUAL)
def test_survives_saving(name):
    optimizer = UNUSUAL[name]()
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(copy) is type(optimizer)
    config = optimizer.get_config()
    assert copy.get_config() == config
    parameters = inspect.signature(type(optimizer)).parameters
    for parameter in set(parameters) - {"name", "kwargs"}:
        assert config[parameter] != parameters[parameter].default
    gradients = random_gradients("float64", steps=3)
    np.testing.assert_array_equal(
        trajectory(copy, gradients), trajectory(optimizer, gradients)
    )


def model_with(optimizer):
    """A compiled model of four variables, and its optimizer's slots."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input([3]),
            keras.layers.Dense(4, name="dense"),
            keras.layers.BatchNormalization(name="norm"),
        ]
    )
    model.compile(optimizer)
    model.optimizer.build(model.trainable_variables)
    return model


def take_steps(model, count):
    for step in range(count):
        gradients = [tf.ones(v.shape) + step for v in model.trainable_variables]
        model.optimizer.apply(gradients, model.trainable_variables)


@pytest.mark.parametrize("name", ["momentum", "rmsprop", "lars"])
def test_slots_are_of_the_variables_in_their_order(name):
    model = model_with(UNUSUAL[name]())
    shapes = [v.shape for v in model.trainable_variables]
    assert len(shapes) == len(set(shapes)) + 2  # Bias, gamma and beta alike.
    for slots in model.optimizer.release_slots.values():
        assert [slot.shape for slot in slots] == shapes
        assert len({id(slot) for slot in slots}) == len(shapes)


@pytest.mark.fast("momentum")
@pytest.mark.parametrize("name", UNUSUAL)
def test_checkpoints_hold_the_slots(name, tmp_path):
    model = model_with(UNUSUAL[name]())
    take_steps(model, 3)
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    other = model_with(UNUSUAL[name]())
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    for one, two in zip(
        model.optimizer.variables, other.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(one, two, err_msg=one.path)
    take_steps(model, 2)
    take_steps(other, 2)
    for one, two in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=one.path)


@pytest.mark.parametrize("name", UNUSUAL)
def test_keras_files_hold_the_slots(name, tmp_path):
    model = model_with(UNUSUAL[name]())
    take_steps(model, 3)
    model.save(tmp_path / "model.keras")
    other = keras.models.load_model(tmp_path / "model.keras")
    take_steps(model, 2)
    take_steps(other, 2)
    for one, two in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=one.path)
