import dataclasses

import pytest

from meta_pseudo_labels import data

FACTS = dict(
    name="mine",
    num_classes=2,
    image_size=8,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    flip=True,
)


def test_the_table_is_keyed_by_name():
    assert {name: s.name for name, s in data.DATASETS.items()} == {
        name: name for name in data.DATASETS
    }


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(num_classes=0), "num_classes is 0"),
        (dict(mean=(0.5,)), "one number per RGB channel"),
        (dict(std=(0.2, 0.0, 0.2)), "numbers > 0"),
        (dict(class_names=("cat",)), "1 entries for 2 classes"),
    ],
)
def test_impossible_facts_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        data.DatasetSpec(**FACTS | wrong)


def test_classes_without_names_are_called_by_their_numbers():
    assert data.DatasetSpec(**FACTS).names == ("0", "1")
    named = data.DatasetSpec(**FACTS, class_names=("cat", "dog"))
    assert named.names == ("cat", "dog")


def test_facts_of_the_release():
    """CIFAR_MEAN, IMAGENET_STDDEV and others of the release's data_utils."""
    table = data.DATASETS
    for name in ("cifar10", "cifar100"):
        assert table[name].mean == (0.491400, 0.482158, 0.4465309)
        assert table[name].std == (0.247032, 0.243485, 0.26159)
    for name in ("imagenet2012", "imagenet2012_subset"):
        assert table[name].mean == (0.485, 0.456, 0.406)
        assert table[name].std == (0.229, 0.224, 0.225)
    facts = {
        name: (spec.num_classes, spec.image_size, spec.flip, spec.small_images)
        for name, spec in table.items()
    }
    assert facts == {
        "digits": (10, 8, False, True),
        "cifar10": (10, 32, True, True),
        "cifar100": (100, 32, True, True),
        "svhn_cropped": (10, 32, False, True),
        "imagenet2012": (1000, 224, True, False),
        "imagenet2012_subset": (1000, 224, True, False),
    }


@pytest.mark.parametrize("size, small", [(8, True), (64, True), (65, False)])
def test_images_are_small_by_their_size(size, small):
    assert data.DatasetSpec(**FACTS | dict(image_size=size)).small_images == (
        small
    )


def test_resizing_keeps_the_strides():
    """The release goes by the data set's name, whatever the size."""
    large = dataclasses.replace(data.DATASETS["cifar10"], image_size=224)
    assert large.small_images
    told = data.DatasetSpec(**FACTS, small_images=False)
    assert not told.small_images
