"""The settings of the data: what a run learns from, and in which views."""

import dataclasses
import types
from typing import ClassVar

from meta_pseudo_labels.data.spec import DATASETS, FITS
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.utils.settings import ConfigError, Unread, setting


def _policies():
    # Imported when a run is checked: reading settings must load little.
    from meta_pseudo_labels.data.images.view_settings import POLICIES

    return POLICIES


def _reads_use_augment(settings):
    """Whether use_augment changes the labeled views of the method."""
    method = LEARNERS[settings["method"]]
    views = {
        bool(method.augments_labeled(types.SimpleNamespace(**changed)))
        for changed in (settings | {"use_augment": x} for x in (False, True))
    }
    return len(views) > 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What a run learns from."""

    unread: ClassVar = (
        Unread(
            ("use_augment",),
            "only --method=supervised reads it; see --mpl_teacher_loss for the "
            "teacher of mpl.",
            when=lambda settings: not _reads_use_augment(settings),
        ),
        Unread(
            ("augment_cutout",),
            "strong views of {dataset} have no cutout, as in the release.",
            when=lambda settings: settings["dataset"].startswith(
                "imagenet2012"
            ),
        ),
    )

    dataset: str = setting(
        "digits",
        f"Where the images come from: {', '.join(DATASETS)}; folders, for "
        "images of your own; or tfds:<name>, any other data set for image "
        "classification that TensorFlow Datasets prepared.",
    )
    data_dir: str | None = setting(
        None,
        "Folder of the data: that of the data sets that TensorFlow Datasets "
        "prepared, by default its own; or that of the release's files, "
        "train.bin and test_batch.bin, or train-*-of-* and validation-*-of-*.",
        free=True,
    )
    labeled_dir: str | None = setting(
        None,
        "For --dataset=folders: folder of images to learn from, with one "
        "folder per class.",
        free=True,
    )
    unlabeled_dir: str | None = setting(
        None,
        "For --dataset=folders: folder of images without labels, with "
        "subfolders of any kind.",
        free=True,
    )
    labels_csv: str | None = setting(
        None,
        "For --dataset=folders: a CSV file with the columns image and label. "
        "It changes the class of the labeled images that it names, and labels "
        "the unlabeled ones; see docs/review.md.",
        free=True,
    )
    eval_dir: str | None = setting(
        None,
        "For --dataset=folders: folder of images to test on, with one folder "
        "per class.",
        free=True,
    )
    flip: bool | None = setting(
        None,
        "Whether a mirrored image keeps its class, so that views may be "
        "mirrored; by default what is known of the data set, and yes for "
        "others. Use --noflip for text.",
    )
    strict_data: bool = setting(
        False,
        "Stop at the first file or record that is not a usable image; "
        "otherwise such files and records are skipped, counted and named.",
        free=True,
    )
    data_service: str | None = setting(
        None,
        "Address of a tf.data service, such as grpc://localhost:5050, whose "
        "workers then prepare the batches; see docs/data_service.md.",
        free=True,
    )
    num_labeled: int = setting(
        40, "Number of labeled images in total; 0 keeps all labels.", low=0
    )
    label_subset: str = setting(
        "balanced",
        "Which images keep their label: balanced draws the same number from "
        "each class, using --seed; first takes the first records, as the "
        "release does; the path of a run's labeled.json repeats that run's "
        "choice, regardless of --num_labeled.",
    )
    label_sampling: str = setting(
        "as_is",
        "How batches sample labeled images, also in finetuning: as_is shows "
        "every image equally often; balanced shows every class equally often, "
        "however many labels it has, and takes the images of a class in turn.",
        choices=("as_is", "balanced"),
    )
    known_classes: int | None = setting(
        None,
        "Number of classes in the task: the first ones. Images of the other "
        "classes are used only as unlabeled ones; their labels and test "
        "images are dropped. By default all.",
        low=2,
    )
    label_noise: float = setting(
        0.0,
        "Share of the labels that are replaced by wrong ones, including "
        "labels of held-out images.",
        low=0,
        high=0.99,
    )
    num_validation: int = setting(
        0,
        "Number of labeled images held out to choose networks by, balanced "
        "over the classes as far as possible; nothing is trained on them.",
        low=0,
    )
    num_feedback: int = setting(
        0,
        "Number of labeled images held out to evaluate mpl's student on, "
        "instead of those that the teacher learns from. No other method and no "
        "finetuning uses them either, so that these are controls.",
        low=0,
    )
    image_size: int | None = setting(
        None,
        "Height and width of the images in pixels. Has an effect only if "
        "given; otherwise images keep the data set's own size.",
        low=8,
        high=8_192,
        flag_default=32,
    )
    image_fit: str = setting(
        "crop",
        "How images that are not square are made square: crop scales the "
        "short side and keeps the center; pad scales the long side and adds "
        "gray borders; squash scales each side separately. Not for ImageNet.",
        choices=FITS,
    )
    num_classes: int | None = setting(
        None,
        "Number of classes. Has an effect only if given, and must then be "
        "that of the data set.",
        flag_default=10,
    )
    eval_batch_size: int = setting(
        128, "Images per evaluation step.", low=1, high=1_000_000, free=True
    )
    use_augment: bool = setting(
        False,
        "In supervised training, give labeled images strong views too; those "
        "of uda and mpl get weak views, as in the release.",
    )
    alternate_flips: bool = setting(
        False,
        "Mirror every image in every other epoch, a random half of them in "
        "the first epoch, instead of at random each time. Only for images in "
        "memory; strong views are mirrored at random once more.",
    )
    crop_padding: int | None = setting(
        None,
        "Maximum shift of weak views in pixels; strong views are shifted once "
        "more. By default an eighth of the side. Only for images in memory.",
        low=0,
        high=8_191,
    )
    augment_policy: str = setting(
        "release",
        "Which RandAugment distorts strong views.",
        choices=_policies,
    )
    augment_magnitude: int = setting(
        5, "Strength of RandAugment in strong views.", low=0, high=30
    )
    augment_cutout: float = setting(
        0.5,
        "Side of the cutout in strong views, as a share of the image's side.",
        low=0,
        high=1,
    )

    def check_balance(self):
        """Refuses to compensate for uneven classes twice.

        Raises:
          ConfigError: if a rare class would count for more than others.
        """
        if self.label_sampling == "balanced" and self.class_weight:
            raise ConfigError(
                f"--label_sampling=balanced and --class_weight="
                f"{self.class_weight} each compensate for uneven classes: "
                "with both, a rare class counts for more than the others. "
                "Leave one out."
            )

    def check_images_in_files(self, name):
        """Refuses what images in files do not support, before one is read.

        Args:
          name: of a data set whose images and labels stay in its files.

        Raises:
          ConfigError: for such a setting.
        """
        for flag in ("label_sampling", "class_weight"):
            if getattr(self, flag) == "balanced":
                raise ConfigError(
                    f"--{flag}=balanced needs to know all labels, but "
                    f"{name!r} stays in its files; leave it out, or use "
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
