"""The table of data sets: facts about each, one row per name."""

import dataclasses
import unicodedata

# The release's gray: the default level where an operation leaves no pixel.
FILL = 128
# How pictures that are not square are made square.
FITS = "crop", "pad", "squash"
SMALL_SIZE = 64  # Pixels; Tiny ImageNet's, the largest that the release names.

# Mean and standard deviation of each channel, 0..1 units, as in the release:
# `CIFAR_MEAN`, `IMAGENET_MEAN` and so on in data_utils.py, where both are
# multiplied by 255 for images in 0..255. CIFAR-100 uses CIFAR-10's.
CIFAR = dict(
    mean=(0.491400, 0.482158, 0.4465309), std=(0.247032, 0.243485, 0.26159)
)
IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


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
      background: level with which views fill places where an operation leaves
        no pixel, 0..255. Photographs use the release's gray, digits black.
      small_images: whether models that halve ImageNet's resolution early keep
        the full resolution of these images (quirk 25). Resizing does not
        change it, as in the release; None means True up to `SMALL_SIZE` pixels.
      deep_levels: for 16-bit pictures, the levels that become 0 and 255; None
        if none was trained on, see `levels.to_8_bits`.
      image_fit: how pictures that are not square are made square, see
        `resizing.square_image`.
    """

    name: str
    num_classes: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool
    class_names: tuple[str, ...] = ()
    background: int = FILL
    small_images: bool | None = None
    deep_levels: tuple[int, int] | None = None
    image_fit: str = "crop"

    def __post_init__(self):
        if self.small_images is None:
            small = self.image_size <= SMALL_SIZE
            object.__setattr__(self, "small_images", small)
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

    @property
    def names(self):
        """The names of the classes, or else their numbers."""
        return self.class_names or tuple(map(str, range(self.num_classes)))


def composed(name):
    """A class name in the one Unicode form in which names are compared.

    Macs decompose file names: there "é" is two characters, which look like the
    single one that is typed elsewhere.
    """
    return unicodedata.normalize("NFC", str(name))


def same_names(names, others):
    """Whether two lists of class names are the same once `composed`."""
    return list(map(composed, names)) == list(map(composed, others))


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
            small_images=True,
        ),
        DatasetSpec(
            name="cifar10",
            num_classes=10,
            image_size=32,
            **CIFAR,
            flip=True,
            class_names=(
                *("airplane", "automobile", "bird", "cat", "deer"),
                *("dog", "frog", "horse", "ship", "truck"),
            ),
            small_images=True,
        ),
        DatasetSpec(  # Its class names are in the prepared set.
            name="cifar100",
            num_classes=100,
            image_size=32,
            **CIFAR,
            flip=True,
            small_images=True,
        ),
        DatasetSpec(  # Not in the release; the usual statistics of `train`.
            name="svhn_cropped",
            num_classes=10,
            image_size=32,
            mean=(0.4377, 0.4438, 0.4728),
            std=(0.1980, 0.2010, 0.1970),
            flip=False,
            class_names=tuple("0123456789"),
            small_images=True,
        ),
        *(
            DatasetSpec(
                name=name,
                num_classes=1_000,
                image_size=224,
                **IMAGENET,
                flip=True,
                small_images=False,
            )
            for name in ("imagenet2012", "imagenet2012_subset")
        ),
    )
}
