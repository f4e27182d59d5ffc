"""The last stage: the student on the labels."""

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels.finetuning import finetune


def zero_classifier(*layers):
    logits = keras.layers.Dense(2, kernel_initializer="zeros", name="logits")
    return keras.Sequential([keras.Input([2]), *layers, logits])


def endless(inputs, labels):
    return tf.data.Dataset.from_tensors(
        (np.float32(inputs), np.int32(labels))
    ).repeat()


def test_one_step_by_hand():
    """Softmax is (.5, .5), so the mean gradient of the bias is 0.

    Inputs e1 of class 0 and e2 of class 1: kernel gradient is
    [[-.25, .25], [.25, -.25]], at rate 2.
    """
    model = zero_classifier()
    finetune(
        model, endless([[1, 0], [0, 1]], [0, 1]), learning_rate=2.0, steps=1
    )
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(kernel, [[0.5, -0.5], [-0.5, 0.5]])
    np.testing.assert_allclose(bias, [0, 0])


def test_plain_sgd_has_no_memory():
    """Both steps move by rate times gradient, the second from the first."""
    model = zero_classifier()
    finetune(model, endless([[1, 0]], [0]), learning_rate=1.0, steps=2)
    first = 0.5
    # Both the kernel's row and the bias moved: the odds are exp(4 * first).
    second = 1 / (1 + np.exp(4 * first))
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(kernel[0, 0], first + second, rtol=1e-6)
    np.testing.assert_allclose(bias[0], first + second, rtol=1e-6)


def test_runs_exactly_the_steps_asked_for():
    seen = []
    counting = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    history = finetune(
        zero_classifier(),
        endless([[1, 0]], [0]),
        learning_rate=0.1,
        steps=7,
        callbacks=[counting],
    )
    assert seen == list(range(7))
    assert history.epoch == [0]
    assert set(history.history) == {"accuracy", "loss"}


def test_batch_norm_moments_move_to_the_labeled_images():
    norm = keras.layers.BatchNormalization(momentum=0.5)
    model = zero_classifier(norm)
    finetune(
        model, endless([[4, 0], [8, 0]], [0, 1]), learning_rate=0.0, steps=1
    )
    np.testing.assert_allclose(norm.moving_mean, [3, 0])
    np.testing.assert_allclose(norm.moving_variance, [2.5, 0.5])


def test_learns_the_labels():
    model = zero_classifier()
    history = finetune(
        model,
        endless([[1, 0], [0, 1]], [0, 1]),
        learning_rate=0.5,
        steps=20,
    )
    logits = model(np.float32([[1, 0], [0, 1]]))
    np.testing.assert_array_equal(np.argmax(logits, -1), [0, 1])
    assert history.history["loss"][0] < np.log(2)


def test_prints_nothing(capsys):
    finetune(
        zero_classifier(), endless([[1, 0]], [0]), learning_rate=0.1, steps=1
    )
    assert capsys.readouterr().out == ""
