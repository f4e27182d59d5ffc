"""The settings of a run, and their flags."""

from meta_pseudo_labels.run.config.core import Config

__all__ = ["Config"]
