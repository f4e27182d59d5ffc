"""How good a classifier's probabilities are: accuracy, classes, calibration.

Uses scikit-learn wherever it has the metric.
"""

import dataclasses
import math

import numpy as np
from sklearn import metrics

CALIBRATION_BINS = 15
MISTAKES = 12  # The most confident ones, for each network.
TOP = 5
MACRO = ("precision", "recall", "f1")


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How often a network is right at a given confidence (Guo et al. 2017).

    Confidence is the probability of the predicted class. The bins are of equal
    width, from 0 to 1; a confidence on an edge is in the bin below it.

    Attributes:
      images: [bins] int64, the number in each bin.
      confidence: [bins] float64, the mean; NaN for a bin without images.
      accuracy: [bins] float64, the share of right predictions; NaN likewise.
    """

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self):
        """Expected calibration error in [0, 1].

        The mean over all images of the distance between accuracy and
        confidence of their bin. https://arxiv.org/abs/1706.04599
        """
        filled = self.images > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float(np.average(gaps, weights=self.images[filled]))


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An image that was taken for another class.

    Attributes:
      image: its place among the images.
      label: its class, an integer.
      predicted: the class that it was taken for.
      confidence: the probability of the predicted class.
    """

    image: int
    label: int
    predicted: int
    confidence: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How good a network is on some images.

    Attributes:
      images: how many there were.
      top_1: share of images whose most probable class is the true one, in
        [0, 1]; among equally probable classes the first counts.
      top_5: share of images whose class is among the five most probable ones;
        None if there are no more than five classes.
      nll: mean negative log-likelihood of the true class, in nats; a
        probability below 2e-16 counts as 2e-16.
      precision: [classes] float64, share of the images predicted as the class
        that belong to it; NaN for a class that is never predicted.
      recall: [classes] float64, share of the class's images that are predicted
        as it; NaN for a class without images.
      f1: [classes] float64, their harmonic mean; NaN for a class that has no
        images and is never predicted.
      macro: means of precision, recall and F1 over the classes that have
        images, by name; an undefined precision counts as 0.
      confusion: [classes, classes] int64, images by class and predicted class.
      calibration: `Calibration`.
      class_names: [classes] strings.
      images_per_second: of the network alone, without reading images; None
        if it was not timed.
      mistakes: `Mistake`s, the most confident first, `MISTAKES` at most.
    """

    images: int
    top_1: float
    top_5: float | None
    nll: float
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    macro: dict[str, float]
    confusion: np.ndarray
    calibration: Calibration
    class_names: tuple[str, ...]
    images_per_second: float | None = None
    mistakes: tuple[Mistake, ...] = ()

    @property
    def support(self):
        """[classes] int64, the images of each class."""
        return self.confusion.sum(axis=1)

    @property
    def chance(self):
        """The top_1 of always predicting the largest class, in (0, 1]."""
        return float(self.support.max() / self.images)

    @property
    def ece(self):
        """See `Calibration.ece`."""
        return self.calibration.ece

    def to_dict(self):
        """All of it as a dict for JSON; what is undefined is null."""
        scalars = ("images", "top_1", "chance", "top_5", "nll", "ece")
        return {
            **{name: getattr(self, name) for name in scalars},
            "images_per_second": self.images_per_second,
            "macro": self.macro,
            "classes": [
                {
                    "class": name,
                    "precision": _or_none(self.precision[label]),
                    "recall": _or_none(self.recall[label]),
                    "f1": _or_none(self.f1[label]),
                    "support": int(self.support[label]),
                }
                for label, name in enumerate(self.class_names)
            ],
            "confusion": self.confusion.tolist(),
            "calibration": [
                {
                    "images": int(images),
                    "confidence": _or_none(confidence),
                    "accuracy": _or_none(accuracy),
                }
                for images, confidence, accuracy in zip(
                    self.calibration.images,
                    self.calibration.confidence,
                    self.calibration.accuracy,
                    strict=True,
                )
            ],
        }


def evaluate_probabilities(
    probabilities, labels, *, class_names=(), images_per_second=None
):
    """Compares predicted class distributions with the true classes.

    Args:
      probabilities: [images, classes]; rows sum to 1. In float64 not even a
        likelihood of 1e-15 is cut off.
      labels: [images] integers, 0 to classes - 1.
      class_names: [classes] strings; by default the classes' numbers.
      images_per_second: see `Evaluation`.

    Returns:
      `Evaluation`.

    Raises:
      ValueError: if shapes, labels or names do not fit each other, there is no
        image, or rows are not distributions.
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    _check(probabilities, labels, class_names)
    # scikit-learn requires sums of 1 to the last bits of float64.
    probabilities = probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    count = probabilities.shape[1]
    classes = np.arange(count)
    predictions = probabilities.argmax(axis=-1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=np.nan
    )
    *macro, _ = metrics.precision_recall_fscore_support(
        labels,
        predictions,
        labels=np.unique(labels),
        average="macro",
        zero_division=0.0,
    )
    return Evaluation(
        images=len(labels),
        top_1=float(metrics.accuracy_score(labels, predictions)),
        top_5=_top_5(probabilities, labels),
        # scikit-learn rejects problems of a single class, where nll is 0.
        nll=float(metrics.log_loss(labels, probabilities, labels=classes))
        if count > 1
        else 0.0,
        precision=precision,
        recall=recall,
        f1=f1,
        macro={
            name: float(mean) for name, mean in zip(MACRO, macro, strict=True)
        },
        confusion=metrics.confusion_matrix(labels, predictions, labels=classes),
        calibration=calibrate(
            probabilities.max(axis=-1), predictions == labels
        ),
        class_names=tuple(class_names) or tuple(map(str, classes)),
        images_per_second=images_per_second,
        mistakes=_mistakes(probabilities.max(axis=-1), predictions, labels),
    )


