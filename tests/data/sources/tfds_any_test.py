import json

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data


def write_set(folder, features, splits, *, name="made", supervised=None):
    """Writes a prepared set as TFDS does, in two files a split.

    Args:
      features: dict of tfds features.
      splits: by name, a list of examples as dicts.
      supervised: names of the features to learn from and of, or None.
    """
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(features)
    folder = folder / name / "1.0.0"
    folder.mkdir(parents=True)
    features.save_config(str(folder))
    base = name.split("/")[0]
    entries = []
    for split, examples in splits.items():
        half = len(examples) // 2
        shards = [examples[:half], examples[half:]]
        for number, shard in enumerate(shards):
            path = folder / f"{base}-{split}.tfrecord-{number:05d}-of-00002"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for example in shard:
                    encoded = features.encode_example(example)
                    writer.write(features.serialize_example(encoded))
        entries.append(
            {
                "name": split,
                "shardLengths": [str(len(shard)) for shard in shards],
                "numBytes": "1",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-"
                "{SHARD_X_OF_Y}",
            }
        )
    info = {"name": base, "version": "1.0.0", "fileFormat": "tfrecord"}
    info["splits"] = entries
    if supervised:
        keys = [{"featureKey": key} for key in supervised]
        info["supervisedKeys"] = {"tuple": {"items": keys}}
    if "/" in name:
        info["configName"] = name.split("/")[1]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def image_feature(**settings):
    import tensorflow_datasets as tfds

    return tfds.features.Image(**dict(shape=(6, 6, 1)) | settings)


def label_feature(names=("cat", "dog")):
    import tensorflow_datasets as tfds

    return tfds.features.ClassLabel(names=names)


def examples(count, *, first=0, shape=(6, 6, 1)):
    return [
        {"image": np.full(shape, shade, np.uint8), "label": shade % 2}
        for shade in range(first, first + count)
    ]


def write_plain(folder, splits=("train", "test"), name="made", **image):
    features = {"image": image_feature(**image), "label": label_feature()}
    shape = [size or 9 for size in features["image"].shape]
    contents = {
        split: examples(8, first=10 * place, shape=shape)
        for place, split in enumerate(splits)
    }
    return write_set(folder, features, contents, name=name)


def load(folder, name="tfds:made", num_labeled=4, **settings):
    return data.load(
        name, num_labeled=num_labeled, seed=0, data_dir=folder, **settings
    )


def shades(images):
    return images[:, 0, 0, 0].tolist()


def test_facts_are_those_of_the_set(tmp_path):
    write_plain(tmp_path)
    got = load(tmp_path)
    assert (got.spec.name, got.spec.num_classes) == ("tfds:made", 2)
    assert got.spec.class_names == ("cat", "dog")
    assert got.spec.image_size == 6
    levels = np.arange(8) / 255
    np.testing.assert_allclose(got.spec.mean, [levels.mean()] * 3)
    np.testing.assert_allclose(got.spec.std, [levels.std()] * 3)
    assert got.skipped == ()


def test_images_stand_in_the_order_of_the_files(tmp_path):
    write_plain(tmp_path)
    got = load(tmp_path)
    assert shades(got.unlabeled_images) == [*range(8)]
    assert shades(got.test_images) == [*range(10, 18)]
    assert got.test_labels.tolist() == [0, 1] * 4
    assert np.bincount(got.labeled_labels).tolist() == [2, 2]
    assert shades(got.labeled_images) == got.labeled_indices.tolist()


def test_gray_becomes_rgb(tmp_path):
    write_plain(tmp_path)
    images = load(tmp_path).unlabeled_images
    assert images.shape == (8, 6, 6, 3)
    np.testing.assert_array_equal(images[5], np.full([6, 6, 3], 5))


def test_validation_stands_in_for_test(tmp_path):
    write_plain(tmp_path, splits=("validation", "train"))
    assert shades(load(tmp_path).test_images) == [*range(8)]
    write_plain(tmp_path, splits=("validation", "test", "train"), name="all")
    got = load(tmp_path, "tfds:all")
    assert shades(got.test_images) == [*range(10, 18)]


def test_images_that_differ_in_size(tmp_path):
    features = {
        "image": image_feature(shape=(None, None, 3), encoding_format="jpeg"),
        "label": label_feature(),
    }
    sizes = [(9, 5, 3), (5, 9, 3)] * 4
    contents = [
        {"image": np.full(size, 20 * place, np.uint8), "label": place % 2}
        for place, size in enumerate(sizes)
    ]
    write_set(tmp_path, features, {"train": contents, "test": contents})
    with pytest.raises(ValueError, match="not one square size; give image_si"):
        load(tmp_path)
    for size in (5, 7):
        got = load(tmp_path, image_size=size)
        assert got.spec.image_size == size
        assert got.unlabeled_images.shape == (8, size, size, 3)
        np.testing.assert_allclose(
            shades(got.unlabeled_images), [*range(0, 160, 20)], atol=1
        )


