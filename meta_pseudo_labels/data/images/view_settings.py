"""The settings of the views, as one value."""

import dataclasses

POLICIES = ("release", "keras_cv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """How strong the strong views are, and which images get one.

    Attributes:
      magnitude: of RandAugment, >= 0; KerasCV's accepts 10 at most.
      cutout_share: side of the cutout as a share of the image's, in [0, 1]; the
        release uses half the side. Photographs get no cutout.
      policy: "release", or "keras_cv" for the operations, amounts and fill of
        KerasCV; see keras_cv_policy.py.
      augment_labeled: whether labeled images get a strong view too.
      alternate_flips: whether images are mirrored in every other epoch, rather
        than at random, before their weak view; only for images in memory.
      crop_padding: largest shift of a weak view in pixels; a strong view is
        shifted once more. None is an eighth of the side, as in the release.
        Only for images in memory: those in files are cropped differently.
    """

    magnitude: float
    cutout_share: float = 0.5
    policy: str = "release"
    augment_labeled: bool = False
    alternate_flips: bool = False
    crop_padding: int | None = None
