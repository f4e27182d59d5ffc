"""A batch in slices gives what the whole batch gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import (
    UDA,
    MetaPseudoLabels,
    PseudoLabels,
    ReducedMPL,
    Supervised,
    UDASettings,
)
from meta_pseudo_labels.learners.feedback import ESTIMATORS
from meta_pseudo_labels.learners.passes import forward, forward_together
from meta_pseudo_labels.models.batch_norm import BatchNorm
from meta_pseudo_labels.models.dropout import Dropout
from meta_pseudo_labels.optimizers import Momentum
from tests.learners.helpers import CLASSES, batch, values

UDA_SETTINGS = UDASettings(weight=2.0, ramp_steps=2, threshold=0.3)


def conv_net(name, *, norm=False, rate=0.3):
    """Smooth, with a dropout that knows the rows; batch norm where asked."""
    layers = [keras.layers.Conv2D(4, 3, activation="tanh", dtype="float64")]
    if norm:
        layers.append(BatchNorm(dtype="float64", momentum=0.9))
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            *layers,
            keras.layers.GlobalAveragePooling2D(dtype="float64"),
            Dropout(rate, seed=5, dtype="float64"),
            keras.layers.Dense(CLASSES, dtype="float64"),
        ],
        name=name,
    )


def reduced_teacher():
    return keras.Sequential(
        [
            keras.Input((CLASSES,)),
            keras.layers.Dense(8, activation="tanh", dtype="float64"),
            keras.layers.Dense(CLASSES, dtype="float64"),
        ],
        name="teacher",
    )


def mpl(feedback):
    return lambda: MetaPseudoLabels(
        conv_net("student"),
        conv_net("teacher"),
        feedback=feedback,
        feedback_weight=5.0,
        uda=UDA_SETTINGS,
        log_every=2,
        label_smoothing=0.1,
        ema_decay=0.9,
    )


LEARNERS = {
    "supervised": lambda: Supervised(conv_net("student")),
    "pseudo labels": lambda: PseudoLabels(conv_net("student")),
    "uda": lambda: UDA(conv_net("student"), uda=UDA_SETTINGS),
    "reduced": lambda: ReducedMPL(
        conv_net("student"), reduced_teacher(), feedback_weight=5.0
    ),
    **{name: mpl(name) for name in ESTIMATORS},
}


def data(steps, *, held_out=False):
    batches = []
    for seed in range(steps):
        part = batch(labeled=4, unlabeled=12, seed=seed)
        random = np.random.default_rng(seed)
        for name, rows in (("labeled", 4), ("unlabeled", 12)):
            part[f"{name}_distributions"] = random.dirichlet(
                np.ones(CLASSES), size=rows
            )
        if held_out:
            other = batch(labeled=8, unlabeled=1, seed=seed + 100)
            part["feedback"] = other["labeled"]
            part["feedback_labels"] = other["labels"]
        batches.append(part)
    stacked = {key: np.stack([b[key] for b in batches]) for key in batches[0]}
    return tf.data.Dataset.from_tensor_slices(stacked)


def train(
    build, *, slices, steps=3, held_out=False, change=lambda x: x, **compile
):
    """Logs of the last of some steps, and all variables."""
    keras.utils.set_random_seed(3)
    learner = build()
    learner.compile(
        Momentum(0.2, nesterov=True),
        weight_decay=0.01,
        grad_bound=0.5,  # Below some norms, so that clipping counts.
        batch_slices=slices,
        **compile,
    )
    batches = data(steps, held_out=held_out).map(change)
    history = learner.fit(batches, verbose=0)
    variables = learner.variables + learner.optimizer.variables
    if hasattr(learner, "teacher_optimizer"):
        variables += learner.teacher_optimizer.variables
    return history.history, variables


def assert_same(one, other):
    for name, (value,) in one[0].items():
        np.testing.assert_allclose(
            other[0][name][0], value, rtol=1e-9, atol=1e-12, err_msg=name
        )
    for a, b in zip(one[1], other[1], strict=True):
        scale = max(np.abs(a.numpy()).max(), 1e-6)
        np.testing.assert_allclose(
            b.numpy(), a.numpy(), rtol=0, atol=1e-10 * scale, err_msg=a.path
        )


@pytest.mark.fast("uda")
@pytest.mark.parametrize("name", LEARNERS)
def test_slices_give_what_the_whole_batch_gives(name):
    """Losses, logs, weights, averages and seeds, without batch norm."""
    whole = train(LEARNERS[name], slices=1)
    assert_same(whole, train(LEARNERS[name], slices=2))


@pytest.mark.long
def test_a_held_out_batch_is_cut_too():
    whole = train(LEARNERS["exact"], slices=1, held_out=True)
    assert_same(whole, train(LEARNERS["exact"], slices=4, held_out=True))


@pytest.mark.long
def test_slices_on_two_replicas(mirrored):
    """Rows of a slice are those of its replica, so dropout stays the same."""
    whole = train(LEARNERS["exact"], slices=1)
    with mirrored(2).scope():
        assert_same(whole, train(LEARNERS["exact"], slices=2))


@pytest.mark.long
def test_slices_compile_under_xla():
    whole = train(LEARNERS["exact"], slices=1)
    assert_same(whole, train(LEARNERS["exact"], slices=2, jit_compile=True))


@pytest.mark.long
def test_a_slice_is_normalized_over_all_replicas(mirrored):
    """Slice k of the global batch is made of the k-th of every replica."""

    def build():
        return UDA(conv_net("student", norm=True, rate=0.0), uda=UDA_SETTINGS)

    def in_slices(rows):  # Of two slices, on each of two replicas.
        order = np.arange(rows).reshape(2, 2, -1).swapaxes(0, 1)
        return order.reshape(-1)

    one = train(
        build,
        slices=2,
        change=lambda x: {
            name: tf.gather(part, in_slices(part.shape[0]))
            for name, part in x.items()
        },
    )
    with mirrored(2).scope():
        assert_same(one, train(build, slices=2))


def test_each_slice_is_normalized_by_its_own_moments():
    model = conv_net("student", norm=True, rate=0.0)
    images = batch(unlabeled=6)
    labeled, strong = images["labeled"], images["strong"]
    got = forward_together(model, labeled, strong, slices=2)
    for number in range(2):
        alone = forward_together(
            model,
            labeled[2 * number : 2 * number + 2],
            strong[3 * number : 3 * number + 3],
        )
        for part, rows, expected in zip(got, (2, 3), alone, strict=True):
            part = part[rows * number : rows * (number + 1)]
            np.testing.assert_allclose(part, expected, rtol=1e-12)
    whole = forward_together(model, labeled, strong)
    assert not np.allclose(got[1], whole[1])


def test_moving_averages_move_once_by_the_mean_of_the_slices():
    model = conv_net("student", norm=True)
    norm = model.layers[1]
    images = batch()["labeled"].astype("float32")
    norm.moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    inside = model.layers[0](images).numpy()
    expected = 0.9 * norm.moving_mean.numpy() + 0.1 * inside.mean((0, 1, 2))
    variances = [half.var((0, 1, 2)) for half in (inside[:2], inside[2:])]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(forward(model, images, slices=2) ** 2)
    tape.gradient(loss, model.trainable_variables[0].value)
    np.testing.assert_allclose(norm.moving_mean, expected, rtol=1e-12)
    np.testing.assert_allclose(
        norm.moving_variance, 0.9 + 0.1 * np.mean(variances, axis=0), rtol=1e-12
    )


def test_moving_averages_stay_where_they_are_to():
    model = conv_net("student", norm=True)
    before = values(model.non_trainable_variables)
    forward(model, batch()["labeled"], update_moments=False, slices=2)
    for variable, value in zip(
        model.non_trainable_variables, before, strict=True
    ):
        same = np.array_equal(variable.numpy(), value)
        assert same == ("seed" not in variable.path)


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="4 rows cannot .* batch_slices=3"):
        forward(conv_net("student"), batch()["labeled"], slices=3)


def test_inputs_without_a_gradient_are_cut_too():
    """Words, for instance; and a learner's step needs theirs."""
    outcomes = []
    for slices in (1, 2):
        keras.utils.set_random_seed(4)
        net = keras.Sequential(
            [
                keras.Input((3,), dtype="int64"),
                keras.layers.Embedding(9, 4, dtype="float64"),
                keras.layers.GlobalAveragePooling1D(dtype="float64"),
                keras.layers.Dense(CLASSES, dtype="float64"),
            ]
        )
        learner = Supervised(net)
        learner.compile(Momentum(0.1), batch_slices=slices)
        words = np.arange(12).reshape([4, 3]) % 9
        learner.train_step({"labeled": words, "labels": np.arange(4) % CLASSES})
        outcomes.append(values(net.weights))
    for whole, sliced in zip(*outcomes, strict=True):
        np.testing.assert_allclose(sliced, whole, rtol=1e-12)


@pytest.mark.parametrize("slices", [0, -1])
def test_less_than_one_slice_is_refused(slices):
    learner = Supervised(conv_net("student"))
    with pytest.raises(ValueError, match="batch_slices"):
        learner.compile(batch_slices=slices)


def test_a_model_with_losses_of_its_own_is_refused():
    inputs = keras.Input((6, 6, 2))
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    features = keras.layers.ActivityRegularization(l2=0.1)(features)
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(features))
    with pytest.raises(ValueError, match="losses of its own"):
        forward(model, batch(dtype="float32")["labeled"], slices=2)


def test_regularizers_of_weights_are_welcome():
    inputs = keras.Input((6, 6, 2))
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    logits = keras.layers.Dense(CLASSES, kernel_regularizer="l2")(features)
    model = keras.Model(inputs, logits)
    images = batch(dtype="float32")["labeled"]
    np.testing.assert_allclose(
        forward(model, images, slices=2), forward(model, images), rtol=1e-6
    )
