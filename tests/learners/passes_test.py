"""Passes through models: what goes in, and in which form."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import UDA, MetaPseudoLabels, Supervised
from meta_pseudo_labels.learners.finetuning import finetune
from meta_pseudo_labels.learners.passes import forward
from meta_pseudo_labels.optimizers import Momentum
from tests.learners.helpers import (
    CLASSES,
    batch,
    conv_net,
    dataset,
    make,
    values,
)


def test_a_forward_pass_without_moments_leaves_them_alone():
    model = conv_net("model", dropout_rate=0.5)
    images = batch()["labeled"]
    before = values(model.variables)
    first = forward(model, images, update_moments=False).numpy()
    moved = [
        v.path
        for v, old in zip(model.variables, before, strict=True)
        if (v.numpy() != old).any()
    ]
    assert len(moved) == 1 and "seed" in moved[0]
    assert (forward(model, images, update_moments=False).numpy() != first).any()


class Counting(keras.layers.Layer):
    """Counts its calls in training mode, beside random noise."""

    def __init__(self):
        super().__init__()
        self.calls = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False
        )
        self.noise = keras.layers.Dropout(0.5, seed=3)

    def call(self, inputs, training=False):
        if training:
            self.calls.assign_add(1)
        return self.noise(inputs, training=training)


def counting(name):
    counts, dense = Counting(), keras.layers.Dense(CLASSES)
    model = keras.Sequential([keras.Input((4,)), counts, dense], name=name)
    return model, counts


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("moments", [True, False])
def test_a_count_of_a_layers_own_moves_once_in_a_step(slices, moments):
    (student, seen), (teacher, taught) = counting("s"), counting("t")
    before = [
        counts.noise.seed_generator.state.numpy()[1]
        for counts in (seen, taught)
    ]
    learner = MetaPseudoLabels(
        student, teacher, uda=None, update_teacher_moments=moments
    )
    learner.compile("sgd", batch_slices=slices)
    images = np.ones((4, 4), "float32")
    batch = {"labeled": images, "labels": np.zeros(4, int), "strong": images}
    learner.train_on_batch(batch)
    assert (int(seen.calls), int(taught.calls)) == (1, int(moments))
    after = [
        counts.noise.seed_generator.state.numpy()[1]
        for counts in (seen, taught)
    ]
    assert [new - old for new, old in zip(after, before, strict=True)] == [2, 1]


@pytest.mark.fast("<lambda>1", "<lambda>5")
@pytest.mark.parametrize(
    "encode",
    [
        lambda labels: labels[:, np.newaxis],  # As keras.datasets.cifar10 has.
        lambda labels: labels.astype("int64"),
        lambda labels: np.eye(CLASSES, dtype="float32")[labels],
        lambda labels: labels.astype("int16"),
        lambda labels: labels.astype("uint16")[:, np.newaxis],
        lambda labels: labels.astype("uint32"),
        lambda labels: labels.astype("uint64"),
    ],
)
def test_labels_in_any_form_give_the_same_loss(encode):
    losses = []
    for change in (lambda labels: labels, encode):
        keras.utils.set_random_seed(0)
        learner = make(Supervised, dtype="float64")
        learner.compile(Momentum(0.1))
        data = batch()
        data["labels"] = change(data["labels"])
        losses.append(float(learner.train_step(data)["loss/total"]))
    assert losses[0] == losses[1]


@pytest.mark.fast(
    "labels1-ValueError-got int32 of shape",
    "labels3-InvalidArgumentError-not among the 3 classes",
)
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros([4, 2], "float32"), ValueError, "got float32 of shape"),
        (np.zeros([4, CLASSES], "int32"), ValueError, "got int32 of shape"),
        (np.zeros([4], "float32"), ValueError, "got float32 of shape"),
        (
            np.full([4], CLASSES),
            tf.errors.InvalidArgumentError,
            "not among the 3 classes",
        ),
        (  # scikit-learn's mark of what has no label.
            np.array([0, 1, -1, 2]),
            tf.errors.InvalidArgumentError,
            "not among the 3 classes",
        ),
    ],
)
def test_labels_that_make_no_sense_are_refused(labels, error, message):
    learner = make(Supervised)
    learner.compile(Momentum(0.1))
    step = tf.function(learner.train_step, autograph=False)
    with pytest.raises(error, match=message):
        step({**batch(dtype="float32"), "labels": tf.constant(labels)})


def linear(method=Supervised, **compiled):
    learner = method(
        keras.Sequential([keras.Input((2,)), keras.layers.Dense(CLASSES)])
    )
    learner.compile("sgd", **compiled)
    return learner


def rows(labels, count=4):
    return {"labeled": np.ones([count, 2], "float32"), "labels": labels}


def of_unknown_size(batch):
    """The same batch, of which a data set knows no number of rows."""
    specs = {
        key: tf.TensorSpec([None, *value.shape[1:]], value.dtype)
        for key, value in batch.items()
    }
    return tf.data.Dataset.from_generator(
        lambda: iter([batch]), output_signature=specs
    ).repeat()


def test_booleans_are_two_classes():
    yes = np.array([True, False, True, True])
    got, want = (
        linear().train_step(rows(labels))["loss/total"].numpy()
        for labels in (yes, yes.astype("int32"))
        if not keras.utils.set_random_seed(0)
    )
    assert got == want


HOT = np.eye(CLASSES, dtype="float32")
NO_LABELS = {
    "too large": (np.int32([0, 1, 2, 3]), "not among the 3 .*: 0, 3"),
    "too large for int64": (np.full(4, 2**64 - 1, "uint64"), "not among"),
    "negative": (np.int8([0, 1, -1, 2]), "not among the 3 .*: -1, 2"),
    "multi-hot": (HOT[[0, 1, 2, 0]] + HOT[1], "sum to 1; .*: 0, 2, 2"),
    "empty": (np.zeros([4, CLASSES], "float32"), "sum to 1; .*: 0, 0, 0"),
    "below 0": (np.float32([[2, -1, 0]] * 4), "not be negative.*: -1, 1, 1"),
    "one for all": (np.int32([1]), "label for each input.* 4"),
    "too few": (np.int32([1, 0]), "label for each input.* 4"),
    "rank 3": (np.zeros([4, 1, 1], "int32"), "labels must be integers"),
}


@pytest.mark.fast(
    "False-False-multi-hot",
    "False-False-too few",
    "False-True-empty",
    "False-True-rank 3",
    "True-False-below 0",
    "True-False-one for all",
    "True-False-too large for int64",
    "True-True-negative",
    "True-True-too large",
)
@pytest.mark.parametrize("labels", NO_LABELS)
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("sized", [True, False])
def test_what_are_no_labels_ends_fit_with_one_line(labels, jit_compile, sized):
    """XLA leaves assertions out; the data set says it then."""
    labels, words = NO_LABELS[labels]
    learner = linear(jit_compile=jit_compile)
    data = tf.data.Dataset.from_tensors(rows(labels))
    if not sized:
        data = of_unknown_size(rows(labels))
    with pytest.raises(ValueError, match=words) as refused:
        learner.fit(data, steps_per_epoch=1, verbose=0)
    assert "\n" not in str(refused.value)
    assert learner.step.numpy() == 0


NO_NUMBERS = {
    "too large": (np.int32([0, 1, 2, 3]), "not among the 3 .*: 0, 3"),
    "negative": (np.int8([0, 1, -1, 2]), "not among the 3 .*: -1, 2"),
    "halves": (np.float32([0, 1, 2, 0.5]), "not among the 3 .*: -1, 2"),
    "one for all": (np.int32([1]), "label for each input.* 4"),
    "one-hot": (HOT[[0, 1, 2, 0]], "class numbers, .*float32 of shape"),
}


@pytest.mark.fast("negative", "one-hot")
@pytest.mark.parametrize("case", NO_NUMBERS)
def test_what_are_no_class_numbers_ends_evaluation_with_one_line(case):
    """Keras's loss is nan on a GPU then, and a long error on a processor."""
    labels, words = NO_NUMBERS[case]
    inputs = np.ones([4, 2], "float32")
    data = tf.data.Dataset.from_tensors((inputs, labels))
    sound = tf.data.Dataset.from_tensors((inputs, np.zeros(4, int))).repeat()
    learner = linear()
    for look in (
        lambda: learner.evaluate(data, verbose=0),
        lambda: learner.fit(
            tf.data.Dataset.from_tensors(rows(np.zeros(4, int))),
            validation_data=data,
            verbose=0,
        ),
        lambda: finetune(
            learner.student, data.repeat(), learning_rate=0.1, steps=1
        ),
        lambda: finetune(
            learner.student,
            sound,
            learning_rate=0.1,
            steps=1,
            validation_data=data,
        ),
    ):
        with pytest.raises(ValueError, match=words) as refused:
            look()
        assert "\n" not in str(refused.value)