def _mistakes(confidences, predictions, labels):
    wrong = np.flatnonzero(predictions != labels)
    surest = wrong[np.argsort(-confidences[wrong], kind="stable")]
    return tuple(
        Mistake(
            int(place),
            int(labels[place]),
            int(predictions[place]),
            float(confidences[place]),
        )
        for place in surest[:MISTAKES]
    )


def calibrate(confidences, right, *, bins=CALIBRATION_BINS):
    """Sorts predictions into bins by their confidence.

    scikit-learn's `calibration_curve` has the same bins, but does not say how
    many images are in each.

    Args:
      confidences: [images] in [0, 1].
      right: [images] bool.
      bins: how many.

    Returns:
      `Calibration`.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    places = np.searchsorted(edges[1:-1], confidences)
    images = np.bincount(places, minlength=bins)
    sure = np.bincount(places, weights=confidences, minlength=bins)
    found = np.bincount(places, weights=right, minlength=bins)
    filled = np.where(images, images, np.nan)
    return Calibration(images, sure / filled, found / filled)


def _top_5(probabilities, labels):
    """Among equally probable classes the first count, as in top-1."""
    count = probabilities.shape[1]
    if count <= TOP:
        return None
    # scikit-learn takes the last ones, so the classes are passed in reverse.
    return float(
        metrics.top_k_accuracy_score(
            count - 1 - labels,
            probabilities[:, ::-1],
            k=TOP,
            labels=np.arange(count),
        )
    )


def _check(probabilities, labels, class_names):
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"probabilities have shape {list(probabilities.shape)} and labels "
            f"{list(labels.shape)}; pass [images, classes] and [images]."
        )
    images, count = probabilities.shape
    if not images:
        raise ValueError("There are no images to evaluate on; give some.")
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels have type {labels.dtype}; pass class numbers as integers."
        )
    if not 0 <= labels.min() <= labels.max() < count:
        raise ValueError(
            f"labels range from {labels.min()} to {labels.max()}, but the "
            f"network has {count} classes; pass labels from 0 to {count - 1}."
        )
    if len(class_names) not in (0, count):
        raise ValueError(
            f"class_names has {len(class_names)} entries for {count} classes; "
            "name all of them or none."
        )
    sums = probabilities.sum(axis=-1, dtype=np.float64)
    # Catches NaN too. A network that computes in bfloat16 still gives float32
    # logits, so rows are exact to about 1e-6.
    if not np.all((np.abs(sums - 1) < 1e-4) & (probabilities >= 0).all(-1)):
        raise ValueError(
            "probabilities have rows that are not distributions over classes; "
            "pass softmax(logits)."
        )


def _or_none(value):
    return None if math.isnan(value) else float(value)
