"""--task_mode=review: tables of a run's images, and the answers to it."""

import csv
import dataclasses
import json
import types

import numpy as np
import pytest
from matplotlib.image import imread

from meta_pseudo_labels import data
from meta_pseudo_labels.run import review_tables
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.run.review_tables import (
    Pool,
    copies,
    doubted,
    pseudo_labels,
    wanted,
)
from meta_pseudo_labels.run.stages import review
from meta_pseudo_labels.run.stages.review import draw, link, review_run
from meta_pseudo_labels.utils import figures
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_folders import run_settings, write_folders
from tests.tiny_run import tiny

CLASSES = ("cat", "=dog")


def pool(student, teacher=None, labels=None):
    """Images of two classes, whose features are their probabilities."""
    count = len(student)
    return Pool(
        images=np.zeros([count, 8, 8, 3], np.uint8),
        names=[f"{place}.png" for place in range(count)],
        files=[(f"{place}.png",) for place in range(count)],
        parts=["labeled"] * count,
        labels=None if labels is None else np.array(labels),
        student=np.array(student),
        teacher=None if teacher is None else np.array(teacher),
        features=np.array(student),
        classes=CLASSES,
    )


def test_the_label_that_all_others_speak_against_comes_first():
    sure = [[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3
    table = doubted(pool(sure, labels=[0, 0, 1, 1, 1, 1]))
    assert table.places[0] == 2
    name, part, label, suggested, doubt, answer = table.rows[0]
    assert (name, part, label) == ("2.png", "labeled", "=dog")
    assert suggested == "cat" and float(doubt) > 0.5 and answer == ""


def test_what_to_label_is_uncertain_and_says_the_guess():
    student = [[1.0, 0.0], [0.6, 0.4], [0.5, 0.5]]
    labeled = pool([[1.0, 0.0]], labels=[0])
    table = wanted(pool(student, student), labeled, count=1)
    assert table.rows == [("2.png", "cat", "0.6931", "0.0000", "")]


def test_pseudo_labels_are_those_of_both_networks_the_surest_first():
    found = pool([[0.6, 0.4], [0.9, 0.1]], [[0.2, 0.8], [0.9, 0.1]])
    assert pseudo_labels(found).rows == [
        ("1.png", "cat", "0.9000", "cat", ""),
        ("0.png", "=dog", "0.6000", "cat", ""),
    ]


def test_copies_are_leaks_two_classes_or_copies():
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, [6, 8, 8, 3]).astype(np.uint8)
    images = data.from_arrays(
        pixels[[0, 1, 1, 2]],
        np.array([0, 0, 1, 1]),
        pixels[[0, 3, 4, 4]],
        test_images=pixels[[3, 5]],
        test_labels=np.array([0, 1]),
    )
    assert copies(images) == [
        (
            "two classes",
            "labeled, labeled",
            "labeled image 1 = labeled image 2",
        ),
        ("leak", "unlabeled, test", "unlabeled image 1 = test image 0"),
        (
            "copies",
            "unlabeled, unlabeled",
            "unlabeled image 2 = unlabeled image 3",
        ),
    ]


@pytest.mark.parametrize(
    ("part", "kind"),
    [("validation", "copies"), ("feedback", "leak"), ("labeled", "leak")],
)
def test_only_what_was_learned_from_leaks(part, kind):
    """Nothing learns from validation images; of MPL, the teacher from others.

    Picture 0 is in the part and in the test.
    """
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, [4, 8, 8, 3]).astype(np.uint8)
    images = data.from_arrays(
        pixels[[1, 2]],
        np.array([0, 1]),
        pixels[[3]],
        test_images=pixels[[0]],
        test_labels=np.array([0]),
    )
    fields = {f"{part}_images": pixels[[0]], f"{part}_labels": np.array([0])}
    if part == "labeled":
        fields["labeled_indices"] = np.array([0])
    images = dataclasses.replace(images, **fields)
    names = f"{part} image 0 = test image 0"
    assert copies(images) == [(kind, f"{part}, test", names)]


