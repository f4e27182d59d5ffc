"""`--use_bfloat16` learns as float32 does, and keeps what lasts in float32."""

import statistics

import pytest
import tensorflow as tf

from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.utils import compat
from tests.tiny_run import rows, weights

pytestmark = pytest.mark.long
STEPS = 30
# The first is on labels, and falls within a few steps. Those on weak views are
# left out: at a threshold a little rounding counts or discounts an image.
LOSSES = {
    "uda": ("loss/cross_entropy",),
    "mpl": ("cross_entropy/teacher_on_l", "cross_entropy/student_on_u"),
}


def digits(folder, **settings):
    """The recipe of flags/digits.flags, for fewer steps."""
    steps = settings.pop("steps")
    rate = settings.pop("rate", 1.6)
    return Config(
        output_dir=str(folder),
        dataset="digits",
        num_labeled=40,
        model_type="wrn-10-1",
        train_batch_size=16,
        eval_batch_size=250,
        num_train_steps=steps,
        save_every=steps,
        log_every=1,
        dense_dropout_rate=0.0,
        weight_decay=5e-4,
        label_smoothing=0.15,
        lr_decay_type="cosine",
        augment_magnitude=10,
        augment_cutout=0,
        uda_data=4,
        uda_weight=8.0,
        uda_steps=steps // 2,
        uda_temp=0.7,
        uda_threshold=0.6,
        lr=rate,
        num_warmup_steps=steps // 10,
        mpl_student_lr=rate,
        mpl_student_lr_wait_steps=0,
        mpl_student_lr_warmup_steps=steps // 10,
        mpl_teacher_lr=rate,
        mpl_teacher_lr_warmup_steps=steps // 10,
        progress=False,
        **settings,
    )


def trained(config):
    experiment = Experiment(config)
    assert experiment.train()
    return experiment


@pytest.fixture(scope="module", params=LOSSES)
def pair(request, tmp_path_factory):
    """A method, and its experiment in float32 and in bfloat16."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, *(
        trained(
            digits(
                folder / str(use_bfloat16),
                steps=STEPS,
                rate=0.2,
                method=request.param,
                ema_decay=0.9,
                use_bfloat16=use_bfloat16,
            )
        )
        for use_bfloat16 in (False, True)
    )


def test_losses_are_those_of_float32(pair):
    method, *experiments = pair
    for name in LOSSES[method]:
        want, got = (
            [row[name] for row in rows(run.config) if name in row]
            for run in experiments
        )
        assert len(want) == len(got) == STEPS
        assert got != want  # The setting does something.
        assert got == pytest.approx(want, rel=0.1), name
        assert sum(got) == pytest.approx(sum(want), rel=0.02), name
        if name == LOSSES[method][0]:  # There was something to learn.
            assert min(want) < 0.8 * want[0]


def test_all_that_lasts_is_float32(pair):
    method, _, rounded = pair
    learner = rounded.learner
    layers = compat.layers_of(learner.student)
    assert "bfloat16" in {layer.compute_dtype for layer in layers}
    kinds = {variable.dtype for variable in learner.variables}
    assert kinds == {"float32", "int64"}  # Counts are the integers.
    optimizers = [learner.optimizer]
    if method == "mpl":
        optimizers.append(learner.teacher_optimizer)
    for optimizer in optimizers:
        kinds = {variable.dtype for variable in optimizer.variables}
        assert kinds <= {"float32", "int32", "int64"}
    saved = weights(rounded.config)
    assert len(saved) > 50
    kinds = {
        value.dtype.name
        for name, value in saved.items()
        if not name.startswith("best_accuracy")  # Of no network.
    }
    assert kinds <= {"float32", "int32", "int64", "object"}
    images = tf.zeros([2, 8, 8, 3])
    for training in (False, True):
        for model in (learner, learner.student):
            assert model(images, training=training).dtype == tf.float32


def test_the_exported_model_is_float32(pair):
    _, exact, rounded = pair
    images = tf.constant(exact.data.test_images[:100])
    answers = []
    for run in (exact, rounded):
        model = tf.saved_model.load(run.export())
        assert {weight.dtype for weight in model.weights} == {tf.float32}
        answer = model.classify(images)["probabilities"]
        assert answer.dtype == tf.float32
        answers.append(answer.numpy())
    want, got = answers
    assert 0 < abs(got - want).mean() < 0.02


@pytest.mark.parametrize("method", LOSSES)
def test_accuracy_is_that_of_float32(method, tmp_path):
    """Rounding moves the accuracy by less than the seed does."""

    def accuracy(seed, use_bfloat16):
        folder = tmp_path / f"{seed}-{use_bfloat16}"
        run = trained(
            digits(
                folder,
                steps=300,
                method=method,
                ema_decay=0.97,
                seed=seed,
                use_bfloat16=use_bfloat16,
            )
        )
        return run.evaluate()["student"]

    exact = [accuracy(seed, False) for seed in range(3)]
    rounded = [accuracy(seed, True) for seed in range(3)]
    assert min(exact + rounded) > 0.5  # Of ten classes.
    difference = statistics.mean(rounded) - statistics.mean(exact)
    # One seed differs from another by at least the chance of 500 images.
    noise = max(max(exact) - min(exact), 0.03)
    assert abs(difference) < noise, (exact, rounded)
