"""All networks of a run on the same images: which one to use?

eval.json             only the accuracies
eval_report.json      everything, see `metrics.Evaluation`
eval_confusion.png    eval_reliability.png    the same in events/
eval_mistakes.json    the most confident mistakes, with the pictures
"""

import dataclasses
import json
import os

import tensorflow as tf
from absl import logging

from meta_pseudo_labels.data import inspection
from meta_pseudo_labels.data.class_distributions import images_digest
from meta_pseudo_labels.evaluation.evaluate import evaluate_networks
from meta_pseudo_labels.evaluation.figures import (
    confusion_sheet,
    reliability_sheet,
)
from meta_pseudo_labels.evaluation.metrics import Evaluation
from meta_pseudo_labels.export.loading import ExportedModel
from meta_pseudo_labels.learners.build import build_model
from meta_pseudo_labels.run.closing import closing_summary
from meta_pseudo_labels.run.config.after_training import EvaluationSettings
from meta_pseudo_labels.run.data import input_errors
from meta_pseudo_labels.run.folder import (
    EVAL,
    EVAL_CONFUSION,
    EVAL_MISTAKES,
    EVAL_RELIABILITY,
    EVAL_REPORT,
    EVAL_SOURCES,
)
from meta_pseudo_labels.run.progress import counted
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.run.test_images import (
    evaluation_source,
    results_folder,
    validation_source,
)
from meta_pseudo_labels.utils.checkpoint_files import weights_digest
from meta_pseudo_labels.utils.deleting import delete
from meta_pseudo_labels.utils.files import reports_full_disk, write_whole
from meta_pseudo_labels.utils.settings import user_error
from meta_pseudo_labels.utils.text_tables import text_table

FIGURES = {EVAL_CONFUSION: confusion_sheet, EVAL_RELIABILITY: reliability_sheet}


@STAGES.register("eval")
class Evaluate(Stage):
    help = "Evaluate all networks of one checkpoint on the same images."
    settings = (EvaluationSettings,)
    files = (
        RunFile(EVAL, "these accuracies", shown=True),
        RunFile(EVAL_REPORT, "all metrics, also by class", shown=True),
        RunFile(EVAL_CONFUSION, "confusion matrices", shown=True),
        RunFile(EVAL_RELIABILITY, "calibration", shown=True),
        RunFile(EVAL_MISTAKES, "the most confident mistakes"),
        RunFile(EVAL_SOURCES, "the same for other images"),
    )
    next = "export"

    @staticmethod
    def run(experiment):
        print(experiment.judge().as_text())
        print(closing_summary(experiment))

    @staticmethod
    def results_folder(config):
        return results_folder(config)


@dataclasses.dataclass(frozen=True)
class EvaluationReport:
    """How good the networks of a run are.

    Attributes:
      images: a description of the images, for the reader.
      step: of the checkpoint.
      networks: `metrics.Evaluation` by network.
      validation: the same on the held-out images; empty if there are none.
      skipped: a line about images that could not be read, or None.
      weights: `weights_digest` by network, for those that can be exported.
      images_digest: see `data.class_distributions.images_digest`.
    """

    images: str
    step: int
    networks: dict[str, Evaluation]
    validation: dict[str, Evaluation]
    skipped: str | None = None
    weights: dict = dataclasses.field(default_factory=dict)
    images_digest: str | None = None

    @property
    def accuracies(self):
        """A dict by network; a validation split adds a dict of its own."""
        found = _accuracies(self.networks)
        if self.validation:
            found["validation"] = _accuracies(self.validation)
        return found

    @property
    def best(self):
        """The network with the best accuracy on the validation images.

        Ties go to the network with the higher likelihood there. None if no
        images are held out: the test images must not choose.
        """
        return max(
            self.validation,
            key=lambda name: (
                self.validation[name].top_1,
                -self.validation[name].nll,
            ),
            default=None,
        )

    def as_text(self):
        """A table with a row for each network, and the best, for a terminal."""
        rows = []
        for name, found in self.networks.items():
            rows.append({"network": name, "top-1": found.top_1})
            if found.top_5 is not None:
                rows[-1]["top-5"] = found.top_5
            rows[-1] |= {"ECE": found.ece, "nll": found.nll}
            if name in self.validation:
                rows[-1]["validation top-1"] = self.validation[name].top_1
            rows[-1]["images/s"] = found.images_per_second
        count = next(iter(self.networks.values())).images
        lines = [
            f"On {self.images} ({count:,}), step {self.step:,}:",
            text_table(rows),
            self._choice(),
        ]
        judged = list((self.validation or self.networks).values())
        if max(found.top_1 for found in judged) <= judged[0].chance:
            lines.append(
                "Warning: no better than guessing: always predicting the "
                f"largest class is right on {judged[0].chance:.4f} of these "
                "images."
            )
        if self.skipped:
            lines.append(f"Of these, {self.skipped}.")
        return "\n".join(lines)

    def _choice(self):
        if self.best is None:
            return (
                "These images must not be used to choose a network. The paper "
                "uses the finetuned student; --num_validation holds out images "
                "to choose by."
            )
        found = self.validation[self.best]
        tied = ", ".join(
            name
            for name, other in self.validation.items()
            if name != self.best and other.top_1 == found.top_1
        )
        return (
            f"Best on the {found.images:,} validation images: {self.best} "
            f"({found.top_1:.4f}{f', a tie with {tied}' if tied else ''})."
        )

    def to_dict(self):
        """The whole report, for JSON."""
        return {
            "images": self.images,
            "images_digest": self.images_digest,
            "step": self.step,
            "weights": self.weights,
            "best": self.best,
            "networks": _dicts(self.networks),
            "validation": _dicts(self.validation),
        }

    def save(self, folder):
        """Writes its files to a folder; see the module.

        Without matplotlib, a warning says that there are no figures.
        """
        os.makedirs(folder, exist_ok=True)
        with reports_full_disk(folder):
            for name, content in (
                (EVAL_REPORT, json.dumps(self.to_dict())),
                (EVAL, json.dumps(self.accuracies, indent=2)),
            ):
                write_whole(os.path.join(folder, name), content + "\n")
            self._draw(folder)

    def _draw(self, folder):
        try:
            for name, draw in FIGURES.items():
                draw(self.networks, os.path.join(folder, name))
        except ImportError as error:
            # Those of an earlier evaluation are of other networks or images.
            delete(*[os.path.join(folder, name) for name in FIGURES])
            logging.warning("%s", error)
            return
        writer = tf.summary.create_file_writer(os.path.join(folder, "events"))
        with writer.as_default(step=self.step):
            for name in FIGURES:
                with open(os.path.join(folder, name), "rb") as file:
                    image = tf.io.decode_png(file.read(), channels=3)
                title = f"eval/{name.removesuffix('.png')}"
                tf.summary.image(title, image[tf.newaxis])
        writer.close()


