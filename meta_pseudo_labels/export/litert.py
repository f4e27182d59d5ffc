"""A classifier for LiteRT, once TensorFlow Lite: phones, small computers.

TensorFlow has the converter; what runs the result is the package
ai-edge-litert (the extra `litert`), since TensorFlow's own interpreter is to be
removed.
"""

import os

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.streams import ordered
from meta_pseudo_labels.data.streams.records import Records
from meta_pseudo_labels.export.saved_model import predictions

FILE = "model.tflite"
COMPARED = 1_000  # Test images at most; they are shown one by one.


def write_litert(model, folder, data):
    """Writes model.tflite, and says how far it agrees with the model.

    Its signature takes `images` [1, image_size, image_size, 3] uint8, which
    are brought to that size before, and gives `probabilities` [1, num_classes]
    float32 and `classes` [1] int64.

    Args:
      model: float32 Keras model from normalised images to logits.
      folder: where the file goes.
      data: `ImageData` or `ShardedData`, whose test images are compared.

    Returns:
      A dict for JSON: `file`; `images`, how many were compared; `same_class`,
      the share of them with the same class; `largest_difference` of any
      probability. Where it could not be measured `images` is None, and
      `why_not` says why.
    """
    content = converted(model, data.spec)
    with open(os.path.join(folder, FILE), "wb") as file:
        file.write(content)
    return {"file": FILE} | agreement(
        model, data, lambda: _runner(content), needs="ai-edge-litert"
    )


def converted(model, spec):
    """The bytes of the LiteRT model."""
    size = spec.image_size

    def classify(images):
        outputs = predictions(model, images, spec)
        del outputs["labels"]  # It knows no strings.
        return outputs

    module = tf.Module()
    module.classify = tf.function(
        classify,
        input_signature=[
            tf.TensorSpec([1, size, size, 3], tf.uint8, name="images")
        ],
        autograph=False,
    )
    function = module.classify.get_concrete_function()
    module.weights = function.variables
    return tf.lite.TFLiteConverter.from_concrete_functions(
        [function], module
    ).convert()


def _runner(content):
    """A function that shows the file's network images of one size."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=content).get_signature_runner()
    return lambda images: np.concatenate(
        [run(images=image[np.newaxis])["probabilities"] for image in images]
    )


def agreement(model, data, build, *, needs):
    """How far a converted network agrees with a model on test images.

    Args:
      model: float32 Keras model from normalised images to logits.
      data: `ImageData` or `ShardedData`, whose test images are shown.
      build: gives a function from images [N, image_size, image_size, 3] uint8
        to the converted network's probabilities [N, num_classes]; it raises
        ImportError where the package that runs it is missing.
      needs: the name of that package.

    Returns:
      What `write_litert` does, without `file`.
    """
    images = _test_images(data)
    if not len(images):
        return dict(images=None, why_not="there are no test images")
    try:
        run = build()
    except ImportError:
        return dict(images=None, why_not=f"{needs} is not installed")
    parts = [images[at : at + 100] for at in range(0, len(images), 100)]
    theirs = np.concatenate([run(part) for part in parts])
    ours = np.concatenate(
        [predictions(model, part, data.spec)["probabilities"] for part in parts]
    )
    return {
        "images": len(images),
        "same_class": float(np.mean(theirs.argmax(-1) == ours.argmax(-1))),
        "largest_difference": float(np.abs(theirs - ours).max()),
    }


def _test_images(data):
    """The first test images, [N, image_size, image_size, 3] uint8."""
    images = data.test_images
    if not isinstance(images, Records):
        return images[:COMPARED]
    if not len(images):
        return ()
    examples = ordered.ordered_examples(images.first(COMPARED), data.spec)
    return np.array(
        [
            example["image"]
            for example in examples.as_numpy_iterator()
            if example["label"] != ordered.DAMAGED
        ]
    )
