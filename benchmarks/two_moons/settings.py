"""What run.py trains: methods, settings, and which with which."""

import dataclasses

from meta_pseudo_labels.learners.feedback import ESTIMATORS

CONTROLS = ("supervised", "pseudo labels")
METHODS = (*CONTROLS, "off", "release")
METHODS += tuple(name for name in ESTIMATORS if name not in METHODS)
# Their feedback is a mean over the unlabeled points, as in the paper, and so
# that much smaller than the gradient, which is a sum.
MEANS = ("reinforce", "reinforce_dot_product")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the paper leaves open, and where we leave it.

    Attributes:
      num_steps: of each network. Not published.
      learning_rate: of SGD. The paper's is 0.1, which takes ten times longer.
      batch_size: unlabeled points in a step.
      consistency: weight of the UDA term beside the labels; 0 is none.
      view_noise: standard deviation of what a strong view adds to a point.
      feedback_weight: of the student's feedback to its teacher.
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

# What was tried: what differs from the settings without and with a consistency
# term, and the methods for which that is another setting.
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
    """What a method is also trained with: changes of the settings."""
    if method == "off":  # The control of those that draw their labels.
        return [{"pseudo_labels": "sampled"}]
    if method in MEANS:
        return [{"feedback_weight": float(base.batch_size)}]
    return []


def search_tasks(methods=METHODS):
    """Pairs (method, settings) of the search, of those methods it is about."""
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
