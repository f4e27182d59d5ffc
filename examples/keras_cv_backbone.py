"""A KerasCV backbone as student and as teacher, built without a download.

    pip install 'keras-cv>=0.9,<0.10'
    python examples/keras_cv_backbone.py

KerasCV downloads its presets; its backbones can also be built from numbers.
Learns scikit-learn's digits, scaled up to 32 pixels, from a few labels.
"""

import argparse
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

try:
    import keras_cv
except ImportError as error:
    sys.exit(f"Error: {error}: pip install 'keras-cv>=0.9,<0.10'")

from meta_pseudo_labels import (
    MetaPseudoLabels,
    Momentum,
    Supervised,
    UDASettings,
    data,
    evaluate,
    finetune,
)


def network(filters, spec, blocks=2):
    """KerasCV's ResNetV2 with a head that returns logits.

    Args:
      filters: bottleneck filters of each stack, first to last.
      blocks: per stack; with one, KerasCV gives two layers the same name.
      spec: `data.DatasetSpec` of the images.
    """
    size = spec.image_size
    backbone = keras_cv.models.ResNetV2Backbone(
        stackwise_filters=filters,
        stackwise_blocks=[blocks] * len(filters),
        stackwise_strides=[1] + [2] * (len(filters) - 1),
        include_rescaling=False,  # Our images are already normalized.
        input_shape=(size, size, 3),
    )
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # With 0.99 the averages need 300 steps.
    features = keras.layers.GlobalAveragePooling2D()(backbone.output)
    logits = keras.layers.Dense(spec.num_classes)(features)
    return keras.Model(backbone.input, logits)


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
    student, teacher = network([16, 32], spec), network([32, 64], spec)
    for role, model in (("student", student), ("teacher", teacher)):
        print(f"{role}: {model.count_params():,} weights", flush=True)

    control = Supervised(network([16, 32], spec))
    control.compile(Momentum(0.03))
    control.fit(labels_alone, steps_per_epoch=steps, verbose=0)

    learner = MetaPseudoLabels(
        student, teacher, uda=UDASettings(ramp_steps=max(1, steps // 2))
    )
    learner.compile(Momentum(0.03))
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
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(arguments)
    if arguments.steps < 1:
        parser.error("--steps must be at least 1")
    return arguments


if __name__ == "__main__":
    main(parse_arguments())