def test_the_first_images_of_tables_are_drawn(tmp_path):
    found = pool([[0.6, 0.4], [0.1, 0.9]], labels=[0, 0])
    empty = pool(np.zeros([0, 2]))
    (tmp_path / "to_label.png").write_text("of a review before")
    draw(
        {
            "labels.csv": doubted(found),
            "to_label.csv": wanted(empty, found, count=3),
        },
        tmp_path,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["labels.png"]
    height, width, _ = imread(tmp_path / "labels.png").shape
    assert width > height > 100


def test_a_label_is_red_where_another_class_is_likelier(tmp_path):
    """One that is doubted, and likelier than all others, is none to change."""
    sure = [[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3
    red = []
    for labels in ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]):
        draw({"labels.csv": doubted(pool(sure, labels=labels))}, tmp_path)
        pixels = np.rint(imread(tmp_path / "labels.png")[..., :3] * 255)
        wrong = [int(figures.WRONG[i : i + 2], 16) for i in (1, 3, 5)]
        red.append(np.all(pixels == wrong, axis=-1).sum())
    assert red[0] == 0 and red[1] > 500


def test_links_lead_to_the_files_by_what_is_suggested(tmp_path, caplog):
    names = [tmp_path / name for name in ("a = b.JPG", "same", "lost", "c.png")]
    for path in (*names[:2], names[3]):
        path.write_text(path.name)
    found = dataclasses.replace(
        pool([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]),
        files=[
            (f"{names[0]}", f"{names[1]}"),
            (f"{names[2]}",),
            (f"{names[3]}",),
        ],
    )
    link(pseudo_labels(found), tmp_path / "links")
    links = sorted((tmp_path / "links").rglob("*.*"))
    shown = [str(path.relative_to(tmp_path / "links")) for path in links]
    assert shown == ["=dog/0003.png", "cat/0001.JPG"]
    assert [path.read_text() for path in links] == ["c.png", "a = b.JPG"]
    assert (tmp_path / "links" / "cat" / "0001-1").read_text() == "same"
    assert "1 files have no link" in caplog.text


def test_links_need_files(tmp_path):
    config = types.SimpleNamespace(dataset="digits", review_links=True)
    zeros = np.zeros([2, 8, 8, 3], np.uint8)
    images = data.from_arrays(zeros, [0, 1], zeros[:0])
    experiment = types.SimpleNamespace(config=config, data=images)
    with pytest.raises(ConfigError, match="--review_links .* digits"):
        review_run(experiment)


def test_images_that_stay_in_files_are_refused():
    experiment = types.SimpleNamespace(
        config=types.SimpleNamespace(dataset="imagenet2012"), data=object()
    )
    with pytest.raises(ConfigError, match="imagenet2012 stay in their files"):
        review_run(experiment)


def test_what_somebody_answered_is_not_reset(tmp_path):
    folder = RunFolder(str(tmp_path))
    folder.save_settings(tiny(tmp_path))
    (tmp_path / "review").mkdir()
    table = tmp_path / "review" / "to_label.csv"
    table.write_text("image,guess,label\na.png,ant,bee\n")
    with pytest.raises(ConfigError, match="holds 1 labels that somebody wrote"):
        folder.reset()
    assert table.exists()
    table.write_text("image,guess,label\na.png,ant,\n")
    folder.reset()
    assert not table.exists()


def test_what_is_answered_during_a_review_is_kept(tmp_path, monkeypatch):
    """Tables of an earlier review; somebody fills one in meanwhile."""
    RunFolder(str(tmp_path)).save_settings(tiny(tmp_path))
    table = tmp_path / "review" / "labels.csv"
    table.parent.mkdir()
    text = "image,class,label\na.png,ant,bee\n"

    def pools(*_):
        table.write_text(text)
        return pool([[1.0, 0.0]], labels=[0]), pool([[1.0, 0.0]])

    monkeypatch.setattr(review, "pools", pools)
    zeros = np.zeros([2, 8, 8, 3], np.uint8)
    experiment = types.SimpleNamespace(
        config=tiny(tmp_path),
        data=data.from_arrays(zeros, [0, 1], zeros[:0]),
        folder=RunFolder(str(tmp_path)),
        trained_learner=lambda: None,
    )
    with pytest.raises(ConfigError, match="holds 1 labels that somebody wrote"):
        review_run(experiment)
    assert table.read_text() == text
    assert [path.name for path in table.parent.iterdir()] == ["labels.csv"]


def test_a_network_that_says_no_numbers_is_not_reviewed(tmp_path, monkeypatch):
    def look(network, images, spec, *, batch_size):
        return np.full([len(images), 2], np.nan), np.zeros([len(images), 3])

    monkeypatch.setattr(review_tables.review, "look", look)
    zeros = np.zeros([2, 8, 8, 3], np.uint8)
    images = data.from_arrays(zeros, [0, 1], zeros[:0])
    learner = types.SimpleNamespace(
        finished_student=lambda: types.SimpleNamespace(name="student"),
        teacher_type=lambda config: None,
    )
    config = tiny(tmp_path, progress=False)
    with pytest.raises(ConfigError, match="student predicts no finite"):
        review_tables.pools(learner, config, images)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_a_run_is_reviewed_and_its_answers_are_learned_from(tmp_path):
    write_folders(tmp_path)
    config = tiny(
        tmp_path / "run",
        **run_settings(tmp_path, tested=True),
        num_labeled=0,
        method="mpl",
    )
    Experiment(config).train()
    reviewed = dataclasses.replace(
        config, task_mode="review", review_images=2, review_links=True
    )
    folder = tmp_path / "run" / "review"
    one = tmp_path / "labeled" / "ant" / "0.png"
    one.rename(tmp_path / "gone.png")
    review_run(Experiment(reviewed))
    assert len(rows_of(folder / "labels.csv")) == 5
    (tmp_path / "gone.png").rename(one)
    text = review_run(Experiment(reviewed))
    assert str(folder) in text
    labels = rows_of(folder / "labels.csv")
    assert len(labels) == 6 and {row["part"] for row in labels} == {"labeled"}
    doubt = [float(row["doubt"]) for row in labels]
    assert doubt == sorted(doubt, reverse=True)
    to_label = rows_of(folder / "to_label.csv")
    assert len(to_label) == 2
    assert len(rows_of(folder / "pseudo_labels.csv")) == 4
    links = [path.readlink() for path in (folder / "links").rglob("*.*")]
    assert len(links) == 8 and all(path.is_file() for path in links)
    assert len(list(folder.glob("*.png"))) == 3
    summary = json.loads((folder / "review.json").read_text())
    assert summary["rows"]["to_label.csv"] == 2 and summary["step"] == 4

    answers = tmp_path / "answers.csv"
    (folder / "to_label.csv").rename(answers)
    lines = answers.read_text().splitlines()
    lines[1] += "cow"
    answers.write_text("\n".join(lines) + "\n")
    again = dataclasses.replace(
        config,
        output_dir=str(tmp_path / "again"),
        labels_csv=str(answers),
    )
    experiment = Experiment(again)
    assert len(experiment.data.labeled_images) == 7
    experiment.train()
    saved = json.loads((tmp_path / "again" / "labeled.json").read_text())
    assert [label for _, label in saved["answered"]] == [2]

    # Nobody's answers are written over, nor changed behind a run's back.
    (folder / "labels.csv").write_text(answers.read_text())
    with pytest.raises(ConfigError, match="holds 1 labels .* --labels_csv"):
        review_run(Experiment(reviewed))
    answers.write_text(answers.read_text().replace("cow", "bee"))
    with pytest.raises(ConfigError, match="names other labeled images"):
        Experiment(again).train()
