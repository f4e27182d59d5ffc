import keras
import numpy as np
import pytest

from meta_pseudo_labels import models

ROWS = np.float32([[0.7, 0.2, 0.1], [0, 1, 0], [1e-6, 0.5, 0.499999]])


def build(**settings):
    return models.reduced_teacher(**dict(num_classes=3) | settings)


def test_it_starts_as_the_large_teacher():
    """Whatever the hidden layers are; a 0 becomes one part in 10^8."""
    for training in (False, True):
        logits = build(dropout_rate=0.5)(ROWS, training=training)
        np.testing.assert_allclose(keras.ops.softmax(logits), ROWS, atol=1e-6)


def test_computes_by_hand():
    """One hidden unit; log(e^-2) is scaled by ln(10^8) = 18.42."""
    model = build(num_classes=2, hidden_sizes=(1,))
    model.set_weights(
        [
            np.array([[2.0], [-1.0]]),
            np.array([0.5]),
            np.array([[1.0, -3.0]]),
            np.array([0.0, 0.25]),
        ]
    )
    p = np.exp(-2.0)
    q = np.log(1 - p)
    scale = 8 * np.log(10)
    hidden = 2 * (1 - 2 / scale) - (1 + q / scale) + 0.5
    assert hidden > 0
    np.testing.assert_allclose(
        model(np.array([[p, 1 - p]])),
        [[-2 + hidden, q - 3 * hidden + 0.25]],
        rtol=1e-6,
    )


def test_inputs_of_the_layers_are_between_0_and_1():
    model = build()
    scaled = keras.Model(model.input, model.get_layer("scale").output)(ROWS)
    assert np.min(scaled) >= -1e-6
    assert np.max(scaled) <= 1
    np.testing.assert_allclose(scaled[1], [0, 1, 0], atol=1e-6)


def test_has_as_many_layers_as_its_name_says():
    sizes = models.mlp_hidden_sizes(models.REDUCED_TEACHER)
    assert sizes == (128,) * 4
    model = build(hidden_sizes=sizes)
    dense = [x for x in model.layers if isinstance(x, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [128, 128, 128, 128, 3]


def test_computes_in_float64():
    rows = np.array([[0.5, 0.25, 0.25], [0.5, 0.25 + 1e-12, 0.25 - 1e-12]])
    logits = np.asarray(build(dtype="float64")(rows))
    assert logits.dtype == np.float64
    assert 0 < logits[1, 1] - logits[0, 1] < 1e-11


def test_survives_saving():
    model = build(hidden_sizes=(4,))
    model.layers[-2].kernel.assign(np.ones([4, 3]))
    copy = keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy(ROWS), model(ROWS))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mlp", (128, 128)),
        ("mlp-1-9", ()),
        ("mlp-3-512", (512, 512)),
        ("mlp-0-9", None),
        ("mlp-3", None),
        ("mlp-3-0", None),
        ("wrn-28-2", None),
    ],
)
def test_names_of_perceptrons(name, sizes):
    assert models.mlp_hidden_sizes(name) == sizes


def test_a_named_perceptron_is_built():
    model = models.build("mlp-3-7", input_shape=(2,), num_classes=4)
    assert model.count_params() == (2 * 7 + 7) + (7 * 7 + 7) + (7 * 4 + 4)
    models.check_model_type("mlp-3-7")
    with pytest.raises(ValueError, match="Unknown model_type 'mlp-3-'"):
        models.check_model_type("mlp-3-")


def test_no_hidden_layer_is_refused():
    with pytest.raises(ValueError, match="hidden_sizes is empty"):
        build(hidden_sizes=())
    with pytest.raises(ValueError, match=r"must be positive, got \(0,\)"):
        build(hidden_sizes=(0,))
