"""Meta Pseudo Labels in TensorFlow 2 and Keras 3.

    learner = MetaPseudoLabels(student, teacher)
    learner.compile(Momentum(0.1), metrics=["accuracy"])
    learner.fit(data.training_dataset(...), steps_per_epoch=1_000, epochs=10)

Learners are Keras models; `Experiment` runs all stages from a `Config`.
"""

from meta_pseudo_labels import data, models
from meta_pseudo_labels._version import __version__
from meta_pseudo_labels.evaluation.evaluate import evaluate
from meta_pseudo_labels.evaluation.metrics import Evaluation
from meta_pseudo_labels.export.saved_model import export_saved_model
from meta_pseudo_labels.learners import (
    UDA,
    MetaPseudoLabels,
    PseudoLabels,
    ReducedMPL,
    Supervised,
    UDASettings,
)
from meta_pseudo_labels.learners.finetuning import finetune
from meta_pseudo_labels.optimizers import LARS, Momentum, RMSProp
from meta_pseudo_labels.optimizers.schedules import WaitWarmupDecay
from meta_pseudo_labels.release import load_release_variables, replay
from meta_pseudo_labels.run.config.config import Config, ConfigError
from meta_pseudo_labels.run.experiment import Experiment

__all__ = [
    "LARS",
    "UDA",
    "Config",
    "ConfigError",
    "Evaluation",
    "Experiment",
    "MetaPseudoLabels",
    "Momentum",
    "PseudoLabels",
    "RMSProp",
    "ReducedMPL",
    "Supervised",
    "UDASettings",
    "WaitWarmupDecay",
    "__version__",
    "data",
    "evaluate",
    "export_saved_model",
    "finetune",
    "load_release_variables",
    "models",
    "replay",
]
