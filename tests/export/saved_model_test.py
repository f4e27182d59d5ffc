import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data import DatasetSpec
from meta_pseudo_labels.data.images.resizing import square_image
from meta_pseudo_labels.export.saved_model import export_saved_model
from tests.pictures import colors, encoded, turned

EXAMPLE = (
    pathlib.Path(__file__).parents[2]
    / "examples"
    / "classify_with_saved_model.py"
)
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 1.0)


def dataset_spec(**changes):
    fields = {
        "name": "pets",
        "image_size": 8,
        "num_classes": 3,
        "class_names": ("cat", "dog", "owl"),
        "mean": MEAN,
        "std": STD,
        "flip": True,
    }
    return DatasetSpec(**(fields | changes))


@pytest.fixture(scope="module")
def model():
    """A small net whose training and inference modes differ."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input([8, 8, 3]),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    for weight in model.weights:
        if weight.path.endswith(("moving_mean", "moving_variance")):
            weight.assign(np.linspace(0.5, 2.0, 4))
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The folder of its versions, of which there is one."""
    base = tmp_path_factory.mktemp("exported") / "model"
    assert export_saved_model(model, base, spec=dataset_spec()) == f"{base}/1"
    return base


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(exported / "1")


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, [7, 8, 8, 3], dtype=np.uint8)


def probabilities_by_hand(model, images):
    normalized = (images / 255.0 - np.array(MEAN)) / np.array(STD)
    logits = model(normalized.astype("float32"), training=False).numpy()
    exponentials = np.exp(logits.astype("float64"))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_classifies_in_a_process_without_keras(
    model, exported, images, tmp_path
):
    want = probabilities_by_hand(model, images)
    labels = want.argmax(axis=1)
    labels[0] = (labels[0] + 1) % 3  # one of seven is wrong
    np.savez(tmp_path / "test.npz", images=images, labels=labels)
    printed = subprocess.run(
        [
            sys.executable,
            EXAMPLE,
            f"--saved_model={exported}",
            f"--images={tmp_path / 'test.npz'}",
            f"--json={tmp_path / 'out.json'}",
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    ).stdout
    assert "Keras and meta_pseudo_labels: not imported" in printed
    assert "accuracy on 7 images: 85.71%" in printed
    out = json.loads((tmp_path / "out.json").read_text())
    assert out["accuracy"] == pytest.approx(6 / 7)
    got = [prediction["probabilities"] for prediction in out["predictions"]]
    np.testing.assert_allclose(got, want, atol=1e-5)
    names = [prediction["label"] for prediction in out["predictions"]]
    assert names == [("cat", "dog", "owl")[row.argmax()] for row in want]


def test_signature(loaded, images):
    signature = loaded.signatures["serving_default"]
    (given,) = signature.structured_input_signature[1].values()
    assert (given.name, given.dtype) == ("images", tf.uint8)
    assert given.shape.as_list() == [None, None, None, 3]
    outputs = signature(images=tf.constant(images))
    assert {name: t.dtype for name, t in outputs.items()} == {
        "classes": tf.int64,
        "labels": tf.string,
        "probabilities": tf.float32,
    }
    assert [t.shape[0] for t in outputs.values()] == [7, 7, 7]
    names = loaded.class_names().numpy().tolist()
    assert names == [b"cat", b"dog", b"owl"]


def test_signatures_agree_on_the_same_pictures(loaded, images):
    """And show the model what evaluation shows it, whatever their size."""
    signatures = loaded.signatures
    assert sorted(signatures) == [
        "serving_bytes",
        "serving_default",
        "serving_float",
    ]
    wide = np.repeat(images, 2, axis=2)
    squares = np.stack([square_image(image, 8) for image in wide])
    for given, shown in ((images, images), (wide, squares)):
        files = [tf.io.encode_png(image).numpy() for image in given]
        want = signatures["serving_default"](images=tf.constant(shown))
        for outputs in (
            signatures["serving_default"](images=tf.constant(given)),
            signatures["serving_float"](images=tf.constant(given, tf.float32)),
            signatures["serving_bytes"](encoded=tf.constant(files)),
        ):
            for name, value in want.items():
                np.testing.assert_array_equal(outputs[name], value)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_files_are_shown_as_they_were_held(loaded, orientation):
    pixels = colors(40, 60)
    upright = np.rot90(pixels, {3: 2, 6: 3, 8: 1}[orientation])
    serve = loaded.signatures["serving_bytes"]
    want, found = (
        serve(encoded=tf.constant([data]))
        for data in (
            encoded(upright.copy()),
            turned(orientation, "PNG", pixels),
        )
    )
    for name, value in want.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("level", [-1.0, 255.5, float("nan"), 0.5, 1.0])
def test_floats_out_of_range_are_refused(loaded, level):
    with pytest.raises(tf.errors.InvalidArgumentError, match="0 to 255"):
        loaded.signatures["serving_float"](images=tf.fill([1, 8, 8, 3], level))


@pytest.mark.long
def test_extreme_pixels_reach_the_model_normalized(tmp_path):
    """Black and white by hand, through a model that passes pixels on."""
    inputs = keras.Input([1, 1, 3])
    model = keras.Model(inputs, keras.layers.Flatten()(inputs))
    spec = dataset_spec(image_size=1)
    export_saved_model(model, tmp_path / "model", spec=spec)
    loaded = tf.saved_model.load(tmp_path / "model" / "1")
    pixels = tf.constant([[[[0, 0, 0]]], [[[255, 255, 255]]]], tf.uint8)
    outputs = loaded.signatures["serving_default"](images=pixels)
    logits = np.array([[-0.2, -0.8, -0.3], [1.8, 3.2, 0.7]])
    want = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs["probabilities"], want, rtol=1e-5)
    assert outputs["classes"].numpy().tolist() == [0, 1]