@pytest.mark.long
def test_evaluation_takes_what_kerass_loss_takes():
    inputs, learner = np.ones([4, 2], "float32"), linear()
    numbers = np.int32([0, 1, 2, 1])
    losses = []
    for labels in (
        numbers,
        numbers.astype("uint64"),
        numbers.astype("float32"),
        numbers[:, np.newaxis],
    ):
        learner.compile("sgd")
        losses.append(learner.evaluate(inputs, labels, verbose=0))
    assert losses == [losses[0]] * 4
    learner.compile("sgd", loss=keras.losses.CategoricalCrossentropy(True))
    assert learner.evaluate(inputs, HOT[numbers], verbose=0) == pytest.approx(
        losses[0]
    )


@pytest.mark.parametrize("labels", NO_LABELS)
def test_what_are_no_labels_is_refused_at_once_where_they_are_known(labels):
    labels, words = NO_LABELS[labels]
    with pytest.raises(ValueError, match=words):
        linear().train_step(rows(labels))


@pytest.mark.parametrize("case", ["negative", "multi-hot"])
def test_a_compiled_step_alone_takes_no_step_on_them(case):
    learner = linear()
    before = values(learner.student.variables)
    step = tf.function(learner.train_step, jit_compile=True)
    logs = step(rows(NO_LABELS[case][0]))
    assert np.isnan(logs["loss/total"]) and logs["skipped_steps"] == 1
    for old, new in zip(before, learner.student.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_labels_rounded_to_16_bits_are_labels():
    soft = np.random.default_rng(0).dirichlet(np.ones(CLASSES), 4)
    for dtype in ("float16", "bfloat16"):
        logs = linear().train_step(rows(tf.cast(soft, dtype)))
        assert np.isfinite(logs["loss/total"])


@pytest.mark.parametrize(
    ("method", "data", "message"),
    [
        (UDA, {"labeled": 0, "labels": 0}, "weak, strong; got"),
        (Supervised, (0, 0), "got tuple"),
    ],
)
def test_batches_without_their_parts_are_refused(method, data, message):
    learner = make(method)
    learner.compile("sgd")
    with pytest.raises(ValueError, match=message):
        learner.train_step(data)


@pytest.mark.long
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_models_train_in_float32_logits(policy):
    learner = make(MetaPseudoLabels, dtype=policy, ema_decay=0.9)
    learner.compile("sgd")
    logs = learner.fit(dataset(2, dtype="float32"), verbose=0).history
    assert all(np.isfinite(values).all() for values in logs.values())
    assert learner(batch(dtype="float32")["labeled"]).dtype == "float32"


def test_models_of_text_train_too():
    """Integer inputs, and gradients that are sparse."""

    def model():
        return keras.Sequential(
            [
                keras.Input((5,), dtype="int32"),
                keras.layers.Embedding(20, 4),
                keras.layers.GlobalAveragePooling1D(),
                keras.layers.Dense(CLASSES),
            ]
        )

    tokens = tf.random.stateless_uniform([6, 5], [0, 0], 0, 20, tf.int32)
    learner = MetaPseudoLabels(model(), model())
    learner.compile("sgd")
    logs = learner.train_step(
        {
            "labeled": tokens[:2],
            "labels": tf.constant([0, 1]),
            "weak": tokens[2:],
            "strong": tokens[2:],
        }
    )
    assert all(np.isfinite(value) for value in logs.values())


@pytest.mark.parametrize("method", [Supervised, UDA, MetaPseudoLabels])
def test_regularizers_of_a_model_count(method):
    """One step with and without differs by the regularizer's gradient."""

    def model(strength):
        penalty = keras.regularizers.L2(strength)
        return keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                keras.layers.Flatten(),
                keras.layers.Dense(CLASSES, kernel_regularizer=penalty),
            ]
        )

    kernels = []
    for strength in (0.0, 0.5):
        keras.utils.set_random_seed(0)
        models, settings = [model(strength)], {}
        if method is MetaPseudoLabels:
            models.append(model(strength))
            settings["feedback"] = "off"  # It would hear of the student's.
        learner = method(*models, **settings)
        before = [m.trainable_variables[0].numpy() for m in models]
        learner.compile(Momentum(0.1, momentum=0.0, nesterov=False))
        learner.train_step(batch(dtype="float32"))
        kernels.append([m.trainable_variables[0].numpy() for m in models])
    for start, plain, decayed in zip(before, *kernels, strict=True):
        # d(0.5 w^2) / dw = w, times the rate 0.1.
        np.testing.assert_allclose(
            plain - decayed, 0.1 * start, rtol=1e-3, atol=1e-5
        )


