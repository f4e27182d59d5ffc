"""The examples of networks and data of one's own, cut down."""

import importlib
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import MetaPseudoLabels, data
from tests.scripts import ROOT
from tests.tiny_folders import write_folders

STUDENT = "MPL student"
NETWORKS = ["supervised, the same labels", STUDENT, f"{STUDENT}, finetuned"]


@pytest.fixture
def example(monkeypatch):
    """A function from an example's name to its module."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module


def run(module, *arguments):
    module.main(module.parse_arguments([*map(str, arguments)]))


def accuracies(printed):
    """The table's, in percent, by network; there is one of each."""
    rows = re.findall(r"^(\S.*?)  +([\d.]+)%$", printed, flags=re.MULTILINE)
    assert [name for name, _ in rows] == NETWORKS
    found = {name: float(percent) for name, percent in rows}
    assert all(0 <= percent <= 100 for percent in found.values())
    return found


def folder_arguments(root):
    return [
        f"--labeled_dir={root / 'labeled'}",
        f"--unlabeled_dir={root / 'unlabeled'}",
        f"--eval_dir={root / 'eval'}",
    ]


@pytest.mark.long
def test_own_folders_leave_a_saved_model(example, tmp_path, capsys):
    write_folders(tmp_path)
    output = tmp_path / "saved_model"
    run(
        example("own_folders"),
        *folder_arguments(tmp_path),
        "--image_size=8",
        "--steps=2",
        f"--output={output}",
    )
    table = accuracies(capsys.readouterr().out)
    images = data.load(
        "folders",
        labeled_dir=tmp_path / "labeled",
        unlabeled_dir=tmp_path / "unlabeled",
        eval_dir=tmp_path / "eval",
        image_size=8,
        num_labeled=None,
        seed=0,
    )
    loaded = tf.saved_model.load(output / "1")
    answers = loaded.signatures["serving_default"](
        images=tf.constant(images.test_images)
    )
    right = np.mean(answers["classes"].numpy() == images.test_labels)
    assert 100 * right == pytest.approx(table[NETWORKS[-1]], abs=0.05)


