"""What run.py trains: methods, settings, and their combinations."""

import dataclasses

from meta_pseudo_labels.learners.feedback import ESTIMATORS

CONTROLS = ("supervised", "pseudo labels")
METHODS = (*CONTROLS, "off", "release")
METHODS += tuple(name for name in ESTIMATORS if name not in METHODS)
# Their feedback is a mean over the unlabeled points, as in the paper, and so
# smaller by their number than the gradient, which is a sum.
MEANS = tuple(
    name
    for name in ESTIMATORS
    if ESTIMATORS[name].mean
    # Without a gradient, and of its own scale.
    and name not in ("release", "reinforce_cosine")
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the paper leaves open, and our choices.

    Attributes:
      num_steps: of each network. Not published.
      learning_rate: of SGD. The paper's is 0.1, which takes ten times longer.
      batch_size: unlabeled points per step.
      consistency: weight of the added UDA term; 0 for none.
      view_noise: standard deviation of the noise that a strong view adds.
      feedback_weight: weight of the student's feedback to its teacher.
      label_temperature: of the teacher's pseudo labels; below 1 sharpens.
      pseudo_labels: "soft", "hard", "sampled"; None for the estimator's own.
    """

    num_steps: int = 5_000
    learning_rate: float = 1.0
    batch_size: int = 128
    consistency: float = 0.0
    view_noise: float = 0.0
    feedback_weight: float = 1.0
    label_temperature: float = 0.25
    pseudo_labels: str | None = None


LABELS_ALONE = Settings()
WITH_CONSISTENCY = Settings(consistency=4.0, view_noise=0.3)

_LONG = ("supervised", "off", "exact")

# What was tried: changes to the settings without and with a consistency term,
# and the methods that each change affects.
_BOTH = (
    ({}, ("off", "exact", "reinforce")),
    ({"feedback_weight": 10.0}, ("exact", "reinforce")),
    ({"feedback_weight": 100.0}, ("exact",)),
    ({"feedback_weight": 128.0}, ("reinforce",)),
    ({"label_temperature": 1.0}, ("off", "exact")),
    ({"pseudo_labels": "hard"}, ("off", "reinforce")),
    ({"learning_rate": 0.1, "num_steps": 30_000}, _LONG),
)
_CONSISTENCY = (
    ({"feedback_weight": 0.1}, ("exact",)),
    ({"consistency": 1.0}, ("off", "exact")),
    ({"consistency": 8.0}, ("off", "exact")),
    ({"view_noise": 0.2}, ("off", "exact")),
    ({"num_steps": 20_000}, _LONG),
)


def table_tasks(methods):
    """Pairs (method, settings) of the table."""
    return [
        (method, dataclasses.replace(base, **changes))
        for base in (LABELS_ALONE, WITH_CONSISTENCY)
        for method in methods
        for changes in ({}, *_more(method, base))
    ]


def _more(method, base):
    """Further changes of the settings that a method is trained with."""
    if method == "off":  # The control for methods that draw their labels.
        return [{"pseudo_labels": "sampled"}]
    if method in MEANS:
        return [{"feedback_weight": float(base.batch_size)}]
    return []


def search_tasks(methods=METHODS):
    """Pairs (method, settings) of the search, for the methods it tries."""
    return [
        (method, dataclasses.replace(base, **changes))
        for base, trials in (
            (LABELS_ALONE, _BOTH),
            (WITH_CONSISTENCY, _BOTH + _CONSISTENCY),
        )
        for changes, tried in trials
        for method in tried
        if method in methods
    ]
