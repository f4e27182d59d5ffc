"""What learners refuse, before any work starts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.evaluation.evaluate import evaluate
from meta_pseudo_labels.learners import (
    UDA,
    FixMatchTerm,
    FreeMatchTerm,
    MetaPseudoLabels,
    Supervised,
    UDASettings,
)
from meta_pseudo_labels.learners.finetuning import finetune
from meta_pseudo_labels.learners.fixmatch import FixMatch
from tests.learners.helpers import Sequence, batch, conv_net, make


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "no weights"),
        (lambda: lambda images: images, "must be a keras.Model"),
        (
            lambda: keras.Sequential(
                [keras.Input((4,)), keras.layers.Dense(3, "softmax")]
            ),
            "must return logits",
        ),
        (
            lambda: keras.Sequential(
                [
                    keras.Input((4,)),
                    keras.layers.Dense(3),
                    keras.layers.Softmax(),
                ]
            ),
            "must return logits",
        ),
    ],
)
def test_models_that_cannot_be_trained_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        Supervised(model())


@pytest.mark.parametrize(
    "settings",
    [
        {"label_smoothing": 1.5},
        {"label_smoothing": -0.1},
        {"ema_decay": 1.5},
        {"log_every": 0},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        make(Supervised, **settings)


@pytest.mark.parametrize(
    "settings", [{"weight_decay": -1.0}, {"grad_bound": 0.0}]
)
def test_compile_refuses_what_cannot_be_meant(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        make(Supervised).compile(**settings)


def test_models_from_outside_of_the_strategy_are_refused(mirrored):
    student = conv_net("student")
    with mirrored(2).scope(), pytest.raises(ValueError, match="'student' was"):
        Supervised(student)


def test_raw_images_are_refused():
    learner = make(Supervised)
    learner.compile("sgd")
    with pytest.raises(ValueError, match="data.normalize"):
        learner.predict(np.zeros([2, 6, 6, 2], "uint8"), verbose=0)


def test_bytes_that_are_no_images_are_taken():
    """By all of them as by a step."""
    rows = np.arange(8, dtype="uint8").reshape(2, 4)
    labels = np.int32([0, 1])
    learner = Supervised(net())
    learner.compile("sgd")
    learner.fit({"labeled": rows, "labels": labels}, verbose=0)
    want = learner.student(rows.astype("float32"))
    np.testing.assert_allclose(learner.predict(rows, verbose=0), want)
    loss = learner.evaluate(rows, labels, verbose=0)
    np.testing.assert_allclose(
        loss, learner.evaluate(rows * 1.0, labels, verbose=0)
    )
    data = tf.data.Dataset.from_tensors((rows, labels))
    assert evaluate(learner, data).images == 2
    finetune(learner.student, data, learning_rate=0.1, steps=1)


@pytest.mark.parametrize("key", ["labeled", "weak", "strong", "feedback"])
def test_raw_images_are_not_learned_from(key):
    learner = make(MetaPseudoLabels)
    learner.compile("sgd", teacher_optimizer="sgd")
    images = batch(dtype="float32")
    images |= {"feedback": images["labeled"], "feedback_labels": [0] * 4}
    learner.check_batch(images)
    images[key] = np.zeros([4, 6, 6, 2], "uint8")
    with pytest.raises(ValueError, match=f"under the key {key}, but learners"):
        learner.check_batch(images)


@pytest.mark.parametrize("scales", ["student", "teacher"])
def test_levels_must_suit_the_teacher_as_well_as_the_student(scales):
    def net(role):
        layers = [keras.layers.Rescaling(1 / 255)] if role == scales else []
        logits = keras.layers.Flatten(), keras.layers.Dense(3)
        return keras.Sequential([keras.Input([6, 6, 2]), *layers, *logits])

    learner = MetaPseudoLabels(net("student"), net("teacher"))
    learner.compile("sgd")
    images = batch(dtype="float32")
    for key in ("labeled", "weak", "strong"):
        images[key] = np.zeros([4, 6, 6, 2], "uint8")
    with pytest.raises(ValueError, match="Got uint8 images under the key"):
        learner.check_batch(images)


def test_a_student_that_scales_its_images_takes_levels(logged):
    """As with Keras: uint8 and floats of levels alike."""
    inputs = keras.Input([6, 6, 2])
    scaled = keras.layers.Rescaling(1 / 255)(inputs)
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(scaled))
    learner = Supervised(keras.Model(inputs, logits))
    learner.compile("sgd")
    levels = np.random.RandomState(0).randint(0, 256, [8, 6, 6, 2])
    learner.check_batch(
        {"labeled": levels.astype("uint8"), "labels": np.zeros(8, int)}
    )
    found, want = (
        learner.predict(levels.astype(kind), verbose=0)
        for kind in ("uint8", "float32")
    )
    np.testing.assert_allclose(found, want, atol=1e-6)
    assert logged == []


RANGES = {
    "divided": lambda x: x,
    "binary": np.round,
    "levels": lambda x: 255 * x,
    "nan": lambda x: np.where(x > 0.99, np.nan, x - 0.5),
    "normalized": lambda x: 4 * x - 2,
    "centered": lambda x: 2 * x - 1,
    "zeros": lambda x: 0 * x,
}


@pytest.fixture(scope="module")
def predicting():
    learner = make(Supervised)
    learner.compile("sgd")
    return learner


@pytest.mark.fast("centered", "normalized")
@pytest.mark.parametrize("name", RANGES)
def test_images_that_nobody_normalized_are_noticed(name, predicting, logged):
    """Wherever they come from."""
    random = np.random.RandomState(0).rand(8, 6, 6, 2)
    images, labels = RANGES[name](random).astype("float32"), np.zeros(8, int)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    wrong = name in ("divided", "binary", "levels", "nan")
    for look in (
        lambda: predicting.predict(images, verbose=0),
        lambda: predicting.predict(tf.constant(images), verbose=0),
        lambda: predicting.predict(dataset, verbose=0),
        lambda: predicting.evaluate(images, labels, verbose=0),
        lambda: predicting.evaluate(dataset, verbose=0),
        lambda: predicting.predict(Sequence((images, labels)), verbose=0),
    ):
        look()
        assert len(logged) == wrong
        if wrong:
            assert "as if they were not normalized" in logged.pop()


def test_evaluate_looks_at_their_range_too(predicting, logged):
    images = np.random.RandomState(0).rand(8, 6, 6, 2).astype("float32")
    for factor in (1, 4):
        data = (factor * (images - (factor > 1) / 2), np.zeros(8, int))
        evaluate(predicting, tf.data.Dataset.from_tensors(data))
        assert len(logged) == 1 and "not normalized" in logged[0]


def test_what_is_no_image_has_any_range(logged):
    inputs = keras.Input([4])
    learner = Supervised(keras.Model(inputs, keras.layers.Dense(2)(inputs)))
    learner.compile("sgd")
    learner.predict(np.full([8, 4], 200.0), verbose=0)
    assert logged == []


def test_unequal_classes_of_subclassed_models_are_refused():
    """Their output shapes are not known before they are called."""

    class Model(keras.Model):
        def __init__(self, classes):
            super().__init__()
            self.dense = keras.layers.Dense(classes)
            self(np.zeros([1, 6, 6, 2]))

        def call(self, inputs):
            return self.dense(keras.ops.reshape(inputs, [-1, 72]))

    learner = MetaPseudoLabels(Model(4), Model(3))
    learner.compile("sgd")
    with pytest.raises(ValueError, match="got 4 and 3"):
        learner.train_step(batch(dtype="float32"))


class Late(keras.Model):
    """Its inputs are not known before it trains, so its output is not."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4)
        self({"a": np.zeros([2, 3])})

    def call(self, inputs):
        return keras.ops.reshape(self.dense(inputs["a"]), [-1, 2, 2])


