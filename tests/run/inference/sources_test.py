"""Images of files, records and TFDS sets, prepared as in evaluation."""

import dataclasses
import functools
import io
import os
import tarfile
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from meta_pseudo_labels import data
from meta_pseudo_labels.data.images.headers import ImageError
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.inference import sources
from meta_pseudo_labels.run.inference.sources import open_source
from tests import jpeg_records
from tests.tiny_folders import load, write, write_folders


def sourced(images, **settings):
    """What is read of all images, their names, and reasons by name."""
    source = open_source(Config(task_mode="inference", **settings), images)
    numbers = np.arange(len(source))
    names = [source.name(number) for number in numbers]
    pixels, reasons = source.read(numbers)
    return pixels, names, {names[place]: why for place, why in reasons.items()}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A folder with images 0 to 4 in two files, and a run to test on them."""
    folder = tmp_path_factory.mktemp("records")
    jpeg_records.write_split(folder, "validation", [3, 2])
    jpeg_records.write_split(folder, "train", [3], first=5)
    images = data.load(
        "imagenet2012",
        num_labeled=None,
        seed=0,
        image_size=8,
        data_dir=str(folder),
    )
    return folder, images


@pytest.mark.long
def test_a_run_s_records_are_those_of_evaluation(records):
    _, images = records
    pixels, names, reasons = sourced(images, inference_data="test")
    spec = images.spec
    batches = data.evaluation_dataset(
        images.test_images, None, spec=spec, batch_size=5
    )
    ((want, _),) = batches
    shown = data.normalize(pixels, mean=spec.mean, std=spec.std)
    np.testing.assert_array_equal(shown, want)
    assert names == [f"test/{i}" for i in range(5)]
    assert reasons == {}


@pytest.mark.long
def test_records_of_a_folder_in_any_order(records):
    """Read by number: what a process takes need not lie side by side."""
    folder, images = records
    config = Config(
        task_mode="inference",
        inference_data="records",
        inference_dir=str(folder / "validation-*"),
    )
    source = open_source(config, images)
    pixels, _ = source.read(np.array([4, 0, 2]))
    shades = pixels[:, 0, 0, 0] / jpeg_records.SHADE
    assert shades.round().tolist() == [4, 0, 2]
    assert source.name(4) == "validation-00001-of-00002/1"


@pytest.mark.long
def test_damaged_records_are_named_and_the_others_read(records, tmp_path):
    _, images = records
    (tmp_path / "a").mkdir()
    jpeg_records.write_split(tmp_path / "a", "train", [3])
    jpeg_records.damage(tmp_path / "a" / "train-00000-of-00001", 1)
    png = tf.io.encode_png(tf.fill([20, 9, 3], tf.constant(70, tf.uint8)))
    others = [
        jpeg_records.example(png.numpy()),
        jpeg_records.example(b"no image"),
        jpeg_records.example(label=3),
    ]
    jpeg_records.write(tmp_path / "more", others)
    pixels, names, reasons = sourced(
        images, inference_data="records", inference_dir=str(tmp_path)
    )
    damaged = "a/train-00000-of-00001/1"
    assert names[1] == damaged
    assert names[3:] == ["more/0", "more/1", "more/2"]
    assert list(reasons) == [damaged, "more/1", "more/2"]
    assert "corrupted record" in reasons[damaged]
    assert "not one of JPEG" in reasons["more/1"]
    assert "image/encoded" in reasons["more/2"]
    assert pixels[3].tolist() == np.full([8, 8, 3], 70).tolist()
    assert not pixels[1].any()


def test_what_is_no_record_file_is_refused(records, tmp_path):
    _, images = records
    records = dict(inference_data="records")
    for name in ("notes.txt", "notes"):
        text = tmp_path / name
        text.write_text("no records, but text of some length")
        with pytest.raises(ValueError, match=f"{name} ends within record 0"):
            sourced(images, inference_dir=str(text), **records)
    with pytest.raises(ValueError, match="notes ends within record 0"):
        sourced(images, inference_dir=str(tmp_path), **records)
    text.unlink()
    with pytest.raises(ValueError, match="no files of records; put TFRecord"):
        sourced(images, inference_dir=str(tmp_path), **records)


def test_texts_beside_records_are_passed_over(tmp_path, logged):
    """As in a folder that TensorFlow Datasets prepared."""
    write_folders(tmp_path)
    images = load(tmp_path)
    folder = tmp_path / "sets" / "1.0.0"
    folder.mkdir(parents=True)
    path = folder / "x-test.tfrecord-00000-of-00001"
    jpeg_records.write(path, [jpeg_records.example(jpeg_records.jpeg(7))])
    for name in ("dataset_info.json", "label.labels.TXT"):
        (folder / name).write_text("{}")
    for place in (tmp_path / "sets", folder / "*"):
        logged.clear()
        _, (name,), _ = sourced(
            images, inference_data="records", inference_dir=str(place)
        )
        assert name.endswith("x-test.tfrecord-00000-of-00001/0")
        (line,) = logged
        assert line.startswith(f"{place}: passed over 2 files of text: ")
        assert line.endswith("1.0.0/label.labels.TXT.")
        assert "dataset_info.json, " in line


def test_files_of_a_folder_are_those_of_its_evaluation(tmp_path):
    """Of pictures of another shape than the model's too."""
    write_folders(tmp_path)
    wide = tf.random.stateless_uniform(
        [30, 70, 3], [0, 1], maxval=256, dtype=tf.int32
    )
    encoded = tf.io.encode_jpeg(tf.cast(wide, tf.uint8))
    (tmp_path / "eval" / "ant" / "wide.jpg").write_bytes(encoded.numpy())
    images = load(tmp_path)
    pixels, names, reasons = sourced(
        images, inference_dir=str(tmp_path / "eval")
    )
    assert names == ["ant/0.png", "ant/wide.jpg", "cow/0.png"]
    np.testing.assert_array_equal(pixels, images.test_images)
    assert reasons == {}


