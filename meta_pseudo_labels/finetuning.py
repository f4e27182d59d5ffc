"""Finetuning the student on the labeled images, which it never trained on."""

import keras


def finetune(student, dataset, *, learning_rate, steps, callbacks=()):
    """Trains the student on labels: the last stage of the paper (section 3).

    Plain SGD at a fixed rate, and whatever weights the last step leaves: no
    selection. Batch norm runs in training mode, so that its moving averages go
    over to the labeled images.

    Args:
      student: a Keras model that returns logits, [batch, classes]; changed.
      dataset: batches of (inputs, integer labels [batch]), without end.
      learning_rate: the paper's is 1e-5.
      steps: the paper's is 1,000 for CIFAR-10 and SVHN, 2,000 for ImageNet.
      callbacks: for `fit`.

    Returns:
      The `keras.callbacks.History` of the only epoch.
    """
    student.compile(
        optimizer=keras.optimizers.SGD(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return student.fit(
        dataset,
        steps_per_epoch=steps,
        epochs=1,
        callbacks=list(callbacks),
        shuffle=False,
        verbose=0,
    )
