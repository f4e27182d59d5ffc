"""The diagnosis of a trained run: `mpl diagnose`."""

import importlib.util
import json

import numpy as np

from meta_pseudo_labels import data
from meta_pseudo_labels.evaluation.diagnosis.figure import draw
from meta_pseudo_labels.evaluation.diagnosis.measure import diagnose
from meta_pseudo_labels.evaluation.diagnosis.summary import as_text
from meta_pseudo_labels.learners.callbacks import position
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.optimizers.schedules import scale_by_batch
from meta_pseudo_labels.run.config.after_training import DiagnosisSettings
from meta_pseudo_labels.run.data import training_batches
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.run.labeled_choice import check_choice_of_labels
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.run.teacher_labels import load_teacher_labels
from meta_pseudo_labels.utils.files import reports_full_disk, write_whole
from meta_pseudo_labels.utils.settings import ConfigError, user_error

# Few enough to fit in memory as one batch, whatever their size.
HELD_OUT_IMAGES = 512
DIAGNOSIS, FIGURE = "diagnosis.json", "diagnosis.png"


@STAGES.register("diagnose")
class Diagnose(Stage):
    help = "Measure what the feedback of mpl is worth."
    settings = (DiagnosisSettings,)
    files = (
        RunFile(DIAGNOSIS, "what the feedback is worth"),
        RunFile(FIGURE, "the same, as a figure"),
    )

    @staticmethod
    def run(experiment):
        print(experiment.diagnose())
        print(f"Figure: {experiment.folder.path(FIGURE)}")

    @staticmethod
    def check(config):
        if not LEARNERS[config.method].has_feedback:
            raise ConfigError(
                "`mpl diagnose` measures the feedback from a student to "
                f"its teacher; --method={config.method} has none."
            )


def diagnose_run(learner, config, images):
    """Diagnoses a run at its latest checkpoint, on the batches that follow it.

    Writes only diagnosis.json and diagnosis.png, to the run's folder.

    Args:
      learner: the `MetaPseudoLabels` of that checkpoint.
      config: `Config` of the run.
      images: `data.ImageData` or `data.ShardedData` of the run.

    Returns:
      A table and how to read it, for a terminal.

    Raises:
      ConfigError: if the settings do not allow it, the data has changed, or
        there are no held-out images.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "`mpl diagnose` draws with matplotlib, which is not "
            "installed: pip install 'meta-pseudo-labels[figures]'."
        )
    check_choice_of_labels(config, images)
    distributions = load_teacher_labels(config, images)
    step = int(learner.step.numpy())
    batches = training_batches(
        config,
        images,
        start_step=position(learner),  # Skipped batches count too.
        distributions=distributions,
    )
    rate = config.diagnose_lr
    if rate is None:
        rate = scale_by_batch(config.mpl_student_lr, config.train_batch_size)
    found = user_error(
        diagnose,
        learner,
        batches.take(config.diagnose_batches),
        held_out=user_error(
            held_out_images, images, count=HELD_OUT_IMAGES, seed=config.seed
        ),
        draws=config.diagnose_draws,
        learning_rate=rate,
        start_step=step,
    )
    found["settings"]["held_out_part"] = held_out_part(images)
    folder = RunFolder(config.output_dir)
    with reports_full_disk(folder):
        write_whole(
            folder.path(DIAGNOSIS),
            json.dumps(found, indent=1, allow_nan=False) + "\n",
        )
        draw(found, folder.path(FIGURE))
    return as_text(found)


def held_out_part(images):
    """The images that a diagnosis uses: "validation" if any, otherwise "test".

    Args:
      images: `data.ImageData` or `data.ShardedData`.
    """
    split = getattr(images, "validation_images", None)
    return "test" if split is None else "validation"


def held_out_images(images, *, count, seed):
    """Images that no network learned from, prepared as for evaluation.

    They come from `held_out_part`.

    Args:
      images: `data.ImageData` or `data.ShardedData`.
      count: how many at most.
      seed: int; selects the images if there are more.

    Returns:
      [n, H, W, 3] float32 and [n] int32.

    Raises:
      ValueError: if there are none.
    """
    part = held_out_part(images)
    held_out = getattr(images, f"{part}_images")
    labels = getattr(images, f"{part}_labels")
    if not len(held_out):
        raise ValueError(
            f"{images.spec.name!r} has no test images, and a diagnosis "
            "needs images that were not trained on; hold some out with "
            "--num_validation in another run, or name an --eval_dir."
        )
    random = np.random.RandomState([seed, len(held_out)])
    chosen = np.sort(random.permutation(len(held_out))[:count])
    dataset = data.evaluation_dataset(
        held_out[chosen],
        None if labels is None else labels[chosen],
        spec=images.spec,
        batch_size=count,
    )
    return next(iter(dataset))
