"""The settings of data and models."""

import dataclasses

from meta_pseudo_labels.data import DATASETS, POLICIES
from meta_pseudo_labels.utils.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is learned from, and by which networks."""

    # Data.
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
    )
    labeled_dir: str | None = setting(
        None, "For --dataset=folders: images to learn from, a folder per class."
    )
    unlabeled_dir: str | None = setting(
        None, "For --dataset=folders: images without labels, in any folders."
    )
    eval_dir: str | None = setting(
        None, "For --dataset=folders: images to test on, a folder per class."
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
    )
    data_service: str | None = setting(
        None,
        "Address of a tf.data service, such as grpc://localhost:5050, whose "
        "workers then prepare the batches; see docs/data_service.md.",
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
        flag_default=32,
    )
    num_classes: int | None = setting(
        None,
        "Number of classes. Counts only where it is given, and then must be "
        "the data set's.",
        flag_default=10,
    )
    train_batch_size: int = setting(128, "Labeled images a step.", low=1)
    eval_batch_size: int = setting(128, "Images a step of evaluation.", low=1)
    uda_data: int = setting(
        4, "Unlabeled images per labeled image in a step (mu).", low=1
    )
    use_augment: bool = setting(
        False,
        "Give labeled images strong views too, in supervised training; those "
        "of uda and mpl get weak views, as in the release.",
    )
    augment_policy: str = setting(
        "release",
        "Whose RandAugment distorts strong views.",
        choices=POLICIES,
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

    # Models.
    model_type: str = setting(
        "wrn-28-2", "The student, such as wrn-28-2 or resnet-50."
    )
    teacher_model_type: str | None = setting(
        None,
        "The teacher; by default as the student. With --teacher_labels a "
        "perceptron, by default mlp-5-128: five layers of 128 units.",
    )
    teacher_labels: str | None = setting(
        None,
        "Class distributions of a fixed teacher, by --task_mode=cache_labels: "
        "the file, or the folder of the run that trained it. For "
        "--method=pseudo_labels, and for mpl, whose teacher then is a small "
        "one on top of them (Reduced MPL), without a consistency term.",
    )
    dense_dropout_rate: float = setting(
        0.1, "Dropout before the last layer.", low=0, high=0.99
    )
    stochastic_depth_drop_rate: float = setting(
        0.0,
        "Chance that an EfficientNet's block is skipped in training, times "
        "the share of blocks before it.",
        low=0,
        high=0.99,
    )
    batch_norm_decay: float = setting(
        0.99, "Decay of batch norm's moving averages.", low=0, high=1
    )
    batch_norm_epsilon: float = setting(
        1e-3, "Added to the variance in batch norm.", low=0
    )
    batch_norm_batch_size: int | None = setting(
        None,
        "Images in a group of devices that share batch norm's statistics. "
        "Counts for more than 8 devices; fewer share them all.",
        low=1,
    )
    use_bfloat16: bool = setting(
        False,
        "Compute in bfloat16; weights, batch norm and logits stay float32.",
    )
    ema_decay: float = setting(
        0.0,
        "Decay of the student's moving average; 0 is off.",
        low=0,
        high=1,
    )
    ema_start: int = setting(0, "First step that is averaged.", low=0)
    load_checkpoint: str | None = setting(
        None,
        "Checkpoint to begin from: of the release, or of another run of ours. "
        "A run that has checkpoints of its own goes on from these.",
    )
    load_checkpoint_and_restart_global_step: bool = setting(
        False, "Count steps from 0 after load_checkpoint, not from its own."
    )
