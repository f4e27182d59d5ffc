"""The methods, by the names that --method takes."""

from meta_pseudo_labels.utils.registry import Registry

LEARNERS = Registry(
    "method",
    package="meta_pseudo_labels.learners",
    without=("build", "callbacks", "finetuning"),  # Loaded where they are used.
)
register = LEARNERS.register
