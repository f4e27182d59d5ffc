"""Which images a run's networks are evaluated on, and that they fit."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.run import test_images
from meta_pseudo_labels.run.data import load_data
from meta_pseudo_labels.run.test_images import (
    evaluation_source,
    results_folder,
    validation_source,
)
from meta_pseudo_labels.utils.settings import ConfigError
from tests import tiny_folders
from tests.tiny_run import tiny


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", num_labeled=40, seed=0)


def evaluating(folder, **settings):
    return tiny(folder, task_mode="eval", **settings)


def all_of(dataset):
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_the_runs_own_test_images(tmp_path, digits):
    config = evaluating(tmp_path)
    source = evaluation_source(config, digits)
    assert source.name == "the test images of digits"
    pixels, labels = all_of(source.pixel_batches(200))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, digits.test_images)
    np.testing.assert_array_equal(labels, digits.test_labels)
    images, _ = all_of(source.batches(200))
    np.testing.assert_allclose(
        images,
        data.normalize(pixels, mean=digits.spec.mean, std=digits.spec.std),
    )
    assert results_folder(config) == str(tmp_path)
    assert validation_source(config, digits) is None


def test_the_held_out_images(tmp_path, digits):
    held = data.hold_out(digits, 10, seed=0, part="validation")
    source = validation_source(evaluating(tmp_path, num_validation=10), held)
    pixels, labels = all_of(source.pixel_batches(4))
    np.testing.assert_array_equal(pixels, held.validation_images)
    np.testing.assert_array_equal(labels, held.validation_labels)


def test_every_level_of_gray_comes_back(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape([4, 8, 8, 1])
    images = np.repeat(levels, 3, axis=-1)
    labels = np.zeros(4, np.int32)
    problem = data.from_arrays(
        images, labels, images, test_images=images, test_labels=labels
    )
    source = evaluation_source(evaluating(tmp_path), problem)
    pixels, _ = all_of(source.pixel_batches(3))
    np.testing.assert_array_equal(pixels, images)


def test_a_folder_for_a_run_on_another_data_set(tmp_path, digits):
    """Its folders are named as the run's classes; normalized as the run."""
    folder = tmp_path / "new"
    for name, shade in (("7", 70), ("0", 10), ("9", 90)):
        tiny_folders.write(folder / name / "a.png", shade, size=(20, 10))
    config = evaluating(
        tmp_path / "run", eval_dataset="folders", eval_dir=str(folder)
    )
    assert len(load_data(config).test_images) == 500  # The run's own.
    source = evaluation_source(config, digits)
    pixels, labels = all_of(source.pixel_batches(2))
    assert labels.tolist() == [0, 7, 9]
    assert tiny_folders.shades(pixels) == [10, 70, 90]
    assert pixels.shape == (3, 8, 8, 3)
    images, _ = all_of(source.batches(2))
    mean, std = digits.spec.mean[0], digits.spec.std[0]
    np.testing.assert_allclose(
        images[1, 0, 0, 0], (70 / 255 - mean) / std, rtol=1e-5
    )
    place = results_folder(config)
    assert place.startswith(f"{tmp_path}/run/eval_sources/folders_new-")
    # Another folder of that name has a place of its own.
    other = dataclasses.replace(config, eval_dir=f"{tmp_path}/b/new")
    assert results_folder(other) != place
    assert os.path.dirname(results_folder(other)) == os.path.dirname(place)


def test_a_folder_of_images_that_are_learned_from(tmp_path, digits, caplog):
    """A look at them may be meant; a line tells how many."""
    for name, image in (
        ("learned", digits.labeled_images[0]),
        ("too", digits.unlabeled_images[7]),
        ("tested", digits.test_images[0]),
    ):
        path = tmp_path / "new" / "5" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(image).numpy())
    config = evaluating(
        tmp_path, eval_dataset="folders", eval_dir=str(tmp_path / "new")
    )
    evaluation_source(config, digits)
    assert f"2 of the images in {tmp_path}/new are also trained" in caplog.text


def test_folders_of_other_classes_are_refused(tmp_path, digits):
    tiny_folders.write_folders(tmp_path)
    config = evaluating(
        tmp_path, eval_dataset="folders", eval_dir=str(tmp_path / "eval")
    )
    with pytest.raises(ConfigError, match="has the class 'ant', which the net"):
        evaluation_source(config, digits)


def test_a_broken_file_is_named_or_stops_it(tmp_path, digits):
    for name in ("1", "2"):
        tiny_folders.write(tmp_path / "new" / name / "a.png", 5)
    (tmp_path / "new" / "2" / "b.png").write_bytes(b"no image")
    settings = dict(eval_dataset="folders", eval_dir=str(tmp_path / "new"))
    source = evaluation_source(evaluating(tmp_path, **settings), digits)
    assert source.skipped == ("2/b.png",)
    assert len(source.images) == 2
    strict = evaluating(tmp_path, strict_data=True, **settings)
    with pytest.raises(ConfigError, match="b.png"):
        evaluation_source(strict, digits)


