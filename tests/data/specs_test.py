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
