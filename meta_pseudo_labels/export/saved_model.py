"""A trained classifier as a self-contained TensorFlow SavedModel.

Versions 1, 2, ... are side by side in one folder, as TensorFlow Serving wants
them. A version takes pictures of any size, decoded or as files, and needs only
TensorFlow (or TensorFlow Serving) to run:

    model = tf.saved_model.load("models/pets/1")
    model.signatures["serving_default"](images=images)["labels"]
"""

import contextlib
import errno
import os
import pathlib
import tempfile

import tensorflow as tf

from meta_pseudo_labels.data import normalize
from meta_pseudo_labels.data.preparation import (
    pixels_from_floats,
    prepare_encoded,
    prepare_images,
)
from meta_pseudo_labels.export.warmup import write_warmup_requests
from meta_pseudo_labels.models import check_logits
from meta_pseudo_labels.utils.files import sync
from meta_pseudo_labels.utils.versions import version_names

EXTRAS = "assets.extra"  # TensorFlow Serving ignores it, or warms up with it.
_DECODED_AT_A_TIME = 4  # Of a batch of files; each may have 192 MB of pixels.


def export_saved_model(model, path, *, spec, add=None):
    """Writes `model` with all its preprocessing as the next version in `path`.

    There are three signatures, each for a batch of pictures of any one height
    and width:
      serving_default: `images` [batch, height, width, 3] uint8, 0 to 255.
      serving_float: the same as float32, rounded to whole levels. Levels
        outside 0 to 255 are refused.
      serving_bytes: `encoded` [batch] string, JPEG or PNG files, each of a
        size of its own.
    Pictures are decoded, resized and normalized as in evaluation; see
    `data.preparation`. Decoded pictures that have the model's size are taken as
    they are. All signatures return
      classes: [batch] int64, the index of the most probable class,
      labels: [batch] string, its name,
      probabilities: [batch, num_classes] float32, rows sum to 1.
    Every output has one row per image, so that a server can answer image by
    image. `tf.saved_model.load(version).class_names()` returns all names,
    [num_classes] string, in the order of the columns of `probabilities`.

    The version appears complete or not at all: it is written under another name
    and renamed at the end. Its folder assets.extra holds requests with which
    TensorFlow Serving warms up.

    Args:
      model: keras.Model from normalized float images to logits
        [batch, num_classes]. It is run with training=False.
      path: local folder of the versions, created if missing.
      spec: data.DatasetSpec of the images. Classes without names are called
        by their numbers.
      add: None, or a function that gets the path of the new version's
        assets.extra and adds files to it.

    Returns:
      The folder of the new version, a string.

    Raises:
      ValueError: if `path` is not local, is a file, or is itself a
        SavedModel; or if the model does not return logits, or not
        spec.num_classes of them, or has several inputs.
    """
    path = _local_folder(path)
    inputs = getattr(model, "inputs", None) or [None]
    if len(inputs) != 1:
        raise ValueError(
            f"A SavedModel takes one input, pictures; the model "
            f"{model.name!r} takes {len(inputs)}. Use learner.export, or "
            "keras.Model.export, for it."
        )
    classifier = _Classifier(model, spec)
    signatures = classifier.signatures()
    path.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(
            prefix=".export-", dir=path
        ) as scratch:
            # In a folder that TensorFlow itself makes: tempfile's is closed to
            # other users, such as a server.
            complete = os.path.join(scratch, "saved_model")
            tf.saved_model.save(
                classifier,
                complete,
                signatures=signatures,
                # Nobody trains it; TensorFlow would warn about each gradient.
                options=tf.saved_model.SaveOptions(
                    experimental_custom_gradients=False
                ),
            )
            extras = os.path.join(complete, EXTRAS)
            os.makedirs(extras)
            write_warmup_requests(extras, spec)
            if add is not None:
                add(extras)
            _sync_all(complete)
            return _publish(complete, path)
    finally:
        with contextlib.suppress(OSError):  # If it holds versions.
            path.rmdir()


def newest_version(path):
    """The SavedModel that a path leads to.

    Args:
      path: local folder of versions, or of one SavedModel.

    Returns:
      The folder of the highest version, or `path` itself; a string.

    Raises:
      ValueError: if there is neither.
    """
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        return str(path)
    names = version_names(path)
    if not names:
        raise ValueError(
            f"{path} holds no SavedModel and no version of one, such as "
            f"{path}/1; name the folder that `mpl export` wrote."
        )
    return os.path.join(path, names[-1])


