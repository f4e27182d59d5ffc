"""What a run does not read: the table against what is built and trained."""

import dataclasses

import keras
import numpy as np
import pytest

from meta_pseudo_labels.data import DATASETS
from meta_pseudo_labels.learners import LEARNERS
from meta_pseudo_labels.learners.build import build_learner
from meta_pseudo_labels.run import data
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.inference import InferenceSettings
from meta_pseudo_labels.run.config.unread import rules_for, unread_settings
from meta_pseudo_labels.utils.settings import choices_of, value_type

FIELDS = {field.name: field for field in dataclasses.fields(Config)}
CONSISTENCY = {
    *("uda_weight", "uda_steps", "uda_temp", "uda_threshold"),
    *("uda_distribution_alignment", "uda_alignment_decay"),
}
NO_TERM = CONSISTENCY | {"uda_weak_pass"}
AUGMENT = {"augment_policy", "augment_magnitude", "augment_cutout"}
# Of mpl: it has others, and the student does not wait here.
RATES = {"lr", "num_warmup_steps", "mpl_skip_wait"}
RMSPROP = {"rmsprop_rho", "rmsprop_momentum", "rmsprop_epsilon"}
ADAM = {"adam_beta_1", "adam_beta_2", "adam_epsilon"}
DROPS = {"lr_decay_rate", "num_decay_steps"}
MPL = {name for name in FIELDS if name.startswith("mpl_")}
ALWAYS = (
    RMSPROP
    | ADAM
    | {  # By the defaults.
        "ema_start",
        "num_cores_per_replica",
        "finetune_eval_every",
        "finetune_weight_decay",
        "uda_alignment_decay",
    }
)
TPU = {"use_tpu", "master"}
# Methods with settings of their own.
MATCHES = ("adamatch", "fixmatch", "flexmatch", "freematch")
BASELINE = {"mpl_baseline_decay", "mpl_baseline_start"}

RUNS = {
    "supervised": (
        dict(method="supervised"),
        MPL
        | NO_TERM
        | AUGMENT
        | {"uda_data", "uda_data_growth_steps", "teacher_model_type"}
        | {"teacher_labels"}
        | {"teacher_weights"}
        | ALWAYS,
    ),
    "supervised, strong views": (
        dict(method="supervised", use_augment=True),
        MPL
        | NO_TERM
        | {"uda_data", "uda_data_growth_steps", "teacher_model_type"}
        | {"teacher_labels"}
        | {"teacher_weights"}
        | ALWAYS,
    ),
    "uda": (
        dict(method="uda", lr_decay_type="cosine"),
        MPL
        | {"use_augment", "teacher_model_type", "teacher_labels"}
        | {"teacher_weights"}
        | DROPS
        | ALWAYS,
    ),
    "fixmatch": (
        dict(method="fixmatch", lr_decay_type="cosine"),
        MPL
        | NO_TERM
        | {"use_augment", "teacher_model_type", "teacher_labels"}
        | {"teacher_weights"}
        | DROPS
        | ALWAYS,
    ),
    "freematch": (
        dict(method="freematch"),
        MPL
        | NO_TERM
        | {"use_augment", "teacher_model_type", "teacher_labels"}
        | {"teacher_weights"}
        | ALWAYS,
    ),
    "pseudo labels, hard": (
        dict(method="pseudo_labels", teacher_labels="x"),
        MPL - {"mpl_pseudo_labels"}
        | NO_TERM
        | {"use_augment", "teacher_model_type", "teacher_weights"}
        | ALWAYS,
    ),
    "pseudo labels, soft": (
        dict(
            method="pseudo_labels", teacher_labels="x", mpl_pseudo_labels="soft"
        ),
        MPL - {"mpl_pseudo_labels", "mpl_label_temp"}
        | NO_TERM
        | {"use_augment", "teacher_model_type", "teacher_weights"}
        | ALWAYS,
    ),
    "mpl": (dict(), RATES | BASELINE | {"use_augment"} | ALWAYS),
    "mpl, draws": (
        dict(mpl_feedback="reinforce_cosine"),
        RATES | {"use_augment"} | ALWAYS,
    ),
    "mpl, all read": (
        dict(
            uda_distribution_alignment=True,
            ema_decay=0.9,
            optim_type="rmsprop",
            distribution="tpu",
            num_validation=5,
            finetune_patience=1,
            finetune_optimizer="adamw",
            freeze_backbone_steps=-1,
            finetune_freeze_backbone_steps=-1,
        ),
        RATES
        | BASELINE
        | ADAM
        | {"use_augment", "replicas_per_worker"}
        | {"backbone_lr_factor", "finetune_backbone_lr_factor"}
        | {"layer_lr_decay", "finetune_layer_lr_decay"},
    ),
    "mpl, adam": (
        dict(optim_type="adam"),
        RATES | BASELINE | {"use_augment"} | ALWAYS - ADAM,
    ),
    "mpl, adamw": (
        dict(optim_type="adamw"),
        RATES | BASELINE | {"use_augment"} | ALWAYS - ADAM,
    ),
    "mpl, one device": (
        dict(distribution="one_device"),
        RATES
        | BASELINE
        | {"use_augment", "replicas_per_worker"}
        | TPU
        | ALWAYS,
    ),
    "mpl, mirrored": (
        dict(distribution="mirrored"),
        RATES | BASELINE | {"use_augment"} | TPU | ALWAYS,
    ),
    "mpl, off": (
        dict(mpl_feedback="off"),
        RATES
        | BASELINE
        | {"use_augment", "mpl_feedback_weight", "mpl_feedback_every"}
        | ALWAYS,
    ),
    "mpl, no consistency": (
        dict(mpl_teacher_loss="supervised"),
        RATES | BASELINE | NO_TERM | {"use_augment"} | ALWAYS,
    ),
    "mpl, another term": (
        dict(mpl_teacher_loss="adamatch"),
        RATES
        | BASELINE
        | CONSISTENCY
        | {"use_augment", "adamatch_interpolate"}
        | ALWAYS,
    ),
    "mpl, reduced": (
        dict(teacher_labels="x"),
        RATES | BASELINE | NO_TERM | {"use_augment"} | ALWAYS,
    ),
}
runs = pytest.mark.parametrize("run", RUNS)
INFERENCE = {field.name for field in dataclasses.fields(InferenceSettings)}


