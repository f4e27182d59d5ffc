"""Networks of keras.applications: a small student, a bigger teacher.

    python examples/keras_applications_student.py
    python examples/keras_applications_student.py --weights=imagenet  # online

Learns scikit-learn's digits, scaled up to 32 pixels, from a few labels. With
--weights=imagenet, Keras downloads pretrained weights for both networks, which
is what such networks are for; without it, they start from scratch.
"""

import argparse
import inspect
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from meta_pseudo_labels import (
    MetaPseudoLabels,
    Momentum,
    Supervised,
    UDASettings,
    data,
    evaluate,
    finetune,
    models,
)


def network(application, spec, *, weights=None, batch_norm_decay=0.9):
    """A network of keras.applications on the images of our pipelines.

    Three things to watch:
      * The inputs. Our images are normalized (`data.normalize`); those networks
        expect levels 0 to 255, which some rescale in a layer of their own and
        some with the function preprocess_input next to them. So the first
        layer here restores the levels, and everything after it is Keras's.
      * Batch norm. Keras's averages have decays of up to 0.999, for runs of
        100,000 steps. In a short run they would still be near their start: the
        network would be good in training and useless in inference.
      * The output. include_top=False, and a head that returns logits: Keras's
        own top ends with a softmax, and has dropout.

    Args:
      application: a class in keras.applications, by name.
      spec: `data.DatasetSpec` of the images.
      weights: None, "imagenet", or a file that Keras accepts.
      batch_norm_decay: decay of batch norm's moving averages.

    Returns:
      keras.Model from [batch, size, size, 3] to logits [batch, classes].
    """
    build = getattr(keras.applications, application)
    images = keras.Input((spec.image_size, spec.image_size, 3))
    mean, std = np.array(spec.mean), np.array(spec.std)
    levels = keras.layers.Rescaling(
        scale=(255 * std).tolist(), offset=(255 * mean).tolist()
    )(images)
    backbone = build(
        input_shape=images.shape[1:],
        include_top=False,
        pooling="avg",
        weights=weights,
    )
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_decay
    features = backbone(inspect.getmodule(build).preprocess_input(levels))
    logits = keras.layers.Dense(spec.num_classes, name="logits")(features)
    return keras.Model(images, logits, name=application)


def networks(arguments, spec):
    """Two students, one for the control, and a teacher."""
    names = (arguments.student, arguments.student, arguments.teacher)
    try:
        return [
            network(name, spec, weights=arguments.weights) for name in names
        ]
    except Exception as error:
        # Keras raises Exception itself if a download fails.
        if arguments.weights is None:
            raise
        sys.exit(f"Error: no weights {arguments.weights!r}: {error}")


def main(arguments):
    keras.utils.set_random_seed(arguments.seed)
    digits = data.load(
        "digits", num_labeled=100, image_size=32, seed=arguments.seed
    )
    spec, steps = digits.spec, arguments.steps
    views = dict(magnitude=5, cutout_share=0, seed=arguments.seed)
    labels_alone = data.training_dataset(
        digits, batch_size=16, unlabeled_ratio=0, **views
    )
    batches = data.training_dataset(
        digits, batch_size=16, unlabeled_ratio=2, **views
    )
    test = data.evaluation_dataset(
        digits.test_images, digits.test_labels, spec, batch_size=100
    )
    alone, student, teacher = networks(arguments, spec)
    for role, model in (("student", student), ("teacher", teacher)):
        print(f"{role}: {model.name}, {model.count_params():,} weights")

    control = Supervised(alone)
    control.compile(Momentum(0.03))
    control.fit(labels_alone, steps_per_epoch=steps, verbose=0)

    learner = MetaPseudoLabels(
        student, teacher, uda=UDASettings(ramp_steps=max(1, steps // 2))
    )
    learner.compile(Momentum(0.03), Momentum(0.03))
    learner.fit(batches, steps_per_epoch=steps, verbose=0)

    mpl = evaluate(learner, test)
    labeled = data.finetuning_dataset(digits, batch_size=50, seed=0)
    finetune(student, labeled, learning_rate=1e-3, steps=max(1, steps // 10))
    for name, accuracy in (
        ("supervised, the same labels", evaluate(control, test).top_1),
        ("MPL student", mpl.top_1),
        ("MPL student, finetuned", evaluate(student, test).top_1),
    ):
        print(f"{name:30}{accuracy:.1%}")


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--student", default="MobileNetV3Small")
    parser.add_argument("--teacher", default="EfficientNetB0")
    parser.add_argument(
        "--weights", help="imagenet, which Keras downloads; none by default"
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(arguments)
    if arguments.steps < 1:
        parser.error("--steps must be at least 1")
    for role in ("student", "teacher"):
        if (name := getattr(arguments, role)) not in models.application_names():
            parser.error(f"--{role}: keras.applications has no {name}")
    return arguments


if __name__ == "__main__":
    main(parse_arguments())
