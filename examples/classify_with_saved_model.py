"""Classifies images with an exported SavedModel, using TensorFlow alone.

    python examples/classify_with_saved_model.py \
        --saved_model=runs/demo/saved_model --images=runs/demo/test_images.npz

--saved_model is one version, or the folder of all versions, whose newest is
used. The .npz file holds `images` [N, H, W, 3] uint8 and, if known, `labels`
[N] integers. Neither Keras nor the package that trained the model is imported.
"""

import argparse
import json
import logging
import os
import sys

import numpy as np

NOT_NEEDED = ("keras", "tf_keras", "meta_pseudo_labels")


def import_tensorflow_alone():
    """Returns TensorFlow, imported while Keras cannot be.

    `import tensorflow` also imports Keras if that is installed, and works
    without it otherwise. A None in sys.modules is Python's way to say that a
    module must not be imported.
    """
    for name in NOT_NEEDED:
        sys.modules[name] = None
    import tensorflow as tf

    # It would warn that the loaded model cannot be trained.
    logging.getLogger("absl").setLevel(logging.ERROR)
    return tf


def imported_but_not_needed():
    """Names of the unneeded modules that this process has imported."""
    return [
        name
        for name, module in sys.modules.items()
        if module is not None and name.partition(".")[0] in NOT_NEEDED
    ]


def newest_version(path):
    """The folder of the highest version in `path`, or `path` itself."""
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        return path
    names = os.listdir(path) if os.path.isdir(path) else []
    versions = [name for name in names if name.isdigit()]
    if not versions:
        sys.exit(f"{path} holds no SavedModel and no version of one.")
    return os.path.join(path, max(versions, key=int))


def read_images(path):
    """Returns images [N, H, W, 3] uint8 and labels [N] int64 or None."""
    with np.load(path, allow_pickle=False) as arrays:
        if "images" not in arrays:
            sys.exit(f"{path} has no array named images.")
        labels = arrays["labels"] if "labels" in arrays else None
        return arrays["images"], labels


def classify(saved_model, images, *, batch_size=256):
    """Returns the model's outputs for all images, as a dict of arrays."""
    signature = saved_model.signatures["serving_default"]
    batches = [
        signature(images=images[start : start + batch_size])
        for start in range(0, len(images), batch_size)
    ]
    return {
        name: np.concatenate([batch[name].numpy() for batch in batches])
        for name in batches[0]
    }


def as_json(outputs, accuracy):
    predictions = [
        {
            "class": int(index),
            "label": label.decode(),
            "probabilities": [float(p) for p in probabilities],
        }
        for index, label, probabilities in zip(
            outputs["classes"],
            outputs["labels"],
            outputs["probabilities"],
            strict=True,
        )
    ]
    return {"accuracy": accuracy, "predictions": predictions}


def parse_arguments():
    parser = argparse.ArgumentParser(
        description="Classify images with an exported SavedModel."
    )
    parser.add_argument(
        "--saved_model", required=True, help="folder of the SavedModel"
    )
    parser.add_argument(
        "--images", required=True, help=".npz file: images, optionally labels"
    )
    parser.add_argument(
        "--json", help="file to write the accuracy and every prediction to"
    )
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    images, labels = read_images(arguments.images)
    version = newest_version(arguments.saved_model)
    tf = import_tensorflow_alone()
    outputs = classify(tf.saved_model.load(version), images)
    if extra := imported_but_not_needed():
        sys.exit(f"This should not have been imported: {extra}")
    print("Keras and meta_pseudo_labels: not imported")

    for index in range(min(5, len(images))):
        label = outputs["labels"][index].decode()
        probability = outputs["probabilities"][index].max()
        print(f"image {index}: {label} ({probability:.1%})")
    accuracy = None
    if labels is not None:
        accuracy = float(np.mean(outputs["classes"] == labels))
        print(f"accuracy on {len(images)} images: {accuracy:.2%}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(as_json(outputs, accuracy), file)


if __name__ == "__main__":
    main()