def test_an_output_that_was_not_known_is_refused_where_it_comes():
    learner = Supervised(Late())
    learner.compile("sgd")
    rows = {"labeled": {"a": np.ones([2, 3])}, "labels": np.zeros(2, "int32")}
    data = tf.data.Dataset.from_tensors(rows)
    with pytest.raises(ValueError, match=r"returns \[batch, 2, 2\]"):
        learner.fit(data, verbose=0)


def net(activation=None, units=3):
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(units, activation)]
    )


def test_teachers_are_looked_at_as_students_are():
    with pytest.raises(ValueError, match="The teacher .* probabilities"):
        MetaPseudoLabels(net(), net("softmax"))
    with pytest.raises(ValueError, match="The teacher .* classes or more"):
        MetaPseudoLabels(net(), net(units=1))


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_frozen_networks_are_told_so(role):
    networks = {"student": net(), "teacher": net()}
    networks[role].trainable = False
    with pytest.raises(ValueError, match=f"{role} .* all 2 are frozen"):
        MetaPseudoLabels(**networks)


def test_networks_that_are_frozen_before_compile_are_told_so():
    learner = MetaPseudoLabels(net(), net())
    learner.teacher.trainable = False
    with pytest.raises(ValueError, match="all 2 are frozen"):
        learner.compile("sgd")


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_networks_that_are_frozen_after_compile_are_told_so(role):
    learner = MetaPseudoLabels(net(), net(), uda=None)
    learner.compile("sgd")
    getattr(learner, role).trainable = False
    rows = {"labeled": np.ones([2, 4]), "strong": np.ones([2, 4])}
    data = tf.data.Dataset.from_tensors(rows | {"labels": [0, 1]})
    with pytest.raises(ValueError, match="all 2 are frozen"):
        learner.fit(data, verbose=0)


def test_finetuning_looks_too():
    data = tf.data.Dataset.from_tensors((np.ones([2, 4]), np.zeros(2)))
    with pytest.raises(ValueError, match="The student .* probabilities"):
        finetune(net("sigmoid"), data, learning_rate=0.1, steps=1)
    frozen = net()
    frozen.layers[0].trainable = False
    with pytest.raises(ValueError, match="frozen"):
        finetune(frozen, data, learning_rate=0.1, steps=1)