def two_layers(body, head=None):
    """A network whose head may compute in another float type."""
    inputs = keras.Input((2,))
    x = keras.layers.Dense(4, activation="tanh", dtype=body)(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, dtype=head or body)(x))


PLANE = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
SIDES = (PLANE[:, 0] > 0).astype("int32")
FLOATS = ("float32", "float64", "bfloat16", "float16", "mixed_bfloat16")


@pytest.mark.fast("bfloat16-float32", "float32-float64", "mixed_bfloat16-None")
@pytest.mark.parametrize(
    ("body", "head"),
    [
        *[(dtype, None) for dtype in FLOATS],
        ("float32", "float64"),
        ("float64", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float16"),
        ("mixed_bfloat16", "float64"),
    ],
)
def test_every_float_type_learns_as_in_keras(body, head):
    """One step of SGD, up to the rounding of the type's losses."""
    moved = []
    for is_ours in (True, False):
        keras.utils.set_random_seed(0)
        net = two_layers(body, head)
        before = [w.astype("float64") for w in net.get_weights()]
        optimizer = keras.optimizers.SGD(0.5)
        if is_ours:
            learner = Supervised(net)
            learner.compile(optimizer, weight_decay=1e-9, grad_bound=9.0)
            learner.train_step({"labeled": PLANE, "labels": SIDES})
        else:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            net.compile(optimizer, loss, run_eagerly=True)
            net.train_on_batch(PLANE, SIDES)
        after = [w.astype("float64") for w in net.get_weights()]
        moved.append([b - a for a, b in zip(before, after, strict=True)])
    half = "16" in body + (head or body)
    for ours, theirs in zip(*moved, strict=True):
        assert np.abs(theirs).max() > 1e-3
        np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=(1e-2 if half else 1e-6)
        )


