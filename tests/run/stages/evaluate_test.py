"""All networks of a run, compared: the table, the files, the choice."""

import base64
import dataclasses
import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.image import imread
from tensorboard.compat.proto import event_pb2

from meta_pseudo_labels.data import from_arrays
from meta_pseudo_labels.evaluation.evaluate import accuracy
from meta_pseudo_labels.evaluation.metrics import evaluate_probabilities
from meta_pseudo_labels.learners.build import build_learner, build_model
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.data import evaluation_batches, load_data
from meta_pseudo_labels.run.stages.evaluate import (
    EvaluationReport,
    evaluate_run,
    pictured_mistakes,
)
from meta_pseudo_labels.run.test_images import evaluation_source
from meta_pseudo_labels.utils.checkpoint_files import weights_digest
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_run import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Settings, images, a learner that never learned, a finetuned student."""
    folder = tmp_path_factory.mktemp("report") / "run"
    config = tiny(folder, task_mode="eval", num_validation=20)
    images = load_data(config)
    learner = build_learner(config, images.spec)
    finetuned = build_model(config, images.spec, role="student")
    return config, images, learner, finetuned


@pytest.fixture(scope="module")
def report(run):
    config, images, learner, finetuned = run
    return evaluate_run(learner, finetuned, config, images)


def content(config, name):
    with open(f"{config.output_dir}/{name}") as file:
        return json.load(file)


def test_every_network_has_its_row(run, report):
    config, images, learner, finetuned = run
    networks = ["student", "student_raw", "teacher", "finetuned"]
    assert list(report.networks) == list(report.validation) == networks
    test = evaluation_batches(config, images)
    for name, model in (("teacher", learner.teacher), ("finetuned", finetuned)):
        assert report.networks[name].top_1 == accuracy(model, test)
    assert report.networks["teacher"].images == 500
    assert report.validation["teacher"].images == 20
    assert report.networks["teacher"].top_5 is not None
    assert report.networks["teacher"].class_names == tuple("0123456789")


def test_the_most_confident_mistakes_have_their_pictures(run, report):
    config, images, _, _ = run
    shown = content(config, "eval_mistakes.json")
    assert list(shown) == list(report.networks)
    mistakes = shown["teacher"]
    assert len(mistakes) == 12
    sureness = [m["confidence"] for m in mistakes]
    assert sureness == sorted(sureness, reverse=True)
    for mistake in mistakes:
        place = mistake["image"]
        assert mistake["label"] == images.test_labels[place]
        assert mistake["label"] != mistake["predicted"]
        assert mistake["name"] == f"image {place}"
        kind, text = mistake["picture"].split(",")
        assert kind == "data:image/png;base64"
        pixels = tf.io.decode_png(base64.b64decode(text), channels=3)
        np.testing.assert_array_equal(pixels, images.test_images[place])


def test_large_pictures_are_no_larger_than_they_are_shown():
    source = evaluation_source(
        Config(),
        from_arrays(
            np.full([2, 200, 200, 3], 77, np.uint8),
            [0, 1],
            np.zeros([0, 200, 200, 3], np.uint8),
            test_images=np.full([3, 200, 200, 3], 77, np.uint8),
            test_labels=[0, 1, 1],
        ),
    )
    (picture,) = source.pictures([2])
    kind, text = picture.split(",")
    assert kind == "data:image/jpeg;base64" and len(text) < 2_000
    pixels = tf.io.decode_jpeg(base64.b64decode(text)).numpy()
    assert pixels.shape == (96, 96, 3) and abs(int(pixels[5, 5, 0]) - 77) < 3
    assert source.pictures([]) == []


def test_where_images_were_skipped_none_is_shown_for_another(run, report):
    config, images, _, _ = run
    source = evaluation_source(config, images)
    fewer = dataclasses.replace(source, images=source.images[:499])
    assert pictured_mistakes(report.networks, fewer) == {}


def test_the_files_say_what_the_report_does(run, report):
    config, _, learner, finetuned = run
    accuracies = content(config, "eval.json")
    assert accuracies == report.accuracies
    assert list(accuracies) == [*report.networks, "validation"]
    everything = content(config, "eval_report.json")
    assert everything == report.to_dict()
    assert everything["images"] == "the test images of digits"
    averaged = learner.finished_student()  # Its last use here.
    assert everything["weights"] == {
        "student": weights_digest(averaged),
        "finetuned": weights_digest(finetuned),
    }
    teacher = everything["networks"]["teacher"]
    assert teacher["top_1"] == accuracies["teacher"]
    assert sum(row["support"] for row in teacher["classes"]) == 500
    assert np.sum(teacher["confusion"]) == 500
    assert everything["best"] in report.networks


def test_the_figures_are_also_in_the_events(run, report):
    config, *_ = run
    shown = {}
    for path in tf.io.gfile.glob(f"{config.output_dir}/events/*"):
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            for value in event_pb2.Event.FromString(record).summary.value:
                shown[value.tag] = value.tensor.string_val[2]
    assert set(shown) == {"eval/eval_confusion", "eval/eval_reliability"}
    for tag, png in shown.items():
        path = f"{config.output_dir}/{tag.removeprefix('eval/')}.png"
        drawn = np.rint(imread(path)[..., :3] * 255)
        assert drawn.std() > 20  # Not empty.
        np.testing.assert_array_equal(tf.io.decode_png(png), drawn)


class AlwaysThree(tf.Module):
    """Says "3" of every image, with probability 0.91."""

    @tf.function(
        input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.uint8, "images")]
    )
    def classify(self, images):
        count = tf.shape(images)[0]
        return {
            "classes": tf.fill([count], tf.constant(3, tf.int64)),
            "labels": tf.fill([count], "3"),
            "probabilities": tf.tile(
                [[0.01] * 3 + [0.91] + [0.01] * 6], [count, 1]
            ),
        }


@pytest.mark.long
def test_an_export_stands_beside_them(run, tmp_path):
    config, images, learner, finetuned = run
    path = tmp_path / "saved_model" / "7"
    module = AlwaysThree()
    tf.saved_model.save(module, path, signatures=module.classify)
    config = tiny(tmp_path, task_mode="eval", saved_model=str(path.parent))
    networks = evaluate_run(learner, finetuned, config, images).networks
    assert list(networks)[-2:] == ["finetuned", "saved_model"]
    found = networks["saved_model"]
    threes = np.mean(images.test_labels == 3)
    assert found.top_1 == pytest.approx(threes)
    assert found.ece == pytest.approx(0.91 - threes)
    want = -threes * np.log(0.91) - (1 - threes) * np.log(0.01)
    assert found.nll == pytest.approx(want)


def test_an_export_that_is_not_there_is_named(run, tmp_path):
    config = tiny(tmp_path, task_mode="eval", saved_model=str(tmp_path))
    with pytest.raises(ConfigError, match="holds no SavedModel"):
        evaluate_run(run[2], None, config, run[1])
    assert list(tmp_path.iterdir()) == []


def one(right, *, total=10, classes=10, confidence=0.55):
    """So many images right; always the same confidence."""
    labels = np.arange(total) % classes
    said = np.where(np.arange(total) < right, labels, (labels + 1) % classes)
    rows = np.full([total, classes], (1 - confidence) / (classes - 1))
    rows[np.arange(total), said] = confidence
    return evaluate_probabilities(rows, labels, images_per_second=12345.6)


def compared(networks, validation):
    return EvaluationReport(
        images="some images",
        step=1200,
        networks=networks,
        validation=validation,
    )


def test_the_table():
    report = compared(
        {"student": one(8), "teacher": one(10)},
        {"student": one(3, total=4), "teacher": one(2, total=4)},
    )
    assert report.as_text().splitlines() == [
        "On some images (10), step 1,200:",
        "network   top-1   top-5     ECE     nll  validation top-1  images/s",
        "-------  ------  ------  ------  ------  ----------------  --------",
        "student  0.8000  0.8000  0.2500  1.0774            0.7500    12,346",
        "teacher  1.0000  1.0000  0.4500  0.5978            0.5000    12,346",
        "Best on the 4 validation images: student (0.7500).",
    ]
    assert report.accuracies == {
        "student": 0.8,
        "teacher": 1.0,
        "validation": {"student": 0.75, "teacher": 0.5},
    }


def test_test_images_do_not_choose():
    """And few classes have no top-5."""
    report = compared({"student": one(2, classes=3)}, {})
    assert report.best is None
    text = report.as_text()
    assert "These images must not be used to choose" in text
    assert "Best" not in text
    assert "top-5" not in text
    assert report.accuracies == {"student": 0.2}


def test_of_equally_right_networks_the_surer_one_is_the_best():
    sure, unsure = one(8, confidence=0.8), one(8, confidence=0.6)
    assert compared({}, {"a": unsure, "b": sure}).best == "b"
    assert compared({}, {"b": sure, "a": unsure}).best == "b"


@pytest.mark.parametrize(
    ("right", "is_guess"), [(2, True), (1, True), (3, False)]
)
def test_a_tie_and_mere_guessing_are_said(right, is_guess):
    """Of 20 images 2 are of the largest class."""
    networks = {"a": one(right, total=20), "b": one(right, total=20)}
    text = compared(networks, networks | {"c": one(0, total=20)}).as_text()
    assert f"a ({right / 20:.4f}, a tie with b)." in text
    warning = "Warning: no better than guessing: always predicting the "
    warning += "largest class is right on 0.1000 of these images."
    assert (warning in text.splitlines()) is is_guess
    assert ("guessing" in compared(networks, {}).as_text()) is is_guess


def test_without_matplotlib_there_is_all_but_figures(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (tmp_path / "eval_confusion.png").write_text("of an earlier evaluation")
    compared({"student": one(2)}, {}).save(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["eval.json", "eval_report.json"]
    (line,) = caplog.messages
    assert "Figures are drawn with matplotlib" in line


def test_what_could_not_be_read_is_said():
    report = EvaluationReport("images", 1, {"student": one(2)}, {}, "x skipped")
    assert report.as_text().endswith("Of these, x skipped.")