@pytest.mark.parametrize("method", [Supervised, MetaPseudoLabels])
@pytest.mark.parametrize(
    "mixed_up",
    [
        lambda x: keras.ops.mean(x, axis=0, keepdims=True),
        lambda x: keras.ops.reshape(x, [-1, 2]),
    ],
    ids=["one row for all", "rows of rows"],
)
def test_rows_that_are_no_longer_the_inputs_are_refused(method, mixed_up):
    def network():
        inputs = keras.Input((4,))
        logits = keras.layers.Dense(4)(inputs)
        return keras.Model(inputs, keras.layers.Dense(2)(mixed_up(logits)))

    count = 1 + (method is MetaPseudoLabels)
    learner = method(*(network() for _ in range(count)))
    learner.compile("sgd")
    rows = dict.fromkeys(("labeled", "weak", "strong"), np.ones([8, 4]))
    data = tf.data.Dataset.from_tensors(rows | {"labels": np.zeros(8, int)})
    with pytest.raises(ValueError, match=r"returns \d+ rows for \d+ inputs"):
        learner.fit(data, verbose=0)


def test_keys_that_are_a_slip_of_the_pen_are_said(logged):
    """Else weights would weigh nothing, and nobody knew."""
    rows = {"labeled": np.ones([2, 4], "float32"), "labels": [0, 1]}
    learner = Supervised(net())
    learner.compile("sgd")
    ours = ("weak", "labeled_distributions")  # Of every stream of ours.
    for key in (*ours, "sample_weight", "name_of_file"):
        learner.check_batch({**rows, key: np.ones(2)})
    assert logged == []
    for _ in range(2):
        learner.check_batch({**rows, "sample_weights": np.ones(2)})
    (line,) = logged
    assert "Supervised does not read the key 'sample_weights'" in line
    assert "sample_weight" in line.split("'")[-1]


def test_what_is_not_looked_for_is_said(mirrored, logged):
    with mirrored(2).scope():
        learner = MetaPseudoLabels(net(), net(), uda=None)
        learner.compile("sgd", run_eagerly=True)
    (line,) = logged
    assert "nothing checks for layers without a second derivative" in line


@pytest.mark.parametrize("roles", [1, 2])
def test_learners_that_nobody_compiled_say_so(roles):
    method = (Supervised, MetaPseudoLabels)[roles - 1]
    learner = method(*(net() for _ in range(roles)))
    with pytest.raises(ValueError, match=r"call compile\(\)"):
        learner.fit(tf.data.Dataset.range(1), verbose=0)


def test_a_learner_is_no_network():
    learner = Supervised(net())
    words = r"got a learner, Supervised. Pass learner.finished_student\(\)"
    for make_one in (
        lambda: MetaPseudoLabels(learner, net()),
        lambda: MetaPseudoLabels(net(), learner),
        lambda: Supervised(learner),
        lambda: finetune(
            learner,
            tf.data.Dataset.from_tensors((np.ones((2, 4)), [0, 1])),
            learning_rate=0.1,
            steps=1,
        ),
    ):
        with pytest.raises(ValueError, match=words):
            make_one()


@pytest.mark.parametrize(
    ("term", "words"),
    [
        ("freematch", r"such as UDASettings\(\); got 'freematch'"),
        ({}, "got {}"),
        ({"weight": 2.0}, "got {'weight'"),
        (True, "got True"),
        (UDASettings, r"such as UDASettings\(\); got <class"),
        (FreeMatchTerm, r"such as FreeMatchTerm\(\); got <class"),
    ],
)
def test_what_is_no_term_is_refused(term, words):
    with pytest.raises(ValueError, match=f"uda must be a term, .*{words}"):
        UDA(net(), uda=term)
    with pytest.raises(ValueError, match="uda must be a term"):
        MetaPseudoLabels(net(), net(), uda=term)


def test_a_method_refuses_the_term_of_another():
    with pytest.raises(ValueError, match=r"as FixMatchTerm\(\); got UDASett"):
        FixMatch(net(), term=UDASettings())
    assert FixMatch(net(), term=FixMatchTerm(weight=0.5)).weight == 0.5
    assert MetaPseudoLabels(net(), net(), uda=None).uda is None


def test_finetuning_belongs_into_the_scope(mirrored):
    data = tf.data.Dataset.from_tensors((np.ones((4, 4)), [0, 1, 2, 0]))
    settings = dict(learning_rate=0.1, steps=2)
    with mirrored(2).scope():
        learner = Supervised(net())
    student = learner.finished_student()
    with pytest.raises(ValueError, match="call finetune, .* the same scope"):
        finetune(student, data, **settings)
    before = student.get_weights()[0]
    with learner.distribute_strategy.scope():
        finetune(student, data, **settings)
    assert (student.get_weights()[0] != before).any()


def test_validation_data_must_end():
    data = tf.data.Dataset.from_tensors((np.ones((2, 4)), [0, 1]))
    with pytest.raises(ValueError, match=r"never ends; .*\.take"):
        finetune(
            net(),
            data,
            learning_rate=0.1,
            steps=1,
            validation_data=data.repeat(),
        )
