"""An exported SavedModel as a network that can be evaluated beside others.

It is run as a server would run it, only by its signature `serving_default`.
"""

import contextlib
import os

import tensorflow as tf
from absl import logging

from meta_pseudo_labels.data.spec import same_names
from meta_pseudo_labels.export.saved_model import newest_version

_SIGNATURE = "serving_default"
_OUTPUTS = {"classes", "labels", "probabilities"}


class ExportedModel:
    """A SavedModel of `export_saved_model`.

    Called with images [batch, height, width, 3] uint8, it returns log
    probabilities [batch, classes], whose softmax is its probabilities.

    Args:
      path: folder of a SavedModel, or of versions of one (1, 2, ...); then the
        newest is used.

    Raises:
      ValueError: if there is none, or it has another signature.
    """

    def __init__(self, path):
        self.path = newest_version(os.path.expanduser(path))
        try:
            with _only_errors():
                loaded = tf.saved_model.load(self.path)
        except Exception as error:  # Damaged files raise errors of any class.
            first_line = str(error).strip().partition("\n")[0][:300]
            raise ValueError(
                f"{self.path} cannot be read as a SavedModel: {first_line}"
            ) from error
        signature = loaded.signatures.get(_SIGNATURE)
        if signature is None or not _OUTPUTS <= set(
            signature.structured_outputs
        ):
            raise ValueError(
                f"{self.path} has no signature {_SIGNATURE} that returns "
                f"{', '.join(sorted(_OUTPUTS))}; use a model that "
                "`mpl export` wrote."
            )
        self.signature = signature
        # Keeps its variables alive.
        self._loaded = loaded

    def __call__(self, images, training=False):
        if training:
            raise ValueError("A SavedModel is not trained; use training=False.")
        return tf.math.log(self.signature(images=images)["probabilities"])

    def check_fits(self, images, class_names):
        """Raises ValueError if it is not for such images and classes.

        Args:
          images: [batch, height, width, 3] uint8.
          class_names: [classes] strings, in the order of the labels.
        """
        taken = self.signature.structured_input_signature[1].get("images")
        if taken is None or not taken.is_compatible_with(images):
            raise ValueError(
                f"{self.path} takes {taken}, not images of type "
                f"{images.dtype.name} and shape {list(images.shape)}."
            )
        answers = self.signature(images=images)
        width = answers["probabilities"].shape[-1]
        if width != len(class_names):
            raise ValueError(
                f"{self.path} has {width} classes, the run {len(class_names)}."
            )
        for label, name in self._labels(answers).items():
            if not same_names([name], [class_names[label]]):
                raise ValueError(
                    f"{self.path} calls {name!r} what the run calls "
                    f"{class_names[label]!r}: it has other classes, or the "
                    "same in another order."
                )

    def _labels(self, answers):
        """Names of all classes, by class; in older exports of those seen."""
        if hasattr(self._loaded, "class_names"):
            names = self._loaded.class_names().numpy()
            return {label: name.decode() for label, name in enumerate(names)}
        names = [name.decode() for name in answers["labels"].numpy()]
        return dict(zip(answers["classes"].numpy(), names, strict=True))


@contextlib.contextmanager
def _only_errors():
    """Silences warnings that it has no gradients, which nobody needs."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
