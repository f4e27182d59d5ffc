"""Finetuning a student on labels, which it never trained on."""

import contextlib

import keras
import tensorflow as tf

from meta_pseudo_labels.learners import updates
from meta_pseudo_labels.learners.batch_checks import check_normalized
from meta_pseudo_labels.learners.callbacks import StopAtStep
from meta_pseudo_labels.learners.checks import check_model
from meta_pseudo_labels.learners.passes import (
    class_numbers,
    derivative_errors,
    label_errors,
)
from meta_pseudo_labels.learners.trainer import callbacks_of
from meta_pseudo_labels.models import BatchNorm
from meta_pseudo_labels.optimizers import build_optimizer
from meta_pseudo_labels.utils import compat

BATCH_NORM_MODES = ("update", "frozen")
FINETUNING_OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam", "adamw")


def finetune(
    student,
    dataset,
    *,
    learning_rate,
    steps,
    optimizer="sgd",
    weight_decay=0.004,
    backbone_lr_factor=1.0,
    freeze_backbone_steps=0,
    layer_lr_decay=1.0,
    batch_norm="update",
    validation_data=None,
    eval_every=100,
    patience=0,
    callbacks=(),
    class_weight=None,
):
    """Trains the student on labels: the last stage of the paper (section 3).

    Plain SGD by default, at a fixed rate, and the weights of the last step:
    no selection. With `patience` it ends early, with the weights of the best
    evaluation.

    Args:
      student: a Keras model that returns logits, [batch, classes]; changed.
      dataset: `tf.data.Dataset` of batches of (inputs, integer labels
        [batch]), or with weights, [batch], as a third part; repeated when it
        ends. Images are normalized, as from `data.finetuning_dataset`.
      learning_rate: the paper's is 1e-5, which is for SGD.
      steps: the paper's are 1,000 for CIFAR-10 and SVHN, 2,000 for ImageNet
        with a tenth of its labels; with `patience`, the maximum.
      optimizer: one of `FINETUNING_OPTIMIZERS`; see `build_optimizer`.
      weight_decay: by which "adamw" shrinks weights, except those of
        normalization layers; the other optimizers have none.
      backbone_lr_factor: multiplies the learning rate of all weights except
        those of the head, see `models.backbone_weights`; at least 0.
      freeze_backbone_steps: first steps that leave these weights unchanged;
        -1 for all.
      layer_lr_decay: ratio of a layer's rate to that of the layer above it,
        from the head down, see `models.backbone_depths`; in (0, 1].
      batch_norm: "update", training mode, so that moving averages adapt to
        the labeled images; or "frozen", inference mode, see `batch_norm_mode`.
      validation_data: batches like those of `dataset`, but finitely many, to
        evaluate on; or None.
      eval_every: steps between two evaluations.
      patience: evaluations in a row without a gain in accuracy after which
        training ends; 0 runs all steps and keeps the last weights.
      callbacks, class_weight: for `fit`.

    Returns:
      The `keras.callbacks.History`. An epoch is `eval_every` steps with
      `validation_data`, otherwise all steps.

    Raises:
      ValueError: for a number or a name out of range, patience without
        `validation_data`, such data without an end, data of another kind,
        uint8 images that the student does not rescale, a student that does
        not return logits, or has a layer without a derivative, or labels
        outside its classes.
    """
    _check(steps, eval_every, patience, validation_data)
    batches, judged = _checked(dataset, student), validation_data
    if judged is not None:
        judged = _checked(judged, student)
        if judged.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "validation_data never ends; take some of it, with .take(n)."
            )
    every = steps if validation_data is None else min(eval_every, steps)
    stops = [StopAtStep(steps), *_early_stopping(patience)]
    with (
        batch_norm_mode(student, batch_norm),
        label_errors(),
        derivative_errors(student),
    ):
        compile_for_finetuning(
            student,
            learning_rate,
            optimizer,
            weight_decay=weight_decay,
            backbone_lr_factor=backbone_lr_factor,
            freeze_backbone_steps=freeze_backbone_steps,
            layer_lr_decay=layer_lr_decay,
        )
        return student.fit(
            batches.repeat(),
            validation_data=judged,
            steps_per_epoch=every,
            epochs=-(-steps // every),
            callbacks=[*stops, *callbacks_of(callbacks)],
            class_weight=class_weight,
            shuffle=False,
            verbose=0,
        )


def _checked(data, student):
    """The same batches; their labels are checked as they are read."""
    is_data = isinstance(data, tf.data.Dataset)
    found = data.element_spec if is_data else data
    if not is_data or type(found) is not tuple or len(found) not in (2, 3):
        raise ValueError(
            "Finetuning takes a tf.data.Dataset of batches of (inputs, "
            "labels), or of (inputs, labels, weights), such as that of "
            f"data.finetuning_dataset; got {'one of ' if is_data else ''}"
            f"{type(found).__name__}."
        )
    classes = getattr(student, "output_shape", (None,))[-1]

    def check(inputs, labels, *weights):
        check_normalized(inputs, student)
        if classes is None:
            return inputs, labels, *weights
        first = tf.nest.flatten(inputs)[0]
        logits = tf.zeros([first.shape[0] or tf.shape(first)[0], classes])
        return inputs, class_numbers(labels, logits), *weights

    return data.map(tf.autograph.experimental.do_not_convert(check))


def _check(steps, eval_every, patience, validation_data):
    for name, value, low in (
        ("steps", steps, 1),
        ("eval_every", eval_every, 1),
        ("patience", patience, 0),
    ):
        if value < low:
            raise ValueError(f"{name} must be at least {low}; got {value}.")
    if patience and validation_data is None:
        raise ValueError(
            f"patience is {patience}, but there is nothing to evaluate on; "
            "give validation_data, or patience=0."
        )


def _early_stopping(patience):
    """A list with the callback; empty without patience."""
    if not patience:
        return []
    return [
        keras.callbacks.EarlyStopping(
            "val_accuracy",
            mode="max",
            patience=patience,
            restore_best_weights=True,
        )
    ]


def compile_for_finetuning(
    student,
    learning_rate,
    optimizer="sgd",
    *,
    weight_decay=0.0,
    backbone_lr_factor=1.0,
    freeze_backbone_steps=0,
    layer_lr_decay=1.0,
):
    """Compiles with an optimizer whose variables exist before any step.

    Args:
      student, learning_rate, optimizer, weight_decay, backbone_lr_factor,
        freeze_backbone_steps, layer_lr_decay: see `finetune`.

    Raises:
      ValueError: for a student that does not return logits, has no weights to
        train, or has no backbone although one is to have its own rate; for
        another optimizer.
    """
    check_model(student, role="student")
    if optimizer not in FINETUNING_OPTIMIZERS:
        raise ValueError(
            f"optimizer must be one of {', '.join(FINETUNING_OPTIMIZERS)}; got "
            f"{optimizer!r}."
        )
    mover = build_optimizer(optimizer, learning_rate, weight_decay=weight_decay)
    student.compile(
        optimizer=updates.scaled_for(student, mover),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
        auto_scale_loss=False,  # Keras looks at the model's own policy alone.
    )
    student.optimizer.build(student.trainable_variables)
    updates.spare_normalization(mover, student)
    updates.set_pace(
        mover,
        student,
        lr_factor=backbone_lr_factor,
        layer_decay=layer_lr_decay,
        freeze_steps=freeze_backbone_steps,
    )


@contextlib.contextmanager
def batch_norm_mode(model, mode):
    """Sets the mode in which a model's batch norm, at any depth, trains.

    Compile within the context, and again after it for other training.

    Args:
      model: a Keras model, whose batch norm is Keras's or ours.
      mode: "update" leaves the layers as they are. "frozen" makes them
        normalize by their moving averages and change nothing: neither these
        nor scale (gamma) and shift (beta), as in Keras layers that are not
        trainable. Dropout stays active.

    Raises:
      ValueError: for another mode.
    """
    if mode not in BATCH_NORM_MODES:
        raise ValueError(
            f"batch_norm must be one of {', '.join(BATCH_NORM_MODES)}; got "
            f"{mode!r}."
        )
    frozen = freeze_batch_norm(model) if mode == "frozen" else []
    try:
        yield
    finally:
        for layer in frozen:
            layer.trainable = True


def freeze_batch_norm(model):
    """Freezes all batch norm of a model, see `batch_norm_mode`.

    Returns:
      The layers that were not frozen before.
    """
    layers = [
        layer
        for layer in compat.layers_of(model)
        if _is_batch_norm(layer) and layer.trainable
    ]
    for layer in layers:
        layer.trainable = False
    return layers


def _is_batch_norm(layer):
    return isinstance(layer, (keras.layers.BatchNormalization, BatchNorm))
