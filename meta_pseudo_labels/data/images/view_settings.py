"""What strong views are made by, as one value."""

import dataclasses

POLICIES = ("release", "keras_cv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """How strong the strong views are, and which images get one.

    Attributes:
      magnitude: of RandAugment, >= 0; KerasCV's takes 10 at most.
      cutout_share: side of the cutout as a share of the image's, in [0, 1]; the
        release has half the side. Photographs get no cutout.
      policy: "release", or "keras_cv": its operations, amounts and fill; see
        keras_cv_policy.py.
      augment_labeled: whether labeled images get a strong view too.
      alternate_flips: whether images are mirrored in every other epoch, rather
        than at random, before their weak view; those in memory alone.
      crop_padding: pixels by which a weak view is shifted at most, and a strong
        one once more; None is an eighth of the side, as released. Of images in
        memory alone: those in files are cropped in another way.
    """

    magnitude: float
    cutout_share: float = 0.5
    policy: str = "release"
    augment_labeled: bool = False
    alternate_flips: bool = False
    crop_padding: int | None = None
