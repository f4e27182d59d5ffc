"""The release's data set names: each stands for data, labels and a method.

The release also reads the method from the name (`main.train_tpu`), and uses the
first records of its files as the labeled images (`data_utils.py`).
"""

from meta_pseudo_labels.utils.settings import ConfigError

# What --dataset_name stands for. num_labeled=0: all images keep their label.
RELEASE_DATASETS = {
    name: dict(dataset=dataset, method=method, num_labeled=num_labeled)
    for name, dataset, method, num_labeled in (
        ("cifar10", "cifar10", "supervised", 0),
        ("cifar10_4000", "cifar10", "supervised", 4_000),
        ("cifar10_4000_uda", "cifar10", "uda", 4_000),
        ("cifar10_4000_mpl", "cifar10", "mpl", 4_000),
        ("cifar100", "cifar100", "supervised", 0),
        ("cifar100_10k", "cifar100", "supervised", 10_000),
        ("imagenet", "imagenet2012", "supervised", 0),
        ("imagenet_heldout", "imagenet2012", "supervised", 0),
        ("imagenet_noisy_student", "imagenet2012", "supervised", 0),
        ("imagenet_uda", "imagenet2012", "uda", 0),
        # The tenth of ImageNet that has labels is a separate set of files.
        ("imagenet_10_percent", "imagenet2012_subset", "supervised", 0),
        ("imagenet_10_percent_uda", "imagenet2012_subset", "uda", 0),
        ("imagenet_10_percent_mpl", "imagenet2012_subset", "mpl", 0),
    )
}
# Its labels were to be another network's probabilities, which the release does
# not smooth (`training_utils.Supervised`).
RELEASE_DATASETS["imagenet_noisy_student"]["label_smoothing"] = 0.0

DATASET_NAME_HELP = (
    "The release's name for a data set, its labels and a method. "
    "It sets --dataset, --method and --num_labeled, which must agree with it "
    "if they are given too, and --label_subset=first unless that is given. "
    "The release has no training images for cifar100, cifar100_10k, "
    "imagenet_heldout, imagenet_noisy_student and imagenet_uda: here these "
    "mean what their names say, but imagenet_heldout is tested on the "
    "validation images, not on its own 25,000, and imagenet_noisy_student "
    "trains on ImageNet's labels, without smoothing, not on those of another "
    f"network. One of: {', '.join(RELEASE_DATASETS)}."
)


def split_dataset_name(name, given):
    """The settings that a name of the release stands for.

    Args:
      name: a key of `RELEASE_DATASETS`, in any case, as in the release.
      given: settings that the user gave as well, a dict by name.

    Returns:
      A dict of `Config` fields.

    Raises:
      ConfigError: for an unknown name, or a setting that contradicts it.
    """
    settings = RELEASE_DATASETS.get(name.lower())
    if settings is None:
        raise ConfigError(
            f"--dataset_name={name} is unknown; use one of: "
            f"{', '.join(RELEASE_DATASETS)}. For other data sets use "
            "--dataset."
        )
    for field, value in settings.items():
        if given.get(field, value) != value:
            raise ConfigError(
                f"--dataset_name={name} means --{field}={value}, but "
                f"--{field}={given[field]} is given too; leave one out."
            )
    # The name does not say which images are labeled, so this one may differ.
    return settings | dict(label_subset=given.get("label_subset", "first"))