@pytest.mark.long
def test_a_missing_folder_is_one_line(tmp_path):
    result = subprocess.run(
        [
            sys.executable,
            ROOT / "examples" / "own_folders.py",
            *folder_arguments(tmp_path / "nowhere"),
            f"--output={tmp_path / 'saved_model'}",
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert re.fullmatch("Error: .*nowhere/labeled .*", last)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "name",
    [
        "keras_applications_student",
        "keras_cv_backbone",
        "text_classification",
        "tabular_classification",
    ],
)
def test_no_steps_are_refused(example, name, capsys):
    with pytest.raises(SystemExit, match="2"):
        example(name).parse_arguments(["--steps=0"])
    assert "--steps must be at least 1" in capsys.readouterr().err


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", num_labeled=20, image_size=32, seed=0)


def take_a_step(student, teacher, digits):
    """One eager step of MPL; the weights of both move, and stay finite."""
    learner = MetaPseudoLabels(student, teacher)
    learner.compile("sgd")
    (batch,) = data.training_dataset(
        digits, batch_size=2, unlabeled_ratio=1, magnitude=5, seed=0
    ).take(1)
    before = [model.get_weights() for model in (student, teacher)]
    learner.train_step(batch)
    for model, old in zip((student, teacher), before, strict=True):
        new = model.get_weights()
        assert all(np.isfinite(weights).all() for weights in new)
        moved = sum(np.any(a != b) for a, b in zip(old, new, strict=True))
        assert moved > 0.9 * len(old)


@pytest.mark.long
def test_networks_of_keras_applications_see_what_they_expect(example, digits):
    """MobileNetV2 wants images in [-1, 1]; Keras has that beside the class."""
    module = example("keras_applications_student")
    model = module.network("MobileNetV2", digits.spec, batch_norm_decay=0.8)
    levels = digits.test_images[:4].astype(np.float32)
    inner = next(x for x in model.layers if isinstance(x, keras.Model))
    want = model.get_layer("logits")(inner(levels / 127.5 - 1))
    spec = digits.spec
    got = model(data.normalize(levels, mean=spec.mean, std=spec.std))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    norms = [
        layer
        for layer in inner.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert norms and {layer.momentum for layer in norms} == {0.8}


@pytest.mark.long
def test_networks_of_keras_applications_take_a_step(example, digits):
    network = example("keras_applications_student").network
    spec = digits.spec
    take_a_step(
        network("MobileNetV3Small", spec),
        network("EfficientNetB0", spec),
        digits,
    )


def test_weights_that_cannot_be_had_are_one_line(example, monkeypatch):
    module = example("keras_applications_student")

    def network(*args, **kwargs):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(module, "network", network)
    with pytest.raises(SystemExit, match="Error: .*imagenet.*URL fetch"):
        module.networks(module.parse_arguments(["--weights=imagenet"]), None)


def test_an_unknown_application_is_one_line(example, capsys):
    module = example("keras_applications_student")
    with pytest.raises(SystemExit, match="2"):
        module.parse_arguments(["--student=MobileNetV9"])
    assert "--student: keras.applications has no" in capsys.readouterr().err


@pytest.mark.long
def test_keras_applications_print_a_table(example, capsys):
    run(example("keras_applications_student"), "--steps=2")
    accuracies(capsys.readouterr().out)


@pytest.mark.long
def test_keras_cv_backbones_take_a_step(example, digits):
    network = example("keras_cv_backbone").network
    take_a_step(network([8], digits.spec), network([16], digits.spec), digits)


@pytest.mark.long
def test_keras_cv_backbones_print_a_table(example, capsys):
    run(example("keras_cv_backbone"), "--steps=2")
    accuracies(capsys.readouterr().out)


def test_without_keras_cv_its_example_says_so(example, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    monkeypatch.delitem(sys.modules, "keras_cv_backbone", raising=False)
    with pytest.raises(SystemExit, match="Error: .*pip install 'keras-cv"):
        example("keras_cv_backbone")


@pytest.mark.long
def test_text_is_read_without_giveaways_or_texts_in_common(example):
    texts = example("text_classification")
    train, test = texts.read_texts("numpy")
    assert len(train) > 300 and len(test) > 50
    assert not set(train) & set(test)
    words = {word for text in train + test for word in text.split()}
    assert {"array", "the"} <= words and not words & texts.GIVEAWAYS


def test_strong_views_of_text_mask_words_and_keep_padding(example):
    texts = example("text_classification")
    tokens = np.full([500, texts.WORDS], 7)
    tokens[:, 20:] = texts.PADDING
    view = texts.strong_view(tf.constant(tokens), tf.constant([1, 2])).numpy()
    assert (view[:, 20:] == texts.PADDING).all()
    words = view[:, :20]
    # Of 10,000 words: deviations are 0.5 and 0.3 points.
    assert np.mean(words == texts.UNKNOWN) == pytest.approx(0.3, abs=0.02)
    others = (words != texts.UNKNOWN) & (words != 7)
    assert np.mean(others) == pytest.approx(0.1, abs=0.015)
    assert words[others].max() < texts.VOCABULARY and words.min() > 0


@pytest.fixture
def short_texts(example, monkeypatch):
    """The text example with texts that need not be read."""
    module = example("text_classification")

    def read_texts(library):
        train = [f"{library} has word{number}" for number in range(20)]
        return train, [f"{library} had word{number}" for number in range(6)]

    monkeypatch.setattr(module, "read_texts", read_texts)
    return module


def test_text_becomes_numbers_of_words(short_texts):
    arrays = short_texts.problem(3, seed=0)
    assert arrays["labels"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert arrays["labeled"].shape == (12, short_texts.WORDS)
    assert arrays["unlabeled"].shape == (4 * 17, short_texts.WORDS)
    assert arrays["test"].shape == (4 * 6, short_texts.WORDS)
    # Three words each; "has" is in all, "had" in no text to learn from.
    learned = np.concatenate([arrays["labeled"], arrays["unlabeled"]])
    assert (learned[:, :3] > 1).all() and not learned[:, 3:].any()
    assert len(np.unique(learned[:, 1])) == 1
    assert np.all(arrays["test"][:, 1] == short_texts.UNKNOWN)
    # The first word tells the class.
    assert len(np.unique(arrays["labeled"][:3, 0])) == 1
    assert len(np.unique(arrays["labeled"][:, 0])) == 4


@pytest.mark.long
def test_text_prints_a_table(short_texts, capsys):
    run(short_texts, "--steps=2", "--labels_per_class=3")
    printed = capsys.readouterr().out
    assert printed.startswith("12 labeled, 68 unlabeled and 24 test texts")
    accuracies(printed)


def test_tables_are_split_and_standardised(example):
    table = example("tabular_classification").problem(5, seed=3)
    assert np.bincount(table["labels"]).tolist() == [5, 5]
    assert len(table["test"]) == 190
    learned = np.concatenate([table["labeled"], table["unlabeled"]])
    assert learned.shape == (569 - 190, 30) and learned.dtype == np.float32
    np.testing.assert_allclose(learned.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(learned.std(axis=0), 1, atol=1e-5)
    again = example("tabular_classification").problem(5, seed=4)
    assert np.any(again["labeled"] != table["labeled"])
    np.testing.assert_array_equal(again["test"], table["test"])


def test_strong_views_of_a_table_swap_within_columns(example):
    module = example("tabular_classification")
    rows = np.arange(400 * 3, dtype=np.float32).reshape(400, 3)
    view = module.strong_view(tf.constant(rows), tf.constant([1, 2])).numpy()
    for column in range(3):
        assert set(view[:, column]) <= set(rows[:, column])
    swapped = view != rows
    assert np.mean(swapped) == pytest.approx(0.4, abs=0.06)
    # Columns are swapped each by itself.
    sources = (view // 3)[swapped.all(axis=1)]
    assert np.any(sources[:, 0] != sources[:, 1])


@pytest.mark.long
def test_a_table_prints_a_table(example, capsys):
    run(example("tabular_classification"), "--steps=2")
    printed = capsys.readouterr().out
    assert printed.startswith("10 labeled, 369 unlabeled and 190 test")
    accuracies(printed)


def test_more_labels_than_patients_are_refused(example, capsys):
    with pytest.raises(SystemExit, match="2"):
        example("tabular_classification").parse_arguments(
            ["--labels_per_class=1000"]
        )
    assert "must be in 1 to" in capsys.readouterr().err


@pytest.mark.long
def test_the_snippets_of_the_guide_export_a_student_and_read_weights(
    tmp_path, monkeypatch, capsys
):
    guide = (ROOT / "docs" / "bring_your_own.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for snippet in snippets:
        exec(snippet, {})
    shape, weights = capsys.readouterr().out.splitlines()[-2:]
    assert weights.startswith("4 of 6 variables read; the head is new, 2:")
    assert shape == "(3, 2)"
    for link in re.findall(r"\]\(([^)#:]+)\)", guide):
        assert (ROOT / "docs" / link).exists(), link
