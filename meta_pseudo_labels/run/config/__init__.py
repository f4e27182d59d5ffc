"""The settings of a run, and their flags."""

from meta_pseudo_labels.run.config.core import METHODS, TASK_MODES, Config

__all__ = ["METHODS", "TASK_MODES", "Config"]