def test_images_that_are_not_square_need_a_size(tmp_path):
    write_plain(tmp_path, shape=(6, 8, 3))
    with pytest.raises(ValueError, match=r"shape \(6, 8, 3\), not one square"):
        load(tmp_path)
    assert load(tmp_path, image_size=6).test_images.shape == (8, 6, 6, 3)


def test_flip_is_a_setting(tmp_path):
    write_plain(tmp_path)
    assert load(tmp_path).spec.flip
    assert not load(tmp_path, flip=False).spec.flip


def test_large_images_are_skipped_and_named(tmp_path):
    features = {
        "image": image_feature(shape=(None, None, 1)),
        "label": label_feature(),
    }
    contents = examples(8)
    contents[3]["image"] = np.full([60, 60, 1], 3, np.uint8)
    write_set(tmp_path, features, {"train": contents, "test": examples(2)})
    settings = dict(image_size=6, max_pixels=100)
    got = load(tmp_path, **settings)
    assert got.skipped == ("train/3",)
    assert shades(got.unlabeled_images) == [0, 1, 2, 4, 5, 6, 7]
    assert shades(load(tmp_path, image_size=6).unlabeled_images) == [*range(8)]
    with pytest.raises(ValueError, match="train/3 in .*made.* is not an image"):
        load(tmp_path, strict=True, **settings)


def test_configurations_are_part_of_the_name(tmp_path):
    write_plain(tmp_path, name="made/small")
    write_plain(tmp_path, name="made/large", shape=(12, 12, 1))
    assert load(tmp_path, "tfds:made/small").spec.image_size == 6
    assert load(tmp_path, "tfds:made/large").spec.name == "tfds:made/large"
    message = f"of those prepared in {tmp_path}: made/large, made/small"
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_the_set_says_which_of_its_labels_counts(tmp_path):
    features = {
        "image": image_feature(),
        "fine": label_feature("abcd"),
        "coarse": label_feature(),
    }
    contents = [
        {"image": e["image"], "coarse": e["label"], "fine": place % 4}
        for place, e in enumerate(examples(8))
    ]
    splits = {"train": contents, "test": contents}
    write_set(tmp_path, features, splits, supervised=("image", "fine"))
    got = load(tmp_path)
    assert got.spec.class_names == tuple("abcd")
    assert got.test_labels.tolist() == [0, 1, 2, 3] * 2
    write_set(tmp_path, features, splits, name="unsaid")
    with pytest.raises(ValueError, match="2 ClassLabel .* coarse .ClassLabel"):
        load(tmp_path, "tfds:unsaid")


def test_sets_for_other_tasks_are_refused(tmp_path):
    import tensorflow_datasets as tfds

    features = {"image": image_feature(), "text": tfds.features.Text()}
    contents = [{"image": examples(1)[0]["image"], "text": "a"}] * 4
    write_set(tmp_path, features, {"train": contents, "test": contents})
    message = "has 0 ClassLabel features. All it has: image .Image., text .Text"
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_deep_images_are_refused(tmp_path):
    features = {
        "image": image_feature(dtype=np.uint16, encoding_format="png"),
        "label": label_feature(),
    }
    contents = [
        {"image": np.zeros([6, 6, 1], np.uint16), "label": 0} for _ in range(4)
    ]
    write_set(tmp_path, features, {"train": contents, "test": contents})
    with pytest.raises(ValueError, match="'image' of tfds:made is uint16"):
        load(tmp_path)


@pytest.mark.parametrize("splits", [("train",), ("test", "validation")])
def test_splits_are_needed(tmp_path, splits):
    write_plain(tmp_path, splits=splits)
    message = f"the splits {', '.join(splits)}; it needs train, and test"
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_hidden_labels_are_refused(tmp_path):
    features = {"image": image_feature(), "label": label_feature()}
    hidden = [e | {"label": -1} for e in examples(4)]
    write_set(tmp_path, features, {"train": examples(8), "test": hidden})
    message = "Split 'test' of tfds:made has values from -1 to -1"
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_absent_set_names_the_command(tmp_path):
    with pytest.raises(ValueError, match="`tfds build mnist --data_dir="):
        load(tmp_path, "tfds:mnist")


def test_names_without_the_prefix_are_those_of_the_table(tmp_path):
    write_plain(tmp_path)
    message = "unknown data set 'made'; .*cifar10.* or tfds:<name> for another"
    with pytest.raises(ValueError, match=message):
        load(tmp_path, "made")
