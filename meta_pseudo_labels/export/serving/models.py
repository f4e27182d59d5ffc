"""A SavedModel, loaded by TensorFlow alone."""

import dataclasses
import logging
import os
import sys

import numpy as np

from meta_pseudo_labels.utils.quiet import quiet_start
from meta_pseudo_labels.utils.versions import is_version, version_names

NOT_NEEDED = ("keras", "tf_keras", "meta_pseudo_labels")


class NoModel(ValueError):
    """A path that leads to no model; the message says what was looked for."""


class RefusedInput(ValueError):
    """Input that the model itself refuses, such as a broken picture."""


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of a signature.

    Attributes:
      dtype: NumPy type; object for strings.
      shape: tuple of sizes, None for any, the batch first.
    """

    dtype: np.dtype
    shape: tuple


def import_tensorflow_alone():
    """Returns TensorFlow, imported without Keras.

    `import tensorflow` also imports Keras if that is installed, and does
    without it if not. A None in sys.modules tells Python that a module must
    not be imported.
    """
    for name in NOT_NEEDED:
        sys.modules.setdefault(name, None)
    with quiet_start():
        import tensorflow as tf

    # It would warn that what it loads cannot be trained, and log what it
    # raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    return tf


def newest_version(path):
    """The SavedModel that a path leads to, and its version.

    Args:
      path: folder of versions 1, 2, ..., the highest of which is used; or of
        one SavedModel.

    Returns:
      Its folder, and the version as a string: the folder's number, or 1.

    Raises:
      NoModel: if there is neither.
    """
    if not path:  # A variable that is not set; not the current folder.
        raise NoModel("--saved_model is empty; name the folder of a model.")
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        name = os.path.basename(os.path.abspath(path))
        return path, name if is_version(name) else "1"
    names = version_names(path)
    if not names:
        raise NoModel(
            f"{path} holds no SavedModel and no version of one, such as "
            f"{path}/1."
        )
    return os.path.join(path, names[-1]), names[-1]


class Model:
    """One version of a SavedModel.

    Args:
      path: see `newest_version`.

    Attributes:
      version: a string.
      inputs: a dict from signatures to dicts from names to `Input`.
      metadata: its signatures as a dict for JSON.

    Raises:
      NoModel: if it cannot be loaded, or does not say how many axes an input
        has.
    """

    def __init__(self, path):
        try:
            folder, self.version = newest_version(os.path.expanduser(path))
        except OSError as error:
            raise NoModel(f"{path}: {error.strerror}.") from error
        self._tf = tf = import_tensorflow_alone()
        try:
            self._loaded = tf.saved_model.load(folder)
            self.metadata = _metadata(folder)
        except Exception as error:  # Damaged files raise errors of any class.
            reason = f"{error or type(error).__name__}".strip().split("\n")[0]
            raise NoModel(
                f"{folder} cannot be loaded: {reason[:300]}. If it is still "
                "being copied, wait until that is done; otherwise copy it "
                "again, or remove it to use the previous version."
            ) from error
        self.inputs = {
            name: {
                key: _input(spec, f"{folder}: {key} of the signature {name}")
                for key, spec in signature.structured_input_signature[1].items()
            }
            for name, signature in self._loaded.signatures.items()
            if name in self.metadata
        }

    def predict(self, signature, arrays):
        """The outputs of a signature, a dict of arrays.

        Raises:
          RefusedInput: if the model says that its input is wrong.
        """
        tf = self._tf
        tensors = {
            name: tf.constant(
                array, tf.string if array.dtype == np.object_ else array.dtype
            )
            for name, array in arrays.items()
        }
        try:
            outputs = self._loaded.signatures[signature](**tensors)
        except tf.errors.InvalidArgumentError as error:
            raise RefusedInput(_reason(error.message)) from error
        return {name: value.numpy() for name, value in outputs.items()}


def _input(spec, what):
    """The `Input` of a `TensorSpec`.

    Raises:
      NoModel: if its rank is not known; `what` says which one it is.
    """
    if spec.shape.rank is None:
        raise NoModel(
            f"{what} has an unknown number of axes, which this server has to "
            "know. Export it with a shape, such as [None, 8], or use "
            "TensorFlow Serving."
        )
    return Input(
        np.dtype(spec.dtype.as_numpy_dtype), tuple(spec.shape.as_list())
    )


def _metadata(folder):
    """The signatures with inputs, as their protocol buffers in JSON."""
    from google.protobuf import json_format
    from tensorflow.core.protobuf import saved_model_pb2

    with open(os.path.join(folder, "saved_model.pb"), "rb") as file:
        saved = saved_model_pb2.SavedModel.FromString(file.read())
    return {
        name: json_format.MessageToDict(
            signature, preserving_proto_field_name=True
        )
        for name, signature in saved.meta_graphs[0].signature_def.items()
        if signature.inputs
    }


def _reason(message):
    """The line of an error from a graph that says what is wrong."""
    lines = [
        line.strip()
        for line in message.split("\n")
        if line.strip()
        and not line.startswith(("Graph execution error", "Detected at node"))
        and "stack traces unavailable" not in line
    ]
    text = lines[0] if lines else "no reason given"
    text = text.split(" [[{{")[0].rsplit("}} ", 1)[-1]
    return text.removeprefix("assertion failed: ").strip("[]")
