"""How closely a converted network agrees with the one it was made from."""

import numpy as np

from meta_pseudo_labels.data.streams import ordered
from meta_pseudo_labels.data.streams.records import Records
from meta_pseudo_labels.export.saved_model import predictions

COMPARED = 1_000  # Test images at most; some formats take them one by one.


def agreement(model, data, build, *, extra):
    """How closely a converted network agrees with a model on test images.

    Args:
      model: float32 Keras model from normalized images to logits.
      data: `ImageData` or `ShardedData`, whose test images are used.
      build: returns a function from images [N, image_size, image_size, 3] uint8
        to the converted network's probabilities [N, num_classes]; it raises
        ImportError if the package that runs the network is missing.
      extra: the extra of this project that installs that package.

    Returns:
      A dict for JSON: `images`, how many were compared; `same_class`, the share
      of them with the same class; `largest_difference` of any probability.
      If it could not be measured, `images` is None, and `why_not` says why.
    """
    images = _test_images(data)
    if not len(images):
        return dict(images=None, why_not="there are no test images")
    try:
        run = build()
    except ImportError:
        install = f"pip install 'meta-pseudo-labels[{extra}]'"
        return dict(images=None, why_not=f"what runs it is missing: {install}")
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
