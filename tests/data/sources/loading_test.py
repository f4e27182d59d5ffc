"""Data sets by name, those of users among them."""

import functools
import sys

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data.images.resizing import square_image
from meta_pseudo_labels.data.preparation import description, prepare_encoded
from meta_pseudo_labels.data.sources import SOURCES
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.data import load_data
from meta_pseudo_labels.utils.settings import ConfigError

MODULE = """
import numpy as np

from meta_pseudo_labels import data
from meta_pseudo_labels.data.sources import SOURCES, Source


@SOURCES.register("shades")
class Shades(Source):
    def load(self, num_labeled, seed, data_dir):
        levels = np.arange(num_labeled, dtype=np.uint8)[:, None, None, None]
        images = np.broadcast_to(levels, [num_labeled, 8, 8, 3]) + int(data_dir)
        return data.from_arrays(
            images.astype(np.uint8),
            np.arange(num_labeled) % 2,
            images[:0].astype(np.uint8),
        )


@SOURCES.register("all/<what>")
class All(Source):
    hint = "for all of it"

    def matches(self, name):
        return name.startswith("all/")

    def load(self, **settings):
        assert settings.pop("name") == "all/of it"
        assert settings["labeled_dir"] == "there"
        return data.load("shades", num_labeled=2, seed=0, data_dir="1")
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A module that registers sources, which are forgotten afterwards."""
    (tmp_path / "my_sources.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    SOURCES.discover()
    monkeypatch.setattr(SOURCES, "_found", SOURCES.registered)
    yield "my_sources"
    sys.modules.pop("my_sources", None)


def test_a_source_of_ones_own_is_a_data_set_of_a_run(plugin):
    config = Config(
        plugins=plugin, dataset="shades", num_labeled=6, data_dir="9"
    )
    images = load_data(config)
    assert images.labeled_images[:, 0, 0, 0].tolist() == list(range(9, 15))
    assert (images.label_subset, images.seed) == ("balanced", config.seed)
    assert images.spec.flip
    given = data.load("shades", num_labeled=6, seed=1, flip=False, data_dir="0")
    assert not given.spec.flip


def test_its_pictures_are_prepared_as_those_of_folders(plugin):
    __import__(plugin)
    spec = data.load("shades", num_labeled=2, seed=0, data_dir="0").spec
    picture = np.random.default_rng(0).integers(0, 256, [12, 20, 3], np.uint8)
    prepared = prepare_encoded(tf.io.encode_png(picture), spec)
    np.testing.assert_array_equal(prepared, square_image(picture, 8))
    assert description(spec).startswith("short side scaled")


def test_pictures_that_are_not_square_become_so_as_is_said(plugin):
    __import__(plugin)
    load = functools.partial(
        data.load, "shades", num_labeled=2, seed=0, data_dir="0"
    )
    picture = np.random.default_rng(0).integers(0, 256, [12, 20, 3], np.uint8)
    for fit, text in (("pad", "long side scaled"), ("squash", "each side")):
        spec = load(image_fit=fit).spec
        np.testing.assert_array_equal(
            prepare_encoded(tf.io.encode_png(picture), spec),
            square_image(picture, 8, fit),
        )
        assert description(spec).startswith(text)
    with pytest.raises(ValueError, match="image_fit is 'stretch'; choose one"):
        load(image_fit="stretch")


def test_a_source_gets_the_settings_that_it_names(plugin):
    __import__(plugin)
    with pytest.raises(ValueError, match="eval_dir is given, but .*'shades'"):
        data.load("shades", num_labeled=2, seed=0, eval_dir="there")
    images = data.load("all/of it", num_labeled=2, seed=0, labeled_dir="there")
    assert images.labeled_images.min() == 1
    # As --eval_dataset asks for the size of the run.
    data.load("shades", num_labeled=2, seed=0, data_dir="0", image_size=8)
    for key, value in (("image_size", 16), ("label_subset", "labeled.json")):
        with pytest.raises(ValueError, match=f"{key} is .*'shades' does not r"):
            data.load(
                "shades", num_labeled=2, seed=0, data_dir="0", **{key: value}
            )


def test_a_source_of_arrays_prepares_pictures_itself(plugin, monkeypatch):
    """Its images have its name, not that of arrays, which nobody prepares."""
    __import__(plugin)

    def white(self, images, spec):
        del self, images
        return tf.fill([1, spec.image_size, spec.image_size, 3], tf.uint8.max)

    monkeypatch.setattr(SOURCES["shades"], "prepare", white)
    spec = data.load("shades", num_labeled=2, seed=0, data_dir="0").spec
    assert spec.name == "shades"
    picture = tf.io.encode_png(np.zeros([12, 20, 3], np.uint8))
    assert prepare_encoded(picture, spec).numpy().min() == 255


def test_an_unknown_name_is_told_of_those_that_there_are(plugin):
    with pytest.raises(ConfigError, match="unknown data set 'shades'"):
        Config(dataset="shades")
    with pytest.raises(ConfigError) as refusal:
        Config(dataset="shade", plugins=plugin)
    assert str(refusal.value) == (
        "--dataset=shade: unknown data set 'shade' (did you mean shades?); "
        "choose one of cifar10, cifar100, digits, folders, imagenet2012, "
        "imagenet2012_subset, shades, svhn_cropped, or tfds:<name> for "
        "another set that TensorFlow Datasets prepared, or all/<what> for "
        "all of it."
    )
