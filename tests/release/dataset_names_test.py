"""The release's data set names: what each one stands for."""

import json

import pytest

from meta_pseudo_labels.data import DATASETS
from meta_pseudo_labels.release.dataset_names import (
    DATASET_NAME_HELP,
    RELEASE_DATASETS,
)
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.utils.settings import ConfigError
from tests.command_line import parse, refusal

# By hand from the release: name, data set, method, labels (0: all).
MEANINGS = [
    ("cifar10", "cifar10", "supervised", 0),
    ("cifar10_4000", "cifar10", "supervised", 4000),
    ("cifar10_4000_uda", "cifar10", "uda", 4000),
    ("cifar10_4000_mpl", "cifar10", "mpl", 4000),
    ("cifar100", "cifar100", "supervised", 0),
    ("cifar100_10k", "cifar100", "supervised", 10000),
    ("imagenet", "imagenet2012", "supervised", 0),
    ("imagenet_heldout", "imagenet2012", "supervised", 0),
    ("imagenet_noisy_student", "imagenet2012", "supervised", 0),
    ("imagenet_uda", "imagenet2012", "uda", 0),
    ("imagenet_10_percent", "imagenet2012_subset", "supervised", 0),
    ("imagenet_10_percent_uda", "imagenet2012_subset", "uda", 0),
    ("imagenet_10_percent_mpl", "imagenet2012_subset", "mpl", 0),
]


def test_all_names_of_the_release_are_there(reference_dir):
    flags = json.loads((reference_dir / "release_flags.json").read_text())
    assert list(RELEASE_DATASETS) == flags["dataset_names"]
    assert [name for name, *_ in MEANINGS] == flags["dataset_names"]


@pytest.mark.parametrize(("name", "dataset", "method", "labels"), MEANINGS)
def test_a_name_is_split(name, dataset, method, labels):
    config = parse(f"--dataset_name={name}")
    assert config == Config(
        dataset=dataset,
        method=method,
        num_labeled=labels,
        label_subset="first",
    )
    assert dataset in DATASETS and name in DATASET_NAME_HELP


def test_names_are_known_in_any_case():
    """As in the release."""
    assert parse("--dataset_name=CIFAR10_4000_MPL").method == "mpl"


def test_the_same_said_twice_is_fine():
    config = parse(
        "--dataset=cifar10",
        "--method=mpl",
        "--num_labeled=4000",
        "--dataset_name=cifar10_4000_mpl",
    )
    assert config == parse("--dataset_name=cifar10_4000_mpl")


@pytest.mark.parametrize(
    ("name", "contradiction", "meaning"),
    [
        ("cifar10_4000_mpl", "--dataset=cifar100", "--dataset=cifar10"),
        # Defaults of their flags: said out loud, they contradict too.
        ("cifar10_4000_mpl", "--dataset=digits", "--dataset=cifar10"),
        ("cifar10_4000_uda", "--method=mpl", "--method=uda"),
        ("cifar10_4000_mpl", "--num_labeled=40", "--num_labeled=4000"),
        (
            "imagenet_noisy_student",
            "--label_smoothing=0.1",
            "--label_smoothing=0.0",
        ),
    ],
)
def test_a_contradiction_is_named(name, contradiction, meaning):
    message = refusal(f"--dataset_name={name}", contradiction)
    assert message == (
        f"--dataset_name={name} means {meaning}, but {contradiction} is given "
        "too; leave one out."
    )


def test_which_images_are_labeled_may_be_chosen():
    config = parse("--dataset_name=cifar10_4000", "--label_subset=balanced")
    assert (config.label_subset, config.num_labeled) == ("balanced", 4000)


@pytest.mark.parametrize("name", ["cifar10_250", "svhn", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    message = refusal(f"--dataset_name={name}")
    assert f"--dataset_name={name} is unknown" in message
    assert ", ".join(RELEASE_DATASETS) in message


def test_a_name_wins_over_the_settings_of_the_run(tmp_path):
    """The run's own check then says that it was another training."""
    settings = Config(dataset="digits", num_labeled=50, lr=0.3)
    (tmp_path / "hparams.json").write_text(settings.to_json())
    config = parse(
        "--task_mode=eval",
        f"--output_dir={tmp_path}",
        "--dataset_name=cifar10_4000",
    )
    assert (config.dataset, config.num_labeled) == ("cifar10", 4000)
    assert config.lr == 0.3


def test_later_stages_need_no_name(tmp_path):
    trained = parse("--dataset_name=cifar10_4000_uda")
    (tmp_path / "hparams.json").write_text(trained.to_json())
    config = parse("--task_mode=eval", f"--output_dir={tmp_path}")
    assert (config.dataset, config.method) == ("cifar10", "uda")
    assert (config.num_labeled, config.label_subset) == (4000, "first")
    with pytest.raises(ConfigError):
        parse("--task_mode=eval", "--dataset_name=none")
