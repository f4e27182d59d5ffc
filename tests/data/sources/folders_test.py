import os
import shutil
import tarfile
import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data.images.resizing import square_image
from meta_pseudo_labels.data.sources import folders as folders_source
from tests.tiny_folders import load, shades


def test_classes_are_the_sorted_folders(folders, logged):
    got = load(folders)
    assert shades(got.labeled_images) == [0, 1, 10, 11, 20, 21]
    assert got.labeled_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert got.labeled_indices.tolist() == [*range(6)]
    assert got.spec.class_names == ("ant", "bee", "cow")
    assert (got.spec.name, got.spec.num_classes) == ("folders", 3)
    assert got.skipped == ()
    # "a/b/c.png" < "a/z.png" < "b.png" < "c.dat": kinds are told by bytes.
    assert shades(got.unlabeled_images) == [202, 201, 200, 203]


@pytest.mark.parametrize("where", ["labeled", "eval"])
def test_a_class_that_may_be_a_recycle_bin_is_asked_about(folders, where):
    """Waste is sorted into such classes; it would be left out."""
    os.rename(folders / where / "ant", folders / where / "Recycled")
    with pytest.raises(ValueError, match=f"{where} holds 'Recycled', as Wind"):
        load(folders)


def test_a_class_may_be_missing_in_the_test(folders, logged):
    got = load(folders)
    assert shades(got.test_images) == [100, 102]
    assert got.test_labels.tolist() == [0, 2]
    assert len(logged) == 1
    assert "eval has no usable image of 1 of 3 classes: bee." in logged[0]


@pytest.mark.parametrize(
    "change", ["rmtree", "empty", "spoil"], ids=lambda name: name
)
def test_classes_that_cannot_be_tested_are_named(folders, logged, change):
    """Whether there is no folder, no file in it or none that can be used."""
    dict(rmtree=remove, empty=empty, spoil=spoil)[change]("eval/ant")(folders)
    assert load(folders).test_labels.tolist() == [2]
    assert "no usable image of 2 of 3 classes: ant, bee." in logged[-1]


@pytest.mark.parametrize(
    "unlabeled", ["", "eval", "eval/ant", "link", "unlabeled/../eval"]
)
def test_test_images_are_not_learned_from(folders, unlabeled):
    (folders / "link").symlink_to(folders / "eval")
    with pytest.raises(ValueError, match="eval share files, so test"):
        load(folders, unlabeled_dir=folders / unlabeled)
    # Names that begin alike are no such thing.
    os.rename(folders / "unlabeled", folders / "eval2")
    got = load(folders, unlabeled_dir=folders / "eval2")
    assert len(got.unlabeled_images) == 4


@pytest.mark.parametrize("where", ["labeled", "unlabeled/../labeled", "link"])
def test_test_images_are_no_labeled_ones(folders, where):
    (folders / "link").symlink_to(folders / "labeled")
    with pytest.raises(ValueError, match="labeled_dir .* share files, so test"):
        load(folders, eval_dir=folders / where)


def test_order_does_not_depend_on_the_file_system(folders, monkeypatch):
    want = load(folders)
    scan = os.scandir

    class Reversed:
        def __init__(self, folder):
            self.entries = sorted(scan(folder), key=lambda e: e.name)[::-1]

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    got = load(folders)
    assert shades(got.labeled_images) == shades(want.labeled_images)
    assert shades(got.unlabeled_images) == shades(want.unlabeled_images)


def test_images_that_lose_their_label_are_unlabeled(folders):
    got = load(folders, num_labeled=3)
    assert got.labeled_labels.tolist() == [0, 1, 2]
    assert shades(got.labeled_images) == [
        [0, 1, 10, 11, 20, 21][place] for place in got.labeled_indices
    ]
    others = {0, 1, 10, 11, 20, 21} - set(shades(got.labeled_images))
    assert shades(got.unlabeled_images) == [202, 201, 200, 203, *sorted(others)]