def test_an_empty_folder_is_refused(tmp_path):
    write_folders(tmp_path)
    (tmp_path / "none").mkdir()
    images = load(tmp_path)
    for kind, words in (("folder", "put images"), ("records", "put TFRecord")):
        with pytest.raises(ValueError, match=words):
            sourced(
                images,
                inference_data=kind,
                inference_dir=str(tmp_path / "none"),
            )


def test_other_images_have_another_digest(tmp_path):
    write_folders(tmp_path)
    images = load(tmp_path)
    folder = tmp_path / "unlabeled"
    config = Config(task_mode="inference", inference_dir=str(folder))
    before = open_source(config, images).digest
    assert open_source(config, images).digest == before
    write(folder / "new.png", 1)
    assert open_source(config, images).digest != before
    config = Config(task_mode="inference", inference_data="test")
    before = open_source(config, images).digest
    fewer = dataclasses.replace(
        images,
        test_images=images.test_images[:1],
        test_labels=images.test_labels[:1],
    )
    assert open_source(config, fewer).digest != before


def test_other_records_of_the_same_lengths_have_another_digest(tmp_path):
    write_folders(tmp_path / "photos")
    images = load(tmp_path / "photos")
    path = tmp_path / "records" / "some"
    path.parent.mkdir()
    config = Config(
        task_mode="inference",
        inference_data="records",
        inference_dir=str(path.parent),
    )
    digests = []
    for second, shade in enumerate((0, 0, 200)):
        bmp = io.BytesIO()
        Image.new("RGB", (4, 4), (shade,) * 3).save(bmp, "BMP")
        jpeg_records.write(path, [jpeg_records.example(bmp.getvalue())])
        os.utime(path, (0, second // 2))  # The first two at one time.
        digests.append(open_source(config, images).digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("root", ["ram://passed/over", None])
def test_record_files_are_found_at_any_depth_and_others_reported(
    tmp_path, logged, root
):
    """In a bucket as on a disk."""
    write_folders(tmp_path)
    images = load(tmp_path)
    root = root or str(tmp_path / "records")
    for number, name in enumerate(
        ["a", "nested/b", "nested/in/c", "day1.bak", ".hidden", "lost+found/d"]
    ):
        path = f"{root}/{name}"
        tf.io.gfile.makedirs(os.path.dirname(path))
        jpeg_records.write(
            path, [jpeg_records.example(jpeg_records.jpeg(number))]
        )
    records = dict(inference_data="records")
    for folder in (root, f"{root}/"):
        logged.clear()
        pixels, names, _ = sourced(images, inference_dir=folder, **records)
        assert names == ["a/0", "nested/b/0", "nested/in/c/0"]
        assert pixels[:, 0, 0, 0].tolist() == [0, 10, 20]
        (line,) = logged
        assert "passed over 3 files or folders" in line
        assert line.endswith(": .hidden, day1.bak, lost+found.")
    logged.clear()
    _, names, _ = sourced(images, inference_dir=f"{root}/[an]*", **records)
    assert names == ["a/0"]
    (line,) = logged
    assert f"passed over 1 folders in the pattern: {root}/nested." in line
    # What its name says is a file, though it could be a pattern.
    path = f"{root}/day[1]"
    jpeg_records.write(path, [jpeg_records.example(jpeg_records.jpeg(7))])
    pixels, names, _ = sourced(images, inference_dir=path, **records)
    assert (names, pixels[0, 0, 0, 0]) == (["day[1]/0"], 70)


def test_files_of_one_name_in_several_folders_are_told_apart(tmp_path):
    write_folders(tmp_path)
    images = load(tmp_path)
    for number, name in enumerate(["one/train", "two/train", "two/more"]):
        path = tmp_path / "sets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        jpeg_records.write(
            path, [jpeg_records.example(jpeg_records.jpeg(number))]
        )
    for pattern, want in (
        ("sets/*/*", ["one/train/0", "two/more/0", "two/train/0"]),
        ("sets/*/train", ["one/train/0", "two/train/0"]),
        ("sets/two/*", ["more/0", "train/0"]),
    ):
        _, names, _ = sourced(
            images,
            inference_dir=str(tmp_path / pattern),
            inference_data="records",
        )
        assert names == want


def test_a_folder_of_a_bucket_is_its_files(tmp_path):
    write_folders(tmp_path)
    images = load(tmp_path)
    folder = "ram://bucket/records"
    jpeg_records.write(
        f"{folder}/some",
        [jpeg_records.example(jpeg_records.jpeg(k)) for k in (1, 2)],
    )
    sizes = [
        len(
            open_source(
                Config(
                    task_mode="inference",
                    inference_data="records",
                    inference_dir=place,
                ),
                images,
            )
        )
        for place in (folder, f"{folder}/*", f"{folder}/some")
    ]
    assert sizes == [2, 2, 2]


@pytest.mark.long
def test_a_prepared_set_is_as_tfds_decodes_it(data_dir):
    """Its image field holds JPEG files, which TFDS decodes the fast way."""
    import tensorflow_datasets as tfds

    root = str(data_dir / "tfds")
    spec = data.DATASETS["cifar10"]
    images = types.SimpleNamespace(spec=spec)
    config = Config(
        task_mode="inference",
        inference_data="tfds:cifar10",
        inference_dir=root,
    )
    source = open_source(config, images)
    assert len(source) == 10_000
    pixels, reasons = source.read(np.arange(0, 40, 4))
    builder = tfds.builder_from_directory(f"{root}/cifar10/3.0.2")
    first = builder.as_dataset(split="test[:40]").as_numpy_iterator()
    want = [example["image"] for example in first][::4]
    np.testing.assert_array_equal(pixels, want)
    assert reasons == {}
    assert source.name(4) == "test/4"
    for settings, words in (
        (dict(inference_split="extra"), "no split 'extra' but"),
        (dict(inference_data="tfds:mnist"), "mnist is not prepared"),
    ):
        with pytest.raises(ValueError, match=words):
            open_source(dataclasses.replace(config, **settings), images)


def test_awkward_files_are_read_or_named(data_dir, tmp_path):
    with tarfile.open(data_dir / "bad_inputs.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    spec = dataclasses.replace(data.DATASETS["digits"], image_size=8)
    images = types.SimpleNamespace(spec=spec)
    _, names, reasons = sourced(
        images, inference_dir=str(tmp_path / "bad_inputs")
    )
    read = {"animated.gif", "one_pixel.png", "rgba.png", "sixteen_bit.png"}
    assert set(names) - set(reasons) == read
    assert all("\n" not in reason for reason in reasons.values())


def test_files_of_one_call_are_as_each_alone(tmp_path):
    """Of several calls; a broken file or another kind spoils no other."""
    draws = np.random.default_rng(0)
    count = 2 * sources._AT_ONCE + 3
    for number in range(count):
        side = 20 + 7 * number
        pixels = draws.integers(0, 256, [side, 90, 3], np.uint8)
        encode = tf.io.encode_png if number % 3 else tf.io.encode_jpeg
        encoded = encode(pixels).numpy()
        (tmp_path / f"{number:02d}.img").write_bytes(encoded)
    broken = sources._AT_ONCE + 1
    path = tmp_path / f"{broken:02d}.img"
    path.write_bytes(path.read_bytes()[:90])
    Image.new("RGB", (40, 30), "red").save(tmp_path / "00.img", format="GIF")
    images = types.SimpleNamespace(spec=data.DATASETS["cifar10"])
    config = Config(task_mode="inference", inference_dir=str(tmp_path))
    source = open_source(config, images)
    pixels, reasons = source.read(np.arange(count))
    assert list(reasons) == [broken]
    assert source.read(np.array([broken]))[1] == {0: reasons[broken]}
    assert pixels[0, 0, 0].tolist() == [255, 0, 0]
    for number in range(count):
        (alone,), _ = source.read(np.array([number]))
        np.testing.assert_array_equal(pixels[number], alone)
        assert alone.any() == (number != broken)


@pytest.mark.parametrize("name", ["imagenet2012", "cifar10", "folders"])
@pytest.mark.parametrize("side", [32, 40])
def test_all_kinds_of_files_are_prepared_alike(tmp_path, name, side):
    """Also those of the model's size, of which ImageNet's center is taken."""
    spec = data.DATASETS["cifar10"]
    if name == "imagenet2012":
        spec = dataclasses.replace(data.DATASETS[name], image_size=32)
    elif name == "folders":
        spec = dataclasses.replace(spec, name=name)
    pixels = np.random.default_rng(1).integers(0, 256, [side, side, 3])
    for kind in ("PNG", "BMP", "WebP"):
        picture = Image.fromarray(pixels.astype(np.uint8))
        picture.save(tmp_path / f"a.{kind}", format=kind, lossless=True)
    images = types.SimpleNamespace(spec=spec)
    got, names, reasons = sourced(images, inference_dir=str(tmp_path))
    assert len(names) == 3 and not reasons
    for one in got[1:]:
        np.testing.assert_array_equal(one, got[0])
    as_it_is = side == 32 and name != "imagenet2012"
    assert np.array_equal(got[0], pixels) == as_it_is


def test_few_files_are_shared_out_and_each_is_loaded_once(monkeypatch):
    monkeypatch.setattr(sources, "_THREADS", 8)
    loaded, shares = [], []

    def prepare(file):
        if file == "odd":
            raise ImageError("no image")
        return np.full([32, 32, 3], 70, np.uint8)

    def prepare_all(files):
        if "odd" in files:
            raise tf.errors.InvalidArgumentError(None, None, "no image")
        return [prepare(file) for file in files]

    both = prepare, prepare_all
    monkeypatch.setattr(sources, "_preparations", lambda spec: both)

    def one(number):
        loaded.append(number)
        if number == 3:
            raise ImageError("lost")
        return "odd" if number == 5 else "even"

    source = sources.EncodedImages(
        16,
        str,
        lambda numbers: [functools.partial(one, n) for n in numbers],
        place="memory",
        digest="0",
        spec=data.DATASETS["cifar10"],
    )
    some = source._some
    monkeypatch.setattr(
        source, "_some", lambda loads: shares.append(len(loads)) or some(loads)
    )
    pixels, reasons = source.read(np.arange(16))
    assert shares == [2] * 8
    assert sorted(loaded) == list(range(16))
    assert reasons == {3: "lost", 5: "no image"}
    black = np.isin(np.arange(16), [3, 5])
    assert (pixels == np.where(black, 0, 70)[:, None, None, None]).all()
    shares.clear()
    source.read(np.zeros([65], np.int64))
    assert max(shares) == sources._AT_ONCE
