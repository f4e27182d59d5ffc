"""Your own folders of images, and your own Keras model.

    python examples/own_folders.py --labeled_dir=photos/labeled \
        --unlabeled_dir=photos/unlabeled --eval_dir=photos/test \
        --image_size=32 --output=runs/photos/saved_model

labeled_dir and eval_dir hold one folder per class, unlabeled_dir any images.
Trains Meta Pseudo Labels, finetunes the student, exports it, and prints its
accuracy next to that of the same network trained on the labels alone.
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from meta_pseudo_labels import (
    MetaPseudoLabels,
    Momentum,
    Supervised,
    UDASettings,
    data,
    evaluate,
    export_saved_model,
    finetune,
)


def network(width, spec):
    """Your model: any that maps normalized images to logits."""
    layers = [keras.Input((spec.image_size, spec.image_size, 3))]
    for filters in (width, 2 * width, 4 * width):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
        ]
    layers += [keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([*layers, keras.layers.Dense(spec.num_classes)])


def main(arguments):
    keras.utils.set_random_seed(arguments.seed)
    arguments.output.mkdir(parents=True, exist_ok=True)
    images = data.load(
        "folders",
        labeled_dir=arguments.labeled_dir,
        unlabeled_dir=arguments.unlabeled_dir,
        eval_dir=arguments.eval_dir,
        image_size=arguments.image_size,
        num_labeled=None,
        seed=arguments.seed,
    )
    spec, steps = images.spec, arguments.steps
    test = data.evaluation_dataset(
        images.test_images, images.test_labels, spec, batch_size=100
    )
    alone = supervised(images, arguments)

    learner = MetaPseudoLabels(
        network(16, spec),
        network(32, spec),
        ema_decay=0.99,
        uda=UDASettings(ramp_steps=max(1, steps // 2)),
    )
    learner.compile(Momentum(0.03))
    learner.fit(batches(images, arguments, 3), steps_per_epoch=steps, verbose=0)

    mpl = evaluate(learner, test)
    student = learner.finished_student()
    labeled = data.finetuning_dataset(images, batch_size=64, seed=0)
    finetune(student, labeled, learning_rate=1e-3, steps=max(1, steps // 10))
    for name, accuracy in (
        ("supervised, the same labels", evaluate(alone, test).top_1),
        ("MPL student", mpl.top_1),
        ("MPL student, finetuned", evaluate(student, test).top_1),
    ):
        print(f"{name:30}{accuracy:.1%}")
    version = export_saved_model(student, arguments.output, spec=spec)
    print(f"The finetuned student is in {version}.")


def batches(images, arguments, unlabeled_ratio):
    """Endless batches: 16 labeled, 16 * unlabeled_ratio unlabeled images."""
    return data.training_dataset(
        images,
        batch_size=16,
        unlabeled_ratio=unlabeled_ratio,
        magnitude=5,
        cutout_share=0.25,
        seed=arguments.seed,
    )


def supervised(images, arguments):
    """The control: the student's network, trained on the labels alone."""
    control = Supervised(network(16, images.spec), ema_decay=0.99)
    control.compile(Momentum(0.03))
    control.fit(
        batches(images, arguments, 0),
        steps_per_epoch=arguments.steps,
        verbose=0,
    )
    return control


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("labeled_dir", "unlabeled_dir", "eval_dir"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs/own_folders/saved_model"),
    )
    arguments = parser.parse_args(arguments)
    if arguments.steps < 1:
        parser.error("--steps must be at least 1")
    return arguments


if __name__ == "__main__":
    try:
        main(parse_arguments())
    except (OSError, ValueError) as error:  # Folders, images, classes.
        sys.exit(f"Error: {error}")
