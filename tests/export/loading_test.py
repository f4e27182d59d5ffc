"""Exported SavedModels, evaluated as networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data import DatasetSpec, evaluation_dataset
from meta_pseudo_labels.evaluation.evaluate import evaluate
from meta_pseudo_labels.export.loading import ExportedModel
from meta_pseudo_labels.export.saved_model import export_saved_model

SPEC = DatasetSpec(
    name="pets",
    num_classes=3,
    image_size=8,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    flip=True,
    class_names=("ant", "bee", "cow"),
)
IMAGES = np.random.default_rng(0).integers(0, 256, [6, 8, 8, 3], np.uint8)
LABELS = np.int32([0, 1, 2, 0, 1, 2])


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input([8, 8, 3])
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The folder of two versions; the second one is the model's."""
    folder = tmp_path_factory.mktemp("exported") / "saved_model"
    weights = model.get_weights()
    model.set_weights([0 * weight for weight in weights])
    export_saved_model(model, folder, spec=SPEC)
    model.set_weights(weights)
    export_saved_model(model, folder, spec=SPEC)
    return folder


def pixel_batches(size):
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(size)


@pytest.mark.long
def test_an_export_is_as_good_as_what_was_exported(model, exported):
    want = evaluate(model, evaluation_dataset(IMAGES, LABELS, SPEC, 4))
    served = ExportedModel(str(exported))
    found = evaluate(served, pixel_batches(4))
    assert found.nll == pytest.approx(want.nll, rel=1e-5)
    assert found.ece == pytest.approx(want.ece, abs=1e-5)
    np.testing.assert_array_equal(found.confusion, want.confusion)
    served.check_fits(tf.constant(IMAGES[:4]), SPEC.class_names)


@pytest.mark.long
def test_a_folder_of_versions_is_its_newest_one(exported):
    assert ExportedModel(str(exported)).path == f"{exported}/2"
    first = ExportedModel(f"{exported}/1")
    assert first.path == f"{exported}/1"
    found = evaluate(first, pixel_batches(6))
    assert found.nll == pytest.approx(np.log(3))


@pytest.mark.long
def test_other_classes_and_images_are_refused(exported):
    served = ExportedModel(str(exported))
    images = tf.constant(IMAGES)
    with pytest.raises(ValueError, match="has 3 classes, the run 4"):
        served.check_fits(images, ("ant", "bee", "cow", "dog"))
    with pytest.raises(ValueError, match="calls '(ant|bee|cow)' what the run"):
        served.check_fits(images, ("0", "1", "2"))
    # Two of them in another order, of which no image was taken for either.
    sees = ExportedModel(f"{exported}/1")  # It says "ant" of all.
    with pytest.raises(ValueError, match="calls 'bee' what the run calls 'cow"):
        sees.check_fits(images, ("ant", "cow", "bee"))
    with pytest.raises(ValueError, match="not images of type float32"):
        served.check_fits(tf.cast(images, tf.float32), SPEC.class_names)
    with pytest.raises(ValueError, match="not trained"):
        served(images, training=True)


def test_what_is_no_export_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no SavedModel"):
        ExportedModel(str(tmp_path / "absent"))
    (tmp_path / "saved_model.pb").write_bytes(b"torn")
    with pytest.raises(ValueError, match="cannot be read as a SavedModel"):
        ExportedModel(str(tmp_path))
    other = tmp_path / "other"
    tf.saved_model.save(tf.Module(), str(other))
    with pytest.raises(ValueError, match="has no signature serving_default"):
        ExportedModel(str(other))