@pytest.mark.long
def test_low_precision_model_gives_float32(images, tmp_path):
    inputs = keras.Input([8, 8, 3])
    hidden = keras.layers.Flatten()(inputs)
    dense = keras.layers.Dense(3, dtype="mixed_bfloat16")
    model = keras.Model(inputs, dense(hidden))
    export_saved_model(model, tmp_path / "model", spec=dataset_spec())
    loaded = tf.saved_model.load(tmp_path / "model" / "1")
    outputs = loaded.signatures["serving_default"](images=tf.constant(images))
    assert outputs["probabilities"].dtype == tf.float32
    sums = tf.reduce_sum(outputs["probabilities"], axis=1)
    np.testing.assert_allclose(sums, np.ones(7), rtol=1e-6)


class Pair(keras.Model):
    """As a learner: a student that predicts, and a teacher in training."""

    def __init__(self):
        super().__init__()
        self.student = keras.Sequential(
            [keras.layers.Flatten(), keras.layers.Dense(3)]
        )
        self.teacher = keras.layers.Dense(50)
        self.student.build([None, 8, 8, 3])
        self.teacher.build([None, 192])

    def call(self, images, training=False):
        return self.student(images, training=training)


def test_saves_only_what_predictions_read(tmp_path):
    pair = Pair()
    assert len(pair.variables) == 4
    export_saved_model(pair, tmp_path / "model", spec=dataset_spec())
    file = tmp_path / "model" / "1" / "variables" / "variables"
    shapes = dict(tf.train.list_variables(file))
    del shapes["_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert sorted(shapes.values()) == [[3], [192, 3]]


@pytest.mark.long
def test_classes_without_names_are_numbered(model, tmp_path):
    spec = dataset_spec(class_names=())
    export_saved_model(model, tmp_path / "model", spec=spec)
    loaded = tf.saved_model.load(tmp_path / "model" / "1")
    assert loaded.class_names().numpy().tolist() == [b"0", b"1", b"2"]


def test_refuses_a_model_that_does_not_fit(model, tmp_path):
    spec = dataset_spec(num_classes=2, class_names=("cat", "dog"))
    message = r"\(None, 3\); the data set needs \[batch, 2\]"
    with pytest.raises(ValueError, match=message):
        export_saved_model(model, tmp_path / "new" / "model", spec=spec)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_refuses_probabilities_before_anything_is_written(
    activation, model, tmp_path
):
    last = keras.layers.Activation(activation)
    with pytest.raises(ValueError, match="must return logits.*probabilities"):
        export_saved_model(
            keras.Sequential([model, last]), tmp_path / "v", spec=dataset_spec()
        )
    assert not (tmp_path / "v").exists()


def test_refuses_several_inputs(model, tmp_path):
    one, two = keras.Input([8, 8, 3]), keras.Input([8, 8, 3])
    both = keras.Model([one, two], model(keras.layers.Add()([one, two])))
    with pytest.raises(ValueError, match="takes 2. Use learner.export"):
        export_saved_model(both, tmp_path / "v", spec=dataset_spec())


def test_refuses_a_remote_path(model):
    with pytest.raises(ValueError, match="local directory.*gs://bucket"):
        export_saved_model(model, "gs://bucket/model", spec=dataset_spec())


def test_example_says_what_the_file_lacks(tmp_path):
    np.savez(tmp_path / "test.npz", pictures=np.zeros([1, 8, 8, 3]))
    command = [
        sys.executable,
        EXAMPLE,
        "--saved_model=never_read",
        f"--images={tmp_path / 'test.npz'}",
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.endswith("test.npz has no array named images.\n")
    assert run.stderr.count("\n") == 1


def test_variables_are_saved_in_the_order_of_the_model(exported, model):
    """By their addresses two exports of one run would differ."""
    saved = tf.train.load_checkpoint(f"{exported}/1/variables/variables")
    names = [
        name
        for name in saved.get_variable_to_shape_map()
        if name.startswith("weights/")
    ]
    places = sorted(names, key=lambda name: int(name.split("/")[1]))
    assert len(places) == len(model.weights)
    for name, variable in zip(places, model.weights, strict=True):
        np.testing.assert_array_equal(saved.get_tensor(name), variable.numpy())