def _sync_all(folder):
    """Makes a folder survive a machine failure, before it gets its name."""
    for parent, _, names in os.walk(folder):
        for name in (*names, "."):
            sync(os.path.join(parent, name))


def _publish(complete, path):
    """Makes a finished SavedModel the next version."""
    while True:
        last = (["0"] + version_names(path))[-1]
        version = os.path.join(path, str(int(last) + 1))
        try:
            os.rename(complete, version)
            sync(path)
            return version
        except OSError as error:
            # Another export has just taken the number.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _local_folder(path):
    if "://" in str(path):
        raise ValueError(
            f"Export to a local directory and copy it from there; got {path}."
        )
    path = pathlib.Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; name a folder for the versions.")
    if (path / "saved_model.pb").exists():
        raise ValueError(
            f"{path} is itself a SavedModel, not a folder of versions; move "
            f"it, for example to {path}/1, or name another folder."
        )
    return path


class _Classifier(tf.Module):
    """What is saved: pictures in, predictions out."""

    def __init__(self, model, spec):
        super().__init__()
        pictures = [None, None, None, 3]
        inputs = {
            "classify": tf.TensorSpec(pictures, tf.uint8, name="images"),
            "classify_floats": tf.TensorSpec(
                pictures, tf.float32, name="images"
            ),
            "classify_files": tf.TensorSpec([None], tf.string, name="encoded"),
        }
        prepare = {
            "classify": lambda images: prepare_images(images, spec),
            "classify_floats": lambda images: prepare_images(
                pixels_from_floats(images), spec
            ),
            "classify_files": lambda encoded: _decode_all(encoded, spec),
        }
        for name, given in inputs.items():
            setattr(self, name, _classifying(model, spec, prepare[name], given))
        self.class_names = tf.function(
            lambda: tf.constant(spec.names), input_signature=[]
        )
        # TensorFlow saves what a module's attributes hold. The variables that
        # the predictions read are enough: the model itself would bring Keras
        # and everything else it owns into the file.
        self.weights = _in_order(
            self.classify.get_concrete_function().variables, model
        )

    def signatures(self):
        return {
            "serving_default": self.classify.get_concrete_function(),
            "serving_float": self.classify_floats.get_concrete_function(),
            "serving_bytes": self.classify_files.get_concrete_function(),
        }


def _in_order(variables, model):
    """Variables in the order of the model's, not of their addresses.

    This makes two exports of one run the same.
    """
    places = {id(v.value): place for place, v in enumerate(model.variables)}
    last = len(places)
    return sorted(variables, key=lambda v: (places.get(id(v), last), v.name))


def _classifying(model, spec, prepare, given):
    """The tf.function from one kind of input to the predictions."""

    def classify(pictures):
        with tf.device("CPU:0"):  # Where evaluation prepares them too.
            images = prepare(pictures)
        return predictions(model, images, spec)

    return tf.function(classify, input_signature=[given], autograph=False)


def _decode_all(encoded, spec):
    """Files [batch] string to prepared images [batch, size, size, 3] uint8."""
    shape = [spec.image_size, spec.image_size, 3]
    return tf.map_fn(
        lambda file: prepare_encoded(file, spec),
        encoded,
        fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        parallel_iterations=_DECODED_AT_A_TIME,
    )


def predictions(model, images, spec):
    """A signature's outputs for prepared images [batch, size, size, 3] uint8.

    Raises:
      ValueError: if the model's logits do not fit spec.num_classes.
    """
    inputs = normalize(images, mean=spec.mean, std=spec.std)
    logits = model(inputs, training=False)
    check_logits(logits, owner="The model")
    if logits.shape[1:] != (spec.num_classes,):
        raise ValueError(
            f"The model gives logits of shape {logits.shape}; the data set "
            f"needs [batch, {spec.num_classes}]."
        )
    classes = tf.argmax(logits, axis=-1)
    return {
        "classes": classes,
        "labels": tf.gather(tf.constant(spec.names), classes),
        "probabilities": tf.nn.softmax(tf.cast(logits, tf.float32)),
    }
