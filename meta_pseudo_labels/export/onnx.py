"""A classifier as an ONNX file, for onnxruntime and whatever else reads it.

The extra `onnx` brings what converts (tf2onnx, which Keras's own exporter calls
too) and what runs the result. Keras's exporter is not used: its file would take
normalized images, and leave the normalization to the reader.
"""

import importlib.util
import os

import tensorflow as tf

from meta_pseudo_labels.export.agreement import agreement
from meta_pseudo_labels.export.saved_model import predictions
from meta_pseudo_labels.utils.settings import ConfigError

FILE = "model.onnx"
_OPSET = 17  # From 2022: old readers know it too.


def check_installed():
    """Raises ConfigError if the converter is missing."""
    if importlib.util.find_spec("tf2onnx") is None:
        raise ConfigError(
            "--export_onnx needs tf2onnx, which is not installed: pip install "
            "'meta-pseudo-labels[onnx]'."
        )


def write_onnx(model, folder, data):
    """Writes model.onnx, and measures how closely it agrees with the model.

    It takes `images` [batch, image_size, image_size, 3] uint8, already brought
    to that size, and returns `probabilities` [batch, num_classes] float32 and
    `classes` [batch] int64.

    Args:
      model: float32 Keras model from normalized images to logits.
      folder: where the file goes.
      data: `ImageData` or `ShardedData`, whose test images are compared.

    Returns:
      A dict for JSON: `file`, and the result of `agreement`.
    """
    import tf2onnx

    def classify(images):
        outputs = predictions(model, images, data.spec)
        del outputs["labels"]  # Strings, which few readers know.
        return outputs

    shape = [None, data.spec.image_size, data.spec.image_size, 3]
    signature = [tf.TensorSpec(shape, tf.uint8, name="images")]
    path = os.path.join(folder, FILE)
    tf2onnx.convert.from_function(
        tf.function(classify, input_signature=signature, autograph=False),
        input_signature=signature,
        opset=_OPSET,
        output_path=path,
    )
    return {"file": FILE} | agreement(
        model, data, lambda: _runner(path), extra="onnx"
    )


def _runner(path):
    """A function that runs the file's network on images of one size."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(["probabilities"], {"images": images})[0]
