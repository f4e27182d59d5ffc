"""Images that look alike are found, others are not."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from meta_pseudo_labels import data
from meta_pseudo_labels.data import inspection
from meta_pseudo_labels.data import look_alikes as module
from meta_pseudo_labels.data.look_alikes import (
    difference_bits,
    look_alikes,
    small_grays,
)
from tests.pictures import encoded
from tests.tiny_folders import load


def photos(count, *, seed=0, size=32):
    """[count, size, size, 3] uint8, smooth and all different."""
    noise = np.random.RandomState(seed).randint(0, 256, [count, 5, 5, 3])
    smooth = tf.image.resize(noise, [size, size], "bicubic")
    return tf.cast(tf.clip_by_value(smooth, 0, 255), tf.uint8).numpy()


def again(image, change):
    picture = Image.fromarray(image)
    if change == "jpeg":
        file = io.BytesIO(encoded(image, "JPEG", quality=60))
        picture = Image.open(file)
    elif change == "smaller":
        picture = picture.resize((20, 20)).resize((32, 32))
    elif change == "brighter":
        picture = picture.point(lambda level: min(255, level + 12))
    elif change == "gray":
        picture = picture.convert("L").convert("RGB")
    elif change == "mark":
        picture.paste((255, 255, 255), (0, 0, 4, 4))
    return np.array(picture)


def problem(labeled, labels, unlabeled, test):
    return data.from_arrays(
        labeled,
        np.array(labels),
        unlabeled,
        test_images=test,
        test_labels=np.zeros(len(test), int),
        num_classes=3,
    )


@pytest.mark.parametrize(
    "change", ["jpeg", "smaller", "brighter", "gray", "mark"]
)
def test_a_changed_copy_is_found_among_many(change):
    many = photos(300)
    test = photos(100, seed=1)
    test[50] = again(many[200], change)
    found = look_alikes(problem(many[:9], [0, 1, 2] * 3, many[9:], test))
    assert found == [(("unlabeled", 191), ("test", 50))]


def test_two_classes_matter_and_one_does_not():
    images = photos(6)
    images[3:] = [again(image, "jpeg") for image in images[:3]]
    many = problem(images, [0, 1, 2, 0, 1, 0], images[:3], images[:0])
    assert look_alikes(many) == [(("labeled", 2), ("labeled", 5))]


def test_a_film_takes_no_time_and_wrong_labels_do_not_count(monkeypatch):
    """Its frames all look alike; those of one class do not matter."""
    frame = photos(1)[0].astype(int)
    noise = np.random.RandomState(0).randint(-1, 2, [2_000, 32, 32, 3])
    film = np.clip(frame + noise, 0, 255).astype(np.uint8)
    many = problem(film, np.zeros(2_000, int), film[:0], film[:0])
    assert look_alikes(many) == []
    # Half of them in the test, a million pairs.
    many = problem(film[:1_000], [0] * 1_000, film[:0], film[1_000:])
    monkeypatch.setattr(module, "MOST_PAIRS", 500)
    assert len(look_alikes(many)) == 500
    labels = [0] * 9 + [1]
    spoilt = data.spoil_labels(
        problem(film[:10], labels, film[:0], film[:0]), 0.3, seed=0
    )
    assert look_alikes(spoilt) == []


def test_equal_and_flat_images_are_no_pairs():
    flat = np.stack([np.full([32, 32, 3], level) for level in (9, 99, 200)])
    images = np.concatenate([photos(3), flat.astype(np.uint8)])
    many = problem(images, [0, 1, 2] * 2, images[:0], images)
    assert look_alikes(many) == []


def test_bits_by_hand():
    """Brighter to the right in the left half, darker in the right one."""
    ramp = np.minimum(np.arange(9), 8 - np.arange(9)) * 20
    image = np.broadcast_to(ramp[None, :, None], [8, 9, 3]).astype(np.uint8)
    grays = small_grays(image[None])
    assert grays.shape == (1, 8, 9) and abs(grays.mean()) < 1e-4
    np.testing.assert_allclose(grays[0, 0], ramp - ramp.mean(), atol=1e-4)
    bits = difference_bits(grays).reshape(8, 8)
    assert bits[:, :4].all() and not bits[:, 4:].any()


def test_inspection_tells_and_draws_them(folders, logged, tmp_path):
    (image, other) = photos(2)
    for name in ("$a$", "b"):
        (folders / "labeled" / name).mkdir()
    for path, pixels in (
        ("labeled/$a$/$1$.png", image),
        ("labeled/b/2\u732b.png", other),
        ("eval/ant/3.png", again(image, "jpeg")),
        ("unlabeled/.DS_Store", image),
    ):
        (folders / path).write_bytes(encoded(pixels))
    (folders / "unlabeled" / "copy.png").write_bytes(
        (folders / "eval/cow/0.png").read_bytes()
    )
    images = load(folders, image_size=32)
    summary = inspection.inspect(images)
    (entry,) = summary["look_alikes"]
    assert entry["what"] == "pairs of test and labeled images that look alike"
    first, second = entry["examples"][0]
    assert first.endswith("$a$/$1$.png")
    assert second.endswith("eval/ant/3.png")
    lines = inspection.as_text(summary).splitlines()
    assert (
        "1 files or folders passed over, hidden or left by systems: .DS_Store"
    ) in lines
    assert [line for line in lines if line.startswith("1 test images that are")]
    assert [line for line in lines if "that look alike, perhaps copies" in line]
    path = tmp_path / "sheet.png"
    inspection.draw_look_alikes(images, path)
    assert path.stat().st_size > 1_000