def evaluate_run(learner, finetuned, config, images):
    """Evaluates the networks of a run, and a SavedModel if one is named.

    Args:
      learner: restored from a checkpoint of the run.
      finetuned: the student finetuned from that checkpoint, or None.
      config: `Config` of the run.
      images: the run's `data.ImageData` or `data.ShardedData`.

    Returns:
      An `EvaluationReport`, which is also saved: in output_dir, or for other
      images in a folder there.

    Raises:
      ConfigError: if there are no images, or if their classes or those of the
        SavedModel are not the run's.
    """
    source = evaluation_source(config, images)
    held_out = validation_source(config, images)
    networks = {
        "student": learner,
        "student_raw": learner.student,
        "teacher": learner.teacher if learner.teacher_type(config) else None,
        "finetuned": finetuned,
    }
    exported = None
    if config.saved_model is not None:
        exported = user_error(ExportedModel, config.saved_model)
        with input_errors(source):
            _check_exported(exported, source, config)
    report = EvaluationReport(
        images=source.name,
        step=int(learner.step.numpy()),
        networks=_evaluate(networks, exported, source, config),
        validation=_evaluate(networks, exported, held_out, config)
        if held_out
        else {},
        # Those of the run itself are reported with its other images.
        skipped=inspection.skip_summary(source)
        if config.eval_dataset
        else None,
        weights={
            name: weights_digest(model)
            for name, model in (
                ("student", _averaged(learner, config, images.spec)),
                ("finetuned", finetuned),
            )
            if model is not None
        },
        images_digest=images_digest(source.images, source.labels),
    )
    folder = results_folder(config)
    report.save(folder)
    with reports_full_disk(folder):
        mistakes = pictured_mistakes(report.networks, source)
        write_whole(os.path.join(folder, EVAL_MISTAKES), json.dumps(mistakes))
    return report


def pictured_mistakes(evaluations, source):
    """The most confident mistakes of networks, ready for JSON.

    Args:
      evaluations: a dict from networks to `metrics.Evaluation`.
      source: `Source` of the images.

    Returns:
      For each network a list of dicts: the fields of `metrics.Mistake`, the
      "name" of the image, and its "picture", a data URL. Empty if records
      were skipped: it is then unknown which images the others are.
    """
    if any(e.images != len(source.images) for e in evaluations.values()):
        return {}
    places = sorted(
        {m.image for found in evaluations.values() for m in found.mistakes}
    )
    pictures = dict(zip(places, source.pictures(places), strict=True))
    return {
        network: [
            dataclasses.asdict(mistake)
            | {
                "name": source.image_name(mistake.image),
                "picture": pictures[mistake.image],
            }
            for mistake in found.mistakes
        ]
        for network, found in evaluations.items()
    }


def _averaged(learner, config, spec):
    """A student with the averages that an export of this step would have."""
    if learner.student_ema is None:
        return learner.student
    student = build_model(config, spec, role="student")
    learner.student_ema.copy_to(student)
    return student


def _check_exported(exported, source, config):
    batches = source.pixel_batches(config.eval_batch_size)
    images, _ = next(iter(batches))
    user_error(exported.check_fits, images, source.spec.names)


def _evaluate(networks, exported, source, config):
    """`metrics.Evaluation` by network."""
    size = config.eval_batch_size
    todo = [(networks, source.batches(size))]
    if exported is not None:
        todo.append(({"saved_model": exported}, source.pixel_batches(size)))
    total = len(todo) * len(source.images)
    found = {}
    with (
        input_errors(source),
        counted("eval", total, 0, config, unit="image") as count,
    ):
        for models, batches in todo:
            found |= evaluate_networks(
                models, batches, class_names=source.spec.names, count=count
            )
    return found


def _accuracies(evaluations):
    return {name: found.top_1 for name, found in evaluations.items()}


def _dicts(evaluations):
    return {name: found.to_dict() for name, found in evaluations.items()}