@pytest.fixture
def other(digits, monkeypatch):
    """Makes another data set be found, of digits under other names."""

    def found(class_names, *, num_classes=10, labels=None):
        spec = dataclasses.replace(
            digits.spec,
            name="others",
            mean=(0.1,) * 3,
            num_classes=num_classes,
            class_names=tuple(class_names),
        )
        problem = dataclasses.replace(
            digits,
            spec=spec,
            labeled_labels=digits.labeled_labels % num_classes,
            test_labels=digits.test_labels % num_classes,
        )
        asked = {}

        def load(name, **settings):
            asked.update(settings, name=name)
            return problem

        monkeypatch.setattr(test_images, "load", load)
        return problem, asked

    return found


def test_another_data_set_by_the_names_of_its_classes(tmp_path, digits, other):
    """Here they stand in another order, and so are other numbers."""
    problem, asked = other("1234567890")
    config = evaluating(
        tmp_path, eval_dataset="tfds:some/set", eval_data_dir="/sets"
    )
    source = evaluation_source(config, digits)
    _, labels = all_of(source.batches(300))
    np.testing.assert_array_equal(labels, (problem.test_labels + 1) % 10)
    assert source.spec == digits.spec  # Of which mean and std count.
    assert asked["name"] == "tfds:some/set"
    assert (asked["data_dir"], asked["image_size"]) == ("/sets", 8)
    place = results_folder(config)
    assert place.startswith(f"{tmp_path}/eval_sources/tfds_some_set_sets-")
    # Another copy has a place of its own.
    elsewhere = dataclasses.replace(config, eval_data_dir="/more/sets")
    assert results_folder(elsewhere) not in (place, config.output_dir)
    usual = dataclasses.replace(config, eval_data_dir=None)
    assert results_folder(usual) == f"{tmp_path}/eval_sources/tfds_some_set"


def test_fewer_classes_will_do(tmp_path, digits, other):
    other(("3", "5"), num_classes=2)
    config = evaluating(tmp_path, eval_dataset="tfds:x", data_dir="/all")
    source = evaluation_source(config, digits)
    assert source.numbers == (3, 5)


def test_classes_without_names_are_told_by_their_number(
    tmp_path, digits, other
):
    config = evaluating(tmp_path, eval_dataset="tfds:x")
    other(())
    assert evaluation_source(config, digits).numbers is None
    other((), num_classes=9)
    with pytest.raises(ConfigError, match="has 9 classes and the run 10"):
        evaluation_source(config, digits)


def test_another_data_set_of_other_classes_is_refused(tmp_path, digits, other):
    other(("1", "2", "cat"), num_classes=3)
    config = evaluating(tmp_path, eval_dataset="tfds:x")
    with pytest.raises(ConfigError, match="'cat', which the run's networks"):
        evaluation_source(config, digits)


def test_data_that_is_not_there_is_named(tmp_path, digits):
    config = evaluating(tmp_path, eval_dataset="mnist")
    with pytest.raises(ConfigError, match="unknown data set 'mnist'"):
        evaluation_source(config, digits)
    empty = dataclasses.replace(
        digits, test_images=digits.test_images[:0], test_labels=np.int32([])
    )
    with pytest.raises(ConfigError, match="has no test images"):
        evaluation_source(evaluating(tmp_path), empty)


@pytest.mark.long
def test_records_in_files_are_a_source_too(tmp_path, data_dir):
    images = data.load(
        "imagenet2012",
        num_labeled=None,
        seed=0,
        image_size=16,
        data_dir=str(data_dir / "imagenet_mini"),
    )
    source = evaluation_source(evaluating(tmp_path), images)
    pixels, labels = all_of(source.pixel_batches(8))
    normal, same_labels = all_of(source.batches(8))
    assert pixels.shape == (20, 16, 16, 3)
    np.testing.assert_array_equal(labels, same_labels)
    np.testing.assert_allclose(
        normal,
        data.normalize(
            tf.constant(pixels), mean=images.spec.mean, std=images.spec.std
        ),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            dict(task_mode="train", eval_dataset="digits"),
            "for `mpl eval`",
        ),
        (dict(task_mode="finetune", saved_model="x"), "for `mpl eval`"),
        (dict(eval_data_dir="x"), "needs an --eval_dataset"),
        (dict(eval_dataset="folders"), "needs --eval_dir"),
        (dict(eval_dir="x"), "say --eval_dataset=folders"),
        (dict(eval_dir="x", eval_dataset="svhn_cropped"), "are those of svhn"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        tiny(tmp_path, **dict(task_mode="eval") | settings)
