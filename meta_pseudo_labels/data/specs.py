"""The table of data sets: facts about each, one row per name."""

import dataclasses

from meta_pseudo_labels.augment import FILL


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Facts about a data set of square RGB images.

    Attributes:
      name: the key in `DATASETS`.
      num_classes: labels are 0 to num_classes - 1.
      image_size: height and width, pixels.
      mean: of each channel over the training images, 0..1 units.
      std: standard deviation, likewise.
      flip: whether a mirrored image is still an example of its class; False
        for digits and text.
      class_names: one per label, or empty if they have no names.
      background: level that views put where an operation leaves no pixel,
        0..255. Photographs have the release's grey; digits stand on black.
    """

    name: str
    num_classes: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool
    class_names: tuple[str, ...] = ()
    background: int = FILL

    def __post_init__(self):
        if self.num_classes < 1:
            raise ValueError(
                f"num_classes is {self.num_classes}; at least one is needed."
            )
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(
                "mean and std need one number per RGB channel, got "
                f"{self.mean} and {self.std}."
            )
        if not 0 <= self.background <= 255:
            raise ValueError(
                f"background is {self.background}; pass a level in 0..255."
            )
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}; pass numbers > 0.")
        if len(self.class_names) not in (0, self.num_classes):
            raise ValueError(
                f"class_names has {len(self.class_names)} entries for "
                f"{self.num_classes} classes; name all of them or none."
            )


DATASETS = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            name="digits",
            num_classes=10,
            image_size=8,
            mean=(0.305774,) * 3,
            std=(0.376381,) * 3,
            flip=False,
            class_names=tuple("0123456789"),
            background=0,
        ),
    )
}
