import dataclasses

import numpy as np
import pytest

from meta_pseudo_labels import data

SPEC = data.DatasetSpec(
    name="mine",
    num_classes=3,
    image_size=8,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    flip=True,
)


def images(count, size=8, channels=3, dtype=np.uint8):
    return np.zeros([count, size, size, channels], dtype)


GOOD = data.ImageData(
    spec=SPEC,
    labeled_images=images(3),
    labeled_labels=np.int32([0, 1, 2]),
    unlabeled_images=images(0),
    test_images=images(2),
    test_labels=np.int32([2, 2]),
    labeled_indices=np.arange(3),
)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (
            dict(unlabeled_images=images(4, dtype=np.float32)),
            "unlabeled_images has type float32; pass uint8",
        ),
        (
            dict(labeled_images=images(3, channels=1)),
            r"labeled_images has shape \[3, 8, 8, 1\]; pass RGB",
        ),
        (
            dict(test_images=images(2, size=9)),
            r"test_images has shape \[2, 9, 9, 3\]",
        ),
        (
            dict(labeled_images=images(3)[0]),
            r"labeled_images has shape \[8, 8, 3\]",
        ),
        (
            dict(labeled_labels=np.int32([0, 1, 3])),
            "from 0 to 3; with 3 classes they must lie in 0 to 2",
        ),
        (dict(test_labels=np.int32([-1, 0])), "test_labels has values from -1"),
        (
            dict(labeled_labels=np.float32([0, 1, 2])),
            "labeled_labels has type float32",
        ),
        (
            dict(labeled_labels=np.eye(3, dtype=np.int32)),
            r"shape \[3, 3\]; pass class numbers",
        ),
        (dict(labeled_labels=np.int32([0, 1])), r"integers of shape \[3\]"),
        (dict(labeled_indices=np.arange(2)), "2 entries for 3 labeled images"),
        (
            dict(feedback_images=images(2)),
            "feedback_images or feedback_labels is None; give both",
        ),
        (
            dict(validation_labels=np.int32([0])),
            "validation_images or validation_labels is None",
        ),
        (dict(test_labels=None), "test_images or test_labels is None"),
        (
            dict(
                feedback_images=images(1, size=9),
                feedback_labels=np.int32([0]),
            ),
            r"feedback_images has shape \[1, 9, 9, 3\]",
        ),
        (
            dict(
                validation_images=images(2),
                validation_labels=np.int32([0, 3]),
            ),
            "validation_labels has values from 0 to 3",
        ),
        (
            dict(
                labeled_images=images(0),
                labeled_labels=np.zeros([0], np.int32),
                labeled_indices=np.arange(0),
            ),
            "labeled_images is empty",
        ),
    ],
)
def test_wrong_arrays_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GOOD, **wrong)


def test_own_arrays_make_a_problem():
    mine = data.from_arrays(
        images(3),
        [0, 2, 1],
        images(4),
        test_images=images(2),
        test_labels=[1, 1],
        flip=False,
        background=0,
        class_names=("a", "b", "c"),
    )
    assert mine.spec.num_classes == 3 and mine.spec.image_size == 8
    assert not mine.spec.flip and mine.spec.background == 0
    assert len(mine.test_images) == 2 and len(mine.unlabeled_images) == 4
    assert mine.spec.small_images


@pytest.mark.parametrize("size, small", [(64, True), (65, False)])
def test_own_arrays_are_small_by_their_size(size, small):
    mine = data.from_arrays(images(1, size), [0], images(0, size))
    assert mine.spec.small_images == small


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ((images(3, dtype=np.float32), [0, 1, 2]), {}, "has type float32"),
        ((images(3)[..., 0], [0, 1, 2]), {}, r"\[3, 8, 8\] for 3 labels"),
        ((images(3), [0, 1]), {}, "for 2 labels"),
        ((images(3), [1, 2, 3]), {}, "No image is labeled 0, but one is .* 3;"),
        ((images(2), [0, 2_000_000_000]), {}, "labeled 1, 2, 3 and more, but"),
        ((images(2), [0, -1]), {}, "labels has values from -1"),
        ((images(3), np.eye(3, dtype=int)), {}, r"shape \[3, 3\]; .*argmax"),
        # As keras.datasets returns them; their argmax would be 0.
        ((images(3), [[0], [1], [2]]), {}, r"integers \(labels\[:, 0\]\)\.$"),
        ((images(3), [0.0, 1.0, 2.0]), {}, "labels have type float64"),
        ((images(3), None), {}, "labels have type object"),
        ((images(0), []), {}, "labels have type float64 and shape"),
        (([], np.int32([])), {}, r"shape \[0\] for 0 labels"),
        ((None, [0]), {}, r"labeled_images has shape \[\] for 1 labels"),
        (
            (images(1), [0]),
            {"test_images": images(2)},
            "test_images or test_labels is None",
        ),
        (
            (images(1), [0]),
            {"test_images": [], "test_labels": []},
            r"test_images is of shape \[0\]; pass",
        ),
        ((images(3), [0, 1, 2]), {"num_classes": 2}, "must lie in 0 to 1"),
    ],
)
def test_own_arrays_are_checked(arrays, settings, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(*arrays, images(4), **settings)


@pytest.mark.parametrize(
    ("unlabeled", "message"),
    [(None, "is None"), ([], r"is of shape \[0\]")],
)
def test_no_unlabeled_images_have_a_shape_too(unlabeled, message):
    with pytest.raises(ValueError, match=f"unlabeled_images {message}; pass"):
        data.from_arrays(images(1), [0], unlabeled)
    few = images(1)
    assert len(data.from_arrays(few, [0], few[:0]).unlabeled_images) == 0
