"""A classifier for LiteRT, formerly TensorFlow Lite: phones, small computers.

TensorFlow has the converter; the package ai-edge-litert (the extra `litert`)
runs the result, because TensorFlow's own interpreter is to be removed.
"""

import os

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.export.agreement import agreement
from meta_pseudo_labels.export.saved_model import predictions

FILE = "model.tflite"


def write_litert(model, folder, data):
    """Writes model.tflite, and measures how closely it agrees with the model.

    Its signature takes `images` [1, image_size, image_size, 3] uint8, already
    brought to that size, and returns `probabilities` [1, num_classes] float32
    and `classes` [1] int64.

    Args:
      model: float32 Keras model from normalized images to logits.
      folder: where the file goes.
      data: `ImageData` or `ShardedData`, whose test images are compared.

    Returns:
      A dict for JSON: `file`, and the result of `agreement`.
    """
    content = converted(model, data.spec)
    with open(os.path.join(folder, FILE), "wb") as file:
        file.write(content)
    return {"file": FILE} | agreement(
        model, data, lambda: _runner(content), extra="litert"
    )


def converted(model, spec):
    """The bytes of the LiteRT model."""
    size = spec.image_size

    def classify(images):
        outputs = predictions(model, images, spec)
        del outputs["labels"]  # LiteRT has no strings.
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
    """A function that runs the file's network on images of one size."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=content).get_signature_runner()
    return lambda images: np.concatenate(
        [run(images=image[np.newaxis])["probabilities"] for image in images]
    )