def settings_of(run):
    """A small run, as a dict."""
    small = dict(model_type="mlp", mpl_student_lr_wait_steps=0)
    return small | RUNS[run][0]


def unread(settings):
    return unread_settings(dataclasses.asdict(Config(**settings)))


def another(name, value):
    """Another value of a setting."""
    field = FIELDS[name]
    if choices_of(field):
        other = {"mpl_feedback": "release", "mpl_pseudo_labels": "soft"}
        known = [c for c in choices_of(field) if c not in (value, None)]
        return other.get(name, known[0])
    kinds = {
        bool: lambda: not value,
        int: lambda: value + 1,
        float: lambda: value / 2 + 0.05,
        str: lambda: "mlp-3-16",
    }
    return kinds[value_type(field)]()


@runs
def test_what_a_run_does_not_read(run):
    reasons = unread(settings_of(run))
    asked = RUNS[run][0]
    mine = asked.get("method", asked.get("mpl_teacher_loss", "mpl"))
    others = {
        name
        for name in FIELDS
        if name.startswith(MATCHES) and not name.startswith(mine)
    }
    assert set(reasons) == RUNS[run][1] | INFERENCE | others
    for reason in reasons.values():
        assert reason.endswith(".") and "{" not in reason


def test_a_cutout_of_strong_views_that_have_none():
    settings = settings_of("mpl") | {"dataset": "imagenet2012"}
    assert "of imagenet2012 have no" in unread(settings)["augment_cutout"]


def test_every_rule_is_of_some_run():
    runs = [*map(settings_of, RUNS), {"dataset": "imagenet2012"}]
    everything = [dataclasses.asdict(Config(**run)) for run in runs]
    for method in sorted({settings["method"] for settings in everything}):
        mine = [one for one in everything if one["method"] == method]
        for rule in rules_for(method):
            if not any(rule.when(settings) for settings in mine):
                # One of the run, not of the method.
                assert any(rule.when(one) for one in everything), rule.why
                assert rule not in LEARNERS[method].unread, rule.why


