"""Meta Pseudo Labels in TensorFlow 2 and Keras 3.

    learner = MetaPseudoLabels(student, teacher)
    learner.compile(Momentum(0.1), metrics=["accuracy"])
    learner.fit(data.training_dataset(...), steps_per_epoch=1_000, epochs=10)

Learners are Keras models; `Experiment` runs all stages from a `Config`.
"""

import sys

from meta_pseudo_labels._version import __version__
from meta_pseudo_labels.utils.lazy import attach

# The public API: the module that each name is loaded from on first use.
_NAMES = {
    "AdamW": "optimizers",
    "AlignedUDA": "learners",
    "Config": "run.config",
    "ConfigError": "utils.settings",
    "Evaluation": "evaluation.metrics",
    "Experiment": "run.experiment",
    "LARS": "optimizers",
    "MetaPseudoLabels": "learners",
    "Momentum": "optimizers",
    "PseudoLabels": "learners",
    "RMSProp": "optimizers",
    "ReducedMPL": "learners",
    "Supervised": "learners",
    "UDA": "learners",
    "UDASettings": "learners",
    "WaitWarmupDecay": "optimizers",
    "data": "data",
    "evaluate": "evaluation.evaluate",
    "export_saved_model": "export.saved_model",
    "finetune": "learners.finetuning",
    "load_release_variables": "release",
    "models": "models",
    "replay": "release.replay",
}

__all__ = ["__version__", *_NAMES]
__getattr__, __dir__ = attach(__name__, _NAMES)

if "keras" in sys.modules:  # Keras may be about to load our files.
    from meta_pseudo_labels import learners as learners  # noqa: E402