@pytest.mark.fast(
    "bfloat16-bfloat16-reinforce_cosine",
    "float16-mixed_bfloat16-reinforce_cosine",
    "float64-bfloat16-exact",
)
@pytest.mark.parametrize("feedback", ["exact", "reinforce_cosine"])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("float32", "float64"),
        ("float64", "bfloat16"),
        ("bfloat16", "float64"),
        ("bfloat16", "bfloat16"),
        ("float16", "mixed_bfloat16"),
    ],
)
def test_students_and_teachers_may_differ_in_float_type(
    student, teacher, feedback
):
    keras.utils.set_random_seed(0)
    networks = two_layers(student), two_layers(teacher)
    learner = MetaPseudoLabels(*networks, feedback=feedback, ema_decay=0.9)
    learner.compile(Momentum(0.5), weight_decay=0.01, grad_bound=1.0)
    before = [values(net.variables) for net in networks]
    logs = learner.train_step(
        {"labeled": PLANE, "labels": SIDES, "weak": PLANE, "strong": PLANE},
        costly=True,
    )
    assert all(np.isfinite(float(value)) for value in logs.values())
    assert logs["mpl/feedback_grad_ratio"] > 0
    for net, old in zip(networks, before, strict=True):
        for variable, value in zip(net.variables, old, strict=True):
            assert (variable.numpy() != value).any()
