"""The last stage: the student on the labels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.evaluation.evaluate import evaluate
from meta_pseudo_labels.learners.finetuning import batch_norm_mode, finetune
from meta_pseudo_labels.models import BatchNorm


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


@pytest.mark.parametrize("within", [False, True])
def test_gradients_through_float16_are_scaled(within):
    """1e-8 is 0 in float16; whatever the policy of the model around it."""
    layer = keras.layers.Dense(2, dtype="mixed_float16", name="hidden")
    model = zero_classifier(layer, keras.layers.Activation("linear"))
    if not within:
        keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential(model.layers)
        model.build([None, 2])
    finally:
        keras.config.set_dtype_policy("float32")
    model.layers[-1].kernel.assign([[1e-8, -1e-8], [1e-8, -1e-8]])
    before = layer.kernel.numpy()
    finetune(model, endless([[1, 0]], [0]), learning_rate=1e8, steps=1)
    # The gradient of the hidden units is (p - 1)(w0 - w1), p near one half.
    np.testing.assert_allclose(
        layer.kernel.numpy()[0] - before[0], [1.0, 1.0], rtol=0.1
    )


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


def test_adamw_spares_batch_norm_and_decays_the_rest():
    """At step 1 Adam moves every weight by the rate, whatever its gradient."""
    norm = keras.layers.BatchNormalization()
    model = zero_classifier(norm)
    kernel = model.layers[-1].kernel
    kernel.assign([[2.0, -2.0], [2.0, -2.0]])
    finetune(
        model,
        endless([[3, 0], [1, 0]], [0, 1]),
        learning_rate=0.5,
        steps=1,
        optimizer="adamw",
        weight_decay=0.25,
    )
    # Right answers get surer by the first; the second sees zeros, and stays.
    np.testing.assert_allclose(norm.gamma, [1.5, 1.0], rtol=1e-4)
    np.testing.assert_allclose(
        kernel, [[2.25, -2.25], [1.75, -1.75]], rtol=1e-4
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "optimizer", ["sgd", "momentum", "rmsprop", "adam", "adamw"]
)
def test_the_backbone_stands_still_and_then_moves_slower(optimizer):
    def after(steps, **settings):
        keras.utils.set_random_seed(0)
        hidden = keras.layers.Dense(2)
        model = keras.Sequential(
            [keras.Input([2]), hidden, keras.layers.Dense(2)]
        )
        before = [np.copy(x) for x in model.get_weights()]
        finetune(
            model,
            endless([[1, 0], [0, 1]], [0, 1]),
            learning_rate=0.1,
            steps=steps,
            optimizer=optimizer,
            **settings,
        )
        return [
            got - old
            for got, old in zip(model.get_weights(), before, strict=True)
        ]

    frozen = after(2, freeze_backbone_steps=2)
    assert [np.any(x) for x in frozen] == [False, False, True, True]
    for one, two in zip(
        after(2, freeze_backbone_steps=-1), frozen, strict=True
    ):
        np.testing.assert_array_equal(one, two)
    assert np.any(after(3, freeze_backbone_steps=2)[0])
    slow, full = after(1, backbone_lr_factor=0.1), after(1)
    for one, two, factor in zip(slow, full, (0.1, 0.1, 1, 1), strict=True):
        np.testing.assert_allclose(one, factor * two, rtol=1e-4, atol=1e-7)


def test_another_optimizer_is_refused():
    with pytest.raises(ValueError, match="sgd, momentum, .*; got 'lars'"):
        finetune(
            zero_classifier(),
            endless([[1, 0]], [0]),
            learning_rate=1.0,
            steps=1,
            optimizer="lars",
        )


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


KINDS = {"keras": keras.layers.BatchNormalization, "ours": BatchNorm}


@pytest.mark.fast("update-keras")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["update", "frozen"])
def test_batch_norm_moves_or_stands_still(kind, mode):
    """Inputs 5 and -1 against averages 1 and 4.

    By the moving averages they become 2 and -1, by the batch's mean 2 and
    variance 9 they become 1 and -1.
    """
    norm = KINDS[kind](momentum=0.5, epsilon=0.0)
    logits = keras.layers.Dense(2, use_bias=False)
    model = keras.Sequential([keras.Input([1]), norm, logits])
    weights = [[1.0], [0.0], [1.0], [4.0]]  # gamma, beta, mean, variance
    norm.set_weights(np.float32(weights))
    logits.set_weights([np.float32([[0.5, -0.5]])])
    finetune(
        model,
        endless([[5], [-1]], [1, 0]),
        learning_rate=1.0,
        steps=1,
        batch_norm=mode,
    )
    x = np.array({"update": [1, -1], "frozen": [2, -1]}[mode])
    wrong = 1 / (1 + np.exp(-x)) - [0, 1]  # p - y of class 0.
    np.testing.assert_allclose(
        logits.get_weights()[0][0],
        [0.5 - np.mean(x * wrong), -0.5 + np.mean(x * wrong)],
        rtol=1e-5,
    )
    gamma, beta, mean, variance = np.ravel(norm.get_weights())
    assert norm.trainable
    if mode == "frozen":
        np.testing.assert_array_equal(norm.get_weights(), weights)
        return
    np.testing.assert_allclose([mean, variance], [1.5, 6.5], rtol=1e-6)
    np.testing.assert_allclose(gamma, 1 - np.mean(wrong * x), rtol=1e-5)
    np.testing.assert_allclose(beta, -np.mean(wrong), rtol=1e-5)


class Block(keras.layers.Layer):
    """Batch norm out of sight of `model.layers`."""

    def __init__(self):
        super().__init__()
        self.norm = BatchNorm()

    def call(self, inputs, training=False):
        return self.norm(inputs, training=training)


def test_all_batch_norm_is_frozen_however_deep_and_nothing_else():
    inner, still = (keras.layers.BatchNormalization() for _ in range(2))
    still.trainable = False
    block, other = Block(), keras.layers.LayerNormalization()
    model = keras.Sequential(
        [keras.Input([2]), keras.Sequential([inner, still]), block, other]
    )
    seen = (inner, still, block.norm, other, model)
    with pytest.raises(ZeroDivisionError), batch_norm_mode(model, "frozen"):
        assert [x.trainable for x in seen] == [False, False, False, True, True]
        raise ZeroDivisionError
    assert [x.trainable for x in seen] == [True, False, True, True, True]
    with batch_norm_mode(model, "update"):
        assert [x.trainable for x in seen] == [True, False, True, True, True]


def test_dropout_still_drops_where_batch_norm_is_frozen():
    norm = keras.layers.BatchNormalization(epsilon=0.0)
    model = keras.Sequential(
        [keras.Input([1]), norm, keras.layers.Dropout(0.5, seed=0)]
    )
    norm.moving_mean.assign([1.0])
    norm.moving_variance.assign([4.0])
    with batch_norm_mode(model, "frozen"):
        shown = model(np.full([50, 1], 5.0), training=True)
    # Half are 0, the others twice (5 - 1) / 2.
    assert set(np.ravel(shown)) == {0.0, 4.0}


def labels_in_turn(*labels):
    """A batch of the input (1, 0) for each label, the last one for ever."""
    labels = np.int32(labels)[:, np.newaxis]
    turns = tf.data.Dataset.from_tensor_slices(labels)
    turns = turns.concatenate(endless_labels(labels[-1]))
    return turns.map(lambda label: (tf.constant([[1.0, 0.0]]), label))


def endless_labels(label):
    return tf.data.Dataset.from_tensors(label).repeat()


RIGHT_IS_1 = tf.data.Dataset.from_tensors((np.float32([[1, 0]]), np.int32([1])))


def test_patience_ends_it_with_the_best_weights():
    """The first step is right, all others teach the opposite."""
    model = zero_classifier()
    history = finetune(
        model,
        labels_in_turn(1, 0),
        learning_rate=1.0,
        steps=9,
        validation_data=RIGHT_IS_1,
        eval_every=1,
        patience=2,
    )
    assert history.history["val_accuracy"] == [1, 0, 0]
    np.testing.assert_allclose(model.get_weights()[0][0], [-0.5, 0.5])


def test_the_best_weights_stay_where_patience_does_not_end():
    model = zero_classifier()
    history = finetune(
        model,
        labels_in_turn(1, 0),
        learning_rate=1.0,
        steps=3,
        validation_data=RIGHT_IS_1,
        eval_every=1,
        patience=4,
    )
    assert history.history["val_accuracy"] == [1, 0, 0]
    np.testing.assert_allclose(model.get_weights()[0][0], [-0.5, 0.5])


def test_without_patience_it_only_looks():
    """After steps 2, 4 and 5; the last weights stay."""
    model = zero_classifier()
    seen = []
    history = finetune(
        model,
        labels_in_turn(1, 1, 0),
        learning_rate=1.0,
        steps=5,
        validation_data=RIGHT_IS_1,
        eval_every=2,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: seen.append(batch)
            )
        ],
    )
    assert len(seen) == 5
    assert history.history["val_accuracy"] == [1, 0, 0]
    first, second = model.get_weights()[0][0]
    assert first > second


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(steps=0), "steps must be at least 1; got 0"),
        (dict(eval_every=0), "eval_every must be at least 1; got 0"),
        (dict(patience=-1), "patience must be at least 0; got -1"),
        (dict(patience=2), "patience is 2, but there is nothing to evaluate"),
        (dict(batch_norm="off"), "one of update, frozen; got 'off'"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings, words):
    settings = dict(learning_rate=0.1, steps=1) | settings
    with pytest.raises(ValueError, match=words):
        finetune(zero_classifier(), endless([[1, 0]], [0]), **settings)


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


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((np.zeros([2, 2]), np.zeros([2])), "labels, weights.*; got tuple"),
        (
            tf.data.Dataset.from_tensors({"labeled": [[1.0]], "labels": [0]}),
            "data.finetuning_dataset; got one of dict",
        ),
        (
            tf.data.Dataset.from_tensors([[1.0, 0.0]]),
            "got one of TensorSpec",
        ),
    ],
)
@pytest.mark.parametrize("as_validation", [False, True])
def test_data_of_another_kind_are_refused(data, words, as_validation):
    given = dict(validation_data=data) if as_validation else {}
    dataset = endless([[1, 0]], [0]) if as_validation else data
    with pytest.raises(ValueError, match=words):
        finetune(
            zero_classifier(), dataset, learning_rate=0.1, steps=1, **given
        )


def test_data_that_end_are_repeated():
    one_batch = endless([[1, 0]], [0]).take(1)
    models = zero_classifier(), zero_classifier()
    for model, dataset in zip(
        models, (one_batch, one_batch.repeat()), strict=True
    ):
        finetune(model, dataset, learning_rate=1.0, steps=3)
    for found, want in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_array_equal(found, want)


class Ends(keras.callbacks.Callback):
    seen = 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1


@pytest.mark.parametrize(
    "given",
    [
        lambda one: one,
        lambda one: (one,),
        lambda one: [[one], []],
        lambda one: keras.callbacks.CallbackList([one]),
    ],
)
def test_callbacks_are_given_as_to_fit(given):
    one = Ends()
    finetune(
        zero_classifier(),
        endless([[1, 0]], [0]),
        learning_rate=0.1,
        steps=2,
        callbacks=given(one),
    )
    assert one.seen == 2
    none = {"learning_rate": 0.1, "steps": 1, "callbacks": None}
    finetune(zero_classifier(), endless([[1, 0]], [0]), **none)


@pytest.mark.parametrize("rescales", [False, True])
def test_levels_are_refused_unless_the_student_rescales_them(rescales):
    layers = [keras.layers.Rescaling(1 / 255)] if rescales else []
    student = keras.Sequential(
        [
            keras.Input([4, 4, 3]),
            *layers,
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    levels = np.full([2, 4, 4, 3], 200, np.uint8), np.int32([0, 1])
    dataset = tf.data.Dataset.from_tensors(levels)
    if rescales:
        finetune(student, dataset, learning_rate=0.1, steps=1)
        assert evaluate(student, dataset).images == 2
        return
    with pytest.raises(ValueError, match="Got uint8 images, but"):
        finetune(student, dataset, learning_rate=0.1, steps=1)
    with pytest.raises(ValueError, match="Got uint8 images, but"):
        evaluate(student, dataset)