MACHINE = {"replicas_per_worker", "master"}  # See distribution_test.py.
# Known to the learner, but without a bearing on what it learns.
IDLE = {
    "mpl_feedback_weight",
    "mpl_label_temp",
    "ema_start",
    "backbone_lr_factor",
    "layer_lr_decay",
    *BASELINE,
    *DROPS,
}


def built(settings, monkeypatch):
    """All that a run is made of: the learner, and the batches' settings."""
    # A small network is built in a fifth of the time.
    config = Config(**{"model_type": "wrn-10-1"} | settings)
    keras.backend.clear_session()  # It counts the names of models.
    learner = build_learner(config, DATASETS["digits"])
    asked = {}
    monkeypatch.setattr(
        data.data, "training_dataset", lambda _, **kw: asked.update(kw)
    )
    data.training_batches(config, None, start_step=0)
    if config.method == "supervised" and not config.use_augment:
        for name in ("policy", "magnitude", "cutout_share"):
            asked.pop(name)  # No batch of it has a strong view; see below.
    return learner.get_config(), learner.get_compile_config(), asked


@pytest.mark.fast("fixmatch", "mpl, adamw")
@runs
def test_it_reaches_neither_learner_nor_batches(run, monkeypatch):
    """All of them changed at once."""
    settings = settings_of(run)
    default = Config(**settings)
    changes = {
        name: another(name, getattr(default, name))
        for name in RUNS[run][1] - IDLE - {"teacher_labels", *MACHINE}
    }
    want = built(settings, monkeypatch)
    assert built(settings | changes, monkeypatch) == want
    # What is read is told apart.
    assert built(settings | dict(label_smoothing=0.5), monkeypatch) != want


def test_plain_supervised_batches_have_no_strong_views():
    config = Config(method="supervised", train_batch_size=4)
    images = data.load_data(config)
    first, second = (
        next(
            data.training_batches(
                dataclasses.replace(config, **changes), images, start_step=3
            ).as_numpy_iterator()
        )
        for changes in ({}, dict(augment_magnitude=30, augment_cutout=1.0))
    )
    assert first.keys() == second.keys() == {"labeled", "labels"}
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


@pytest.mark.fast("mpl, off-mpl_feedback_weight-100.0", "uda-lr_decay_rate-0.1")
@pytest.mark.parametrize(
    ("run", "name", "value"),
    [
        ("mpl, off", "mpl_feedback_weight", 100.0),
        ("mpl, off", "mpl_feedback_every", 4),
        ("mpl", "mpl_baseline_start", 100.0),
        ("mpl, off", "mpl_baseline_start", 100.0),
        ("pseudo labels, hard", "mpl_label_temp", 0.1),
        ("mpl", "ema_start", 1),
        ("uda", "lr_decay_rate", 0.1),
        ("uda", "num_decay_steps", 1),
    ],
)
def test_it_has_no_bearing_on_what_is_learned(run, name, value):
    settings = settings_of(run)
    assert name in unread(settings)
    want, got = (trained(settings | changes) for changes in ({}, {name: value}))
    for one, other in zip(want, got, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_weight_of_the_feedback_has_one():
    settings = settings_of("mpl") | dict(mpl_feedback="exact")
    want, got = (
        trained(settings | dict(mpl_feedback_weight=weight))
        for weight in (1.0, 1e4)
    )
    assert any(
        (one != other).any() for one, other in zip(want, got, strict=True)
    )


def trained(settings):
    """The weights of all networks after two steps, and what is answered."""
    defaults = dict(
        train_batch_size=4,
        dense_dropout_rate=0.0,
        mpl_teacher_lr_warmup_steps=0,
    )
    config = Config(**defaults | settings)
    learner = build_learner(config, DATASETS["digits"])
    random = np.random.default_rng(0)

    def images(count):
        return random.normal(size=(count, 8, 8, 3)).astype("float32")

    batch = {
        "labeled": images(4),
        "labels": random.integers(10, size=4),
        "weak": images(8),
        "strong": images(8),
        "unlabeled_distributions": random.dirichlet([1.0] * 10, size=8).astype(
            "float32"
        ),
    }
    for _ in range(2):
        learner.train_step({key: batch[key] for key in learner.batch_keys})
    networks = [learner.student, getattr(learner, "teacher", learner.student)]
    return [
        *(weight for network in networks for weight in network.get_weights()),
        learner(batch["labeled"]).numpy(),
    ]
