"""Images that are mirrored in every other epoch."""

import collections
import dataclasses

import numpy as np
import pytest

from meta_pseudo_labels import data
from meta_pseudo_labels.data.streams import records
from tests import jpeg_records
from tests.batch_parts import assert_equal, part, take

SETTINGS = dict(
    batch_size=4,
    unlabeled_ratio=2,
    magnitude=0,
    cutout_share=0,
    seed=7,
    alternate_flips=True,
)
SIDE = 16


@pytest.fixture(scope="module")
def problem():
    """Images told apart by their level, whose right half is brighter."""

    def images(count):
        left = np.arange(count, dtype=np.uint8)[:, None, None, None]
        half = np.tile(left, [1, SIDE, SIDE // 2, 3])
        return np.concatenate([half, half + 100], axis=2)

    return data.from_arrays(images(20), np.arange(20) % 2, images(30))


@pytest.fixture(scope="module")
def stream(problem):
    return data.training_dataset(problem, **SETTINGS)


def seen(batches, key):
    """{image: [whether it was mirrored, each time that it came]}."""
    found = collections.defaultdict(list)
    for batch in batches:
        levels = np.round((batch[key] * 0.5 + 0.5) * 255)
        middle = levels[:, SIDE // 2, :, 0]
        left, right = middle[:, 3], middle[:, -4]
        for image, is_mirrored in zip(
            np.minimum(left, right), left > right, strict=True
        ):
            found[int(image)].append(bool(is_mirrored))
    return found


@pytest.mark.fast("weak-30")
@pytest.mark.parametrize(("key", "total"), [("labeled", 20), ("weak", 30)])
def test_every_image_is_mirrored_by_turns(stream, key, total):
    found = seen(take(stream, 30), key)
    assert len(found) == total
    for turns in found.values():
        assert len(turns) >= 6
        assert all(a != b for a, b in zip(turns, turns[1:], strict=False))
    first = sum(turns[0] for turns in found.values())
    assert total / 4 < first < 3 * total / 4


@pytest.mark.long
def test_other_seeds_begin_with_other_images(problem, stream):
    other = data.training_dataset(problem, **SETTINGS | dict(seed=8))
    one, two = (seen(take(x, 5), "labeled") for x in (stream, other))
    assert one.keys() == two.keys()
    assert any(one[image][0] != two[image][0] for image in one)


def test_a_stream_from_a_step_is_the_tail(problem, stream):
    later = data.training_dataset(problem, **SETTINGS, start_step=3)
    assert_equal(take(later, 5), take(stream, 8)[3:])


@pytest.mark.long
def test_replicas_see_what_one_device_would(problem, stream):
    share = data.Share(2, 1, 1)
    second = data.training_dataset(problem, **SETTINGS, share=share)
    wanted = [part(batch, 1, 2) for batch in take(stream, 8)]
    assert_equal(take(second, 8), wanted)


@pytest.mark.long
def test_the_rest_of_the_stream_stays(problem, stream):
    """The same images and labels in the same order, whatever is mirrored."""
    plain = data.training_dataset(
        problem, **SETTINGS | dict(alternate_flips=False)
    )
    for one, other in zip(take(stream, 6), take(plain, 6), strict=True):
        np.testing.assert_array_equal(one["labels"], other["labels"])
        for key in ("labeled", "weak"):
            assert list(seen([one], key)) == list(seen([other], key))


def test_images_that_are_not_to_be_mirrored_are_refused(problem):
    text = dataclasses.replace(
        problem, spec=dataclasses.replace(problem.spec, flip=False)
    )
    with pytest.raises(ValueError, match="must not be mirrored"):
        data.training_dataset(text, **SETTINGS)


def test_images_in_files_are_refused(problem, tmp_path):
    jpeg_records.write_split(tmp_path, "train", [2])
    in_files = data.ShardedData(
        spec=problem.spec,
        labeled_images=jpeg_records.index(tmp_path, "train"),
        unlabeled_images=jpeg_records.index(tmp_path, "train"),
        test_images=records.no_records(),
    )
    with pytest.raises(ValueError, match="only images in memory"):
        data.training_dataset(in_files, **SETTINGS)
    shifted = SETTINGS | dict(alternate_flips=False, crop_padding=2)
    with pytest.raises(ValueError, match="crop_padding: .* is read from files"):
        data.training_dataset(in_files, **shifted)
    with pytest.raises(ValueError, match="crop_padding: .* is read from files"):
        data.finetuning_dataset(in_files, 4, 0, crop_padding=2)