def test_the_labeled_folder_is_enough(folders):
    got = load(folders, unlabeled_dir=None, eval_dir=None, num_labeled=3)
    assert len(got.labeled_images) == len(got.unlabeled_images) == 3
    assert got.test_images.shape == (0, 8, 8, 3)
    whole = load(folders, unlabeled_dir=None, eval_dir=None)
    assert whole.unlabeled_images.shape == (0, 8, 8, 3)


def test_mean_and_deviation_are_those_of_the_training_images(folders):
    for num_labeled in (None, 3):
        spec = load(folders, num_labeled=num_labeled).spec
        levels = np.array([0, 1, 10, 11, 20, 21, 200, 201, 202, 203]) / 255
        np.testing.assert_allclose(spec.mean, [levels.mean()] * 3)
        np.testing.assert_allclose(spec.std, [levels.std()] * 3)


def test_images_are_scaled_and_cropped(folders):
    wide = np.zeros([10, 30, 3], np.uint8)
    wide[:, 10:20] = 255  # The central square.
    path = folders / "labeled" / "ant" / "0.png"
    path.write_bytes(tf.io.encode_png(wide).numpy())
    got = load(folders, image_size=5)
    assert got.labeled_images.shape == (6, 5, 5, 3)
    assert got.labeled_images[0].min() == 255
    assert got.spec.image_size == 5


def test_images_may_keep_their_margins(folders):
    wide = np.zeros([10, 30, 3], np.uint8)
    wide[:, 10:20] = 255
    path = folders / "labeled" / "ant" / "0.png"
    path.write_bytes(tf.io.encode_png(wide).numpy())
    for fit in ("pad", "squash"):
        got = load(folders, image_size=6, image_fit=fit)
        want = square_image(wide, 6, fit)
        np.testing.assert_array_equal(got.labeled_images[0], want)
        assert got.spec.image_fit == fit
        assert want[3].min() < 10 and want[3].max() > 230
        assert (want[0] == 128).all() == (fit == "pad")


def test_test_images_have_the_margins_of_those_that_are_learned(folders):
    wide = np.full([10, 30, 3], 255, np.uint8)
    path = folders / "eval" / "ant" / "0.png"
    path.write_bytes(tf.io.encode_png(wide).numpy())
    images, _, _ = folders_source.load_test(
        folders / "eval",
        ["ant", "bee", "cow"],
        image_size=6,
        image_fit="pad",
        background=0,
    )
    np.testing.assert_array_equal(images[0], square_image(wide, 6, "pad", 0))
    assert images[0, 0].max() == 0


def test_flip_is_a_setting(folders):
    assert load(folders).spec.flip
    assert not load(folders, flip=False).spec.flip


def remove(*names):
    return lambda folders: [shutil.rmtree(folders / name) for name in names]


def empty(name):
    def change(folders):
        shutil.rmtree(folders / name)
        (folders / name).mkdir()

    return change


def alone(name):
    """Only this class folder is left, of labeled and of test images."""

    def change(folders):
        for place in ("labeled", "eval"):
            for other in (folders / place).iterdir():
                if other.name != name:
                    shutil.rmtree(other)

    return change


def add(name):
    return lambda folders: (
        (folders / name).parent.mkdir(exist_ok=True),
        (folders / name).write_bytes(b"no image"),
    )


def spoil(name):
    def change(folders):
        for path in (folders / name).rglob("*.*"):
            path.write_bytes(b"no image")

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (remove("labeled"), "labeled cannot be read: No such file or dir"),
        (remove("unlabeled"), "unlabeled cannot be read: No such file"),
        (remove("eval"), "eval cannot be read: No such file"),
        (empty("labeled"), "labeled holds no folders; make one per class"),
        (empty("eval"), "eval holds no folders"),
        (empty("unlabeled"), "unlabeled holds no usable image"),
        (alone("ant"), "labeled holds one class folder only, 'ant'.*too high"),
        (empty("labeled/bee"), "leaves no labeled image of bee;"),
        (spoil("labeled/bee"), "leaves no labeled image of bee;"),
        (spoil("labeled"), "labeled holds no usable image"),
        (spoil("unlabeled"), "unlabeled holds no usable image"),
        (spoil("eval"), "eval holds no usable image"),
        (add("labeled/a.txt"), "holds files beside .* 'a.txt' first of 1"),
        (add("eval/a.txt"), "eval holds files beside its class folders"),
        (add("eval/dog/1.png"), "has the class 'dog', .* ant, bee, cow"),
    ],
)
def test_folders_that_are_laid_out_otherwise(folders, logged, change, message):
    change(folders)
    with pytest.raises(ValueError, match=message):
        load(folders)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(image_size=None), "image_size is None; images of .* may differ"),
        (dict(image_size=0), "image_size is 0"),
        (dict(labeled_dir=None), "labeled_dir is None; name the folder"),
        (dict(num_labeled=9), "rarest class has 2; give at most 6"),
        (
            dict(num_labeled=2, label_subset="first"),
            "label_subset 'first' leaves no labeled image of bee, cow;",
        ),
    ],
)
def test_settings_that_cannot_be(folders, settings, message):
    with pytest.raises(ValueError, match=message):
        load(folders, **settings)


