"""The release itself: its recorded runs, its variables, its checkpoints."""

from meta_pseudo_labels.release.load_report import LoadReport
from meta_pseudo_labels.release.replay import replay
from meta_pseudo_labels.release.variables import (
    load_release_variables,
    release_variables,
    save_release_checkpoint,
)

__all__ = [
    "LoadReport",
    "load_release_variables",
    "release_variables",
    "replay",
    "save_release_checkpoint",
]
