"""The settings of the data: what is learned from, and in which views."""

import dataclasses
import types
from typing import ClassVar

from meta_pseudo_labels.data.spec import DATASETS, FITS
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.utils.settings import ConfigError, Unread, setting


def _policies():
    # When a run is checked: reading settings loads as little as can be.
    from meta_pseudo_labels.data.images.view_settings import POLICIES

    return POLICIES


def _reads_use_augment(settings):
    """Whether the method has other labeled views with it than without."""
    method = LEARNERS[settings["method"]]
    views = {
        bool(method.augments_labeled(types.SimpleNamespace(**changed)))
        for changed in (settings | {"use_augment": x} for x in (False, True))
    }
    return len(views) > 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is learned from."""

    unread: ClassVar = (
        Unread(
            ("use_augment",),
            "only --method=supervised reads it; see --mpl_teacher_loss for the "
            "teacher of mpl.",
            when=lambda settings: not _reads_use_augment(settings),
        ),
        Unread(
            ("augment_cutout",),
            "strong views of {dataset} have no cutout, as the release's.",
            when=lambda settings: settings["dataset"].startswith(
                "imagenet2012"
            ),
        ),
    )

    dataset: str = setting(
        "digits",
        f"Where the images come from: {', '.join(DATASETS)}; folders, for "
        "images of your own; or tfds:<name>, any other set for image "
        "classification that TensorFlow Datasets prepared.",
    )
    data_dir: str | None = setting(
        None,
        "Folder of the data: of sets that TensorFlow Datasets prepared, by "
        "default its own; or of the release's files, train.bin and "
        "test_batch.bin, or train-*-of-* and validation-*-of-*.",
        free=True,
    )
    labeled_dir: str | None = setting(
        None,
        "For --dataset=folders: images to learn from, a folder per class.",
        free=True,
    )
    unlabeled_dir: str | None = setting(
        None,
        "For --dataset=folders: images without labels, in any folders.",
        free=True,
    )
    labels_csv: str | None = setting(
        None,
        "For --dataset=folders: a CSV file with the columns image and label. "
        "Labeled images that it names change their class, unlabeled ones are "
        "labeled; see docs/review.md.",
        free=True,
    )
    eval_dir: str | None = setting(
        None,
        "For --dataset=folders: images to test on, a folder per class.",
        free=True,
    )
    flip: bool | None = setting(
        None,
        "Whether a mirrored image is still one of its class, so that views "
        "may mirror; by default as is known of the data set, and yes for "
        "others. Say --noflip for text.",
    )
    strict_data: bool = setting(
        False,
        "Stop at the first file or record that is no usable image; otherwise "
        "these are skipped, counted and named.",
        free=True,
    )
    data_service: str | None = setting(
        None,
        "Address of a tf.data service, such as grpc://localhost:5050, whose "
        "workers then prepare the batches; see docs/data_service.md.",
        free=True,
    )
    num_labeled: int = setting(
        40, "Labeled images in all; 0 means that all keep their label.", low=0
    )
    label_subset: str = setting(
        "balanced",
        "Which images keep their label: balanced draws the same number of "
        "each class, by the seed; first takes the first records, as the "
        "release does; the path of a run's labeled.json repeats its choice, "
        "whatever --num_labeled says.",
    )
    label_sampling: str = setting(
        "as_is",
        "Which labeled images a batch holds, also in finetuning: as_is shows "
        "every image equally often; balanced every class, however many labels "
        "it has, and the images of a class in turn.",
        choices=("as_is", "balanced"),
    )
    known_classes: int | None = setting(
        None,
        "The first so many classes are the task; images of the others are "
        "unlabeled only, their labels and test images go. By default all.",
        low=2,
    )
    label_noise: float = setting(
        0.0,
        "Share of the labels that become wrong, those of held-out images too.",
        low=0,
        high=0.99,
    )
    num_validation: int = setting(
        0,
        "Labeled images that are held out to choose networks by, as many of "
        "each class as can be; nothing learns from them.",
        low=0,
    )
    num_feedback: int = setting(
        0,
        "Labeled images that are held out to judge mpl's student on, in place "
        "of those that the teacher learns from; finetuning does without them "
        "too.",
        low=0,
    )
    image_size: int | None = setting(
        None,
        "Height and width of the images in pixels. Counts only where it is "
        "given; else images keep the data set's own size.",
        low=8,
        high=8_192,
        flag_default=32,
    )
    image_fit: str = setting(
        "crop",
        "How pictures that are not square become so: crop scales the short "
        "side and keeps the centre; pad scales the long side and puts grey "
        "beside; squash scales each side by itself. Not of ImageNet's.",
        choices=FITS,
    )
    num_classes: int | None = setting(
        None,
        "Number of classes. Counts only where it is given, and then must be "
        "the data set's.",
        flag_default=10,
    )
    eval_batch_size: int = setting(
        128, "Images a step of evaluation.", low=1, high=1_000_000, free=True
    )
    use_augment: bool = setting(
        False,
        "Give labeled images strong views too, in supervised training; those "
        "of uda and mpl get weak views, as in the release.",
    )
    alternate_flips: bool = setting(
        False,
        "Mirror every image in every other epoch, a random half of them in the "
        "first, rather than at random each time. Of images in memory; strong "
        "views are mirrored at random once more.",
    )
    crop_padding: int | None = setting(
        None,
        "Pixels by which weak views are shifted at most, and strong ones once "
        "more; by default an eighth of the side. Of images in memory.",
        low=0,
        high=8_191,
    )
    augment_policy: str = setting(
        "release",
        "Whose RandAugment distorts strong views.",
        choices=_policies,
    )
    augment_magnitude: int = setting(
        5, "Strength of RandAugment in strong views.", low=0, high=30
    )
    augment_cutout: float = setting(
        0.5,
        "Side of the cutout in strong views, as a share of the image's.",
        low=0,
        high=1,
    )

    def check_balance(self):
        """Refuses to make up for uneven classes twice.

        Raises:
          ConfigError: where a rare class would count for more than others.
        """
        if self.label_sampling == "balanced" and self.class_weight:
            raise ConfigError(
                f"--label_sampling=balanced and --class_weight="
                f"{self.class_weight} each make up for uneven classes: with "
                "both a rare class counts for more than the others. Leave one "
                "out."
            )

    def check_images_in_files(self, name):
        """Refuses what images in files do not have, before one is read.

        Args:
          name: of a data set whose images and labels stay in its files.

        Raises:
          ConfigError: for such a setting.
        """
        for flag in ("label_sampling", "class_weight"):
            if getattr(self, flag) == "balanced":
                raise ConfigError(
                    f"--{flag}=balanced needs to know all labels, but "
                    f"{name!r} stays in its files; leave it out, or take "
                    "another data set."
                )
        in_memory = {
            f"crop_padding={self.crop_padding}": self.crop_padding is not None,
            "alternate_flips": self.alternate_flips,
        }
        for flag, is_set in in_memory.items():
            if is_set:
                raise ConfigError(
                    f"--{flag} is for images in memory, but those of {name!r} "
                    "stay in their files; leave it out."
                )