def test_memory_that_cannot_be_had(folders):
    with pytest.raises(ValueError, match="6 images of .* GB .* make it small"):
        load(folders, image_size=2_000_000)


def test_folders_for_another_data_set_are_refused(folders):
    with pytest.raises(ValueError, match="eval_dir is given, but .* 'digits'"):
        data.load("digits", num_labeled=40, seed=0, eval_dir=folders / "eval")


def test_folders_of_real_images(data_dir, tmp_path):
    with tarfile.open(data_dir / "imagefolder.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    root = tmp_path / "imagefolder"
    got = load(root, eval_dir=root / "test", image_size=32)
    assert np.bincount(got.labeled_labels).tolist() == [20] * 10
    assert np.bincount(got.test_labels).tolist() == [30] * 10
    assert got.unlabeled_images.shape == (600, 32, 32, 3)
    first = sorted((root / "unlabeled").iterdir())[0].read_bytes()
    want = tf.io.decode_jpeg(first, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(got.unlabeled_images[0], want)
    batch = next(
        iter(
            data.training_dataset(
                got, batch_size=4, unlabeled_ratio=2, magnitude=5, seed=0
            )
        )
    )
    assert batch["strong"].shape == (8, 32, 32, 3)


def test_names_that_unicode_composes_otherwise_are_one_class(folders, logged):
    """A Mac decomposes names of files; the paths stay as they are."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for part, name in (
        ("labeled/ant", f"labeled/{decomposed}"),
        ("labeled/bee", f"labeled/{composed}"),
        ("eval/ant", f"eval/{decomposed}"),
    ):
        os.rename(folders / part, folders / name)
    got = load(folders)
    assert got.spec.class_names == (composed, "cow")
    assert shades(got.labeled_images) == [0, 1, 10, 11, 20, 21]
    assert got.labeled_labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert got.test_labels.tolist() == [0, 1]
    # A network of old may know the other form.
    images, labels, _ = folders_source.load_test(
        folders / "eval", (decomposed, "cow"), image_size=8
    )
    assert shades(images) == [100, 102] and labels.tolist() == [0, 1]


def test_names_that_only_look_equal_are_told_apart(folders):
    """By a blank, or one that does not break."""
    os.rename(folders / "labeled" / "ant", folders / "labeled" / "a nt ")
    os.rename(folders / "eval" / "ant", folders / "eval" / "a\u00a0nt")
    with pytest.raises(ValueError, match=r"'a\\xa0nt'.* have 'a nt ', bee"):
        load(folders)


def test_hangul_and_vietnamese_are_one_class_too(folders):
    """Of more than one mark, and of another script."""
    for name in ("\ud55c\uae00", "Vi\u1ec7t"):
        other = unicodedata.normalize("NFD", name)
        assert other != name
        for kept in (name, other):
            shutil.copytree(
                folders / "labeled" / "ant", folders / "labeled" / kept
            )
    got = load(folders)
    assert got.spec.class_names == tuple(
        sorted(["ant", "bee", "cow", "Vi\u1ec7t", "\ud55c\uae00"])
    )
    assert np.bincount(got.labeled_labels).tolist() == [4, 2, 2, 2, 4]
