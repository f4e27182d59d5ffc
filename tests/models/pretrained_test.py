"""What a network takes of weights from elsewhere, and what it refuses."""

import hashlib
import pathlib

import keras
import numpy as np
import pytest

from meta_pseudo_labels import UDA, MetaPseudoLabels, models
from tests.models.helpers import randomize

IMAGES = np.random.default_rng(0).normal(size=[2, 32, 32, 3])


def build(model_type, classes=10, **settings):
    settings |= dict(input_shape=(32, 32, 3), num_classes=classes)
    return models.build(model_type, **settings)


def tiny_net(**settings):
    return keras.Sequential(
        [
            keras.Input([4]),
            keras.layers.Dense(5, name="first"),
            keras.layers.Dense(3, name="out", **settings),
        ]
    )


def features(model):
    """The function before the last layer."""
    return keras.Model(model.input, model.layers[-1].input)(IMAGES)


def assert_same(one, other):
    for ours, theirs in zip(
        one.get_weights(), other.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.fast("mlp-.keras", "wrn-10-1-.weights.h5")
@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("mlp", ".keras"),
        ("wrn-10-1", ".weights.h5"),
        pytest.param("resnet-50", ".keras", marks=pytest.mark.long),
        pytest.param("efficientnet-bs", ".weights.h5", marks=pytest.mark.long),
        ("MobileNet", ".keras"),
        pytest.param("MobileNetV3Small", ".keras", marks=pytest.mark.long),
    ],
)
def test_all_but_the_head_of_other_classes_is_read(tmp_path, name, ending):
    """Also where dropout, whose seeds are in the file too, comes and goes."""
    donor, model = build(name, 7), build(name, dropout_rate=0.2)
    randomize(donor)
    path = tmp_path / f"donor{ending}"
    (donor.save_weights if ending == ".weights.h5" else donor.save)(path)

    report = models.load_weights(model, path)

    np.testing.assert_array_equal(features(model), features(donor))
    for ours in model.layers[-1].get_weights():  # All classes are as likely.
        np.testing.assert_array_equal(ours, np.zeros_like(ours))
    assert report.head == ("head.dense/0", "head.dense/1")
    assert len(report.matched) == len(donor.weights) - 2
    assert not report.missing and not report.left_over
    digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    assert report.sha256 == digest
    assert "the head is new, 2: head.dense/0, head.dense/1" in str(report)
    assert ", 7] there, [" in str(report)


def test_a_head_of_as_many_but_other_classes_is_not_read(tmp_path):
    donor, model = build("mlp"), build("mlp")
    randomize(donor)
    donor.save_weights(tmp_path / "donor.weights.h5")
    for source in (tmp_path / "donor.weights.h5", donor):
        report = models.load_weights(model, source, same_classes=False)
        assert len(report.head) == 2 and not report.missing
        assert not report.left_over and not report.mismatched
        np.testing.assert_array_equal(features(model), features(donor))
        for ours in model.layers[-1].get_weights():
            np.testing.assert_array_equal(ours, np.zeros_like(ours))


@pytest.mark.long
def test_weights_of_keras_itself_are_read_though_its_layers_are_others():
    """A top of 1,000 classes, and a rescaling that ours leaves out."""
    keras.backend.clear_session()  # So that its layers have their first names.
    donor = keras.applications.EfficientNetB0(
        weights=None, input_shape=(32, 32, 3), classes=12
    )
    randomize(donor)
    model = build("EfficientNetB0")
    report = models.load_weights(model, donor)
    for layer in model.layers[:-1]:
        if layer.weights:
            assert_same(layer, donor.get_layer(layer.name))
    assert len(report.head) == 2 and not report.missing
    assert {name.split("/")[0] for name in report.left_over} == {
        "normalization",
        "predictions",
    }
    assert "left over, 4: predictions/0, predictions/1" in str(report)


def test_names_count_where_places_are_others():
    """And the layers that are not there stay as they are, and are said."""
    deep, model = build("mlp-4-16"), build("mlp-5-16", 16)
    randomize(deep)
    report = models.load_weights(model, deep)
    for name in ("hidden_1.dense", "hidden_2.dense", "hidden_3.dense"):
        np.testing.assert_array_equal(
            model.get_layer(name).kernel, deep.get_layer(name).kernel
        )
    assert report.missing == ("hidden_4.dense/0", "hidden_4.dense/1")
    assert "not found and left fresh, 2: hidden_4.dense/0" in str(report)


@pytest.mark.parametrize(
    ("name", "donor"), [("wrn-10-1", "mlp"), ("wrn-10-2", "wrn-10-1")]
)
def test_another_network_is_refused_and_nothing_changes(name, donor):
    model = build(name)
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"another network than '{name}'"):
        models.load_weights(model, build(donor))
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("none.keras", None, "There is no file"),
        ("a.pkl", b"cos\nsystem\n", "is not a .weights.h5 or .keras file"),
        ("a.keras", b"no archive", "cannot be read as Keras weights"),
        ("a.weights.h5", b"no HDF5", "cannot be read as Keras weights"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(tmp_path, file, content, words):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        models.load_weights(build("mlp"), tmp_path / file)


def test_no_layer_of_a_file_is_made(tmp_path):
    """A Lambda holds code, and Keras's safe mode would refuse the file."""
    donor = build("mlp")
    code = keras.layers.Lambda(lambda x: x)(donor.output)
    keras.Model(donor.input, code).save(tmp_path / "a.keras")
    model = build("mlp")
    models.load_weights(model, tmp_path / "a.keras")
    assert_same(model, donor)


@pytest.mark.parametrize("kind", ["file", "weights", "object"])
@pytest.mark.parametrize(
    ("make", "is_refused"),
    [
        (lambda: MetaPseudoLabels(tiny_net(), tiny_net()), True),
        (lambda: UDA(tiny_net(), ema_decay=0.9), True),
        (lambda: UDA(tiny_net()), False),
    ],
)
def test_a_learner_with_several_sets_of_weights_is_refused(
    tmp_path, make, is_refused, kind
):
    """The teacher's weights would be read, or those that are not averaged."""
    learner, model = make(), tiny_net()
    learner.compile("sgd")
    before = model.get_weights()
    source = learner
    if kind == "file":
        source = tmp_path / "learner.keras"
        learner.save(source)
    elif kind == "weights":
        source = tmp_path / "learner.weights.h5"
        learner.save_weights(source)
    if is_refused:
        with pytest.raises(ValueError, match="is of a learner.*finished_stud"):
            models.load_weights(model, source)
        for kept, was in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(kept, was)
    else:
        models.load_weights(model, source)
        assert_same(model, learner.student)


def test_a_head_that_was_read_is_not_emptied():
    """The source has no bias: the kernel is read, the bias stays at 0."""
    donor, model = tiny_net(use_bias=False), tiny_net()
    randomize(donor)
    report = models.load_weights(model, donor)
    assert report.head == ("out/1",) and "out/0" in report.matched
    np.testing.assert_array_equal(
        model.layers[-1].kernel, donor.layers[-1].kernel
    )
