"""A trained classifier as a TensorFlow SavedModel that stands on its own.

The model takes images as they come from a decoder, uint8, and needs nothing
but TensorFlow (or TensorFlow Serving) to run:

    classify = tf.saved_model.load(path).signatures["serving_default"]
    classify(images=images)["labels"]
"""

import os
import pathlib
import tempfile

import tensorflow as tf

from meta_pseudo_labels.data import normalize


def export_saved_model(model, path, *, spec):
    """Writes `model`, its preprocessing and its class names to `path`.

    The signature `serving_default` takes `images`, [batch, image_size,
    image_size, 3] uint8 in 0 to 255, and gives
      classes: [batch] int64, the index of the most probable class,
      labels: [batch] string, its name,
      probabilities: [batch, num_classes] float32, rows sum to 1.
    Every output has one row per image, so that a server can answer image by
    image. `tf.saved_model.load(path).class_names()` gives all names,
    [num_classes] string, in the order of the columns of `probabilities`.

    The directory appears whole or not at all: it is written beside `path`
    under another name and renamed at the end.

    Args:
      model: keras.Model from normalised float images to logits
        [batch, num_classes]. It is run with training=False.
      path: local directory to make. For TensorFlow Serving let it end in a
        version number: models/digits/1.
      spec: data.DatasetSpec of the images. Classes without names are called
        by their numbers.

    Raises:
      ValueError: `path` exists or is not local, or the model's logits do not
        fit spec.num_classes.
    """
    path = _new_local_directory(path)
    classifier = _Classifier(model, spec)
    signature = classifier.classify.get_concrete_function()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".export-", dir=path.parent
    ) as scratch:
        # A directory of TensorFlow's own making inside: tempfile's is closed
        # to other users, a server among them.
        complete = os.path.join(scratch, "saved_model")
        tf.saved_model.save(classifier, complete, signatures=signature)
        os.rename(complete, path)


def _new_local_directory(path):
    if "://" in str(path):
        raise ValueError(
            f"Export to a local directory and copy it from there; got {path}."
        )
    path = pathlib.Path(path)
    if path.exists():
        raise ValueError(
            f"{path} exists and is left as it is; export to a new directory "
            "or remove this one first."
        )
    return path


class _Classifier(tf.Module):
    """What is saved: uint8 images in, predictions out."""

    def __init__(self, model, spec):
        super().__init__()
        images = tf.TensorSpec(
            [None, spec.image_size, spec.image_size, 3], tf.uint8, name="images"
        )
        self.classify = tf.function(
            lambda images: _predictions(model, images, spec),
            input_signature=[images],
        )
        self.class_names = tf.function(
            lambda: _class_names(spec), input_signature=[]
        )
        # TensorFlow saves what a module's attributes hold. The variables that
        # the predictions read are enough: the model itself would bring Keras
        # and everything else it owns into the file.
        self.weights = self.classify.get_concrete_function().variables


def _predictions(model, images, spec):
    """The signature's outputs for images [batch, H, W, 3] uint8."""
    inputs = normalize(images, mean=spec.mean, std=spec.std)
    logits = model(inputs, training=False)
    if logits.shape[1:] != (spec.num_classes,):
        raise ValueError(
            f"The model gives logits of shape {logits.shape}; the data set "
            f"needs [batch, {spec.num_classes}]."
        )
    classes = tf.argmax(logits, axis=-1)
    return {
        "classes": classes,
        "labels": tf.gather(_class_names(spec), classes),
        "probabilities": tf.nn.softmax(tf.cast(logits, tf.float32)),
    }


def _class_names(spec):
    """[num_classes] string."""
    return tf.constant(
        spec.class_names or list(map(str, range(spec.num_classes)))
    )
