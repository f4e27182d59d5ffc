"""Exports a run's student as a new version of its SavedModel, with a card."""

import dataclasses
import os

from absl import logging

from meta_pseudo_labels.data.class_distributions import images_digest
from meta_pseudo_labels.export.card import (
    build_card,
    summary_lines,
    write_card,
)
from meta_pseudo_labels.export.litert import write_litert
from meta_pseudo_labels.export.onnx import check_installed, write_onnx
from meta_pseudo_labels.export.saved_model import export_saved_model
from meta_pseudo_labels.learners.build import build_model
from meta_pseudo_labels.run.config.after_training import ExportSettings
from meta_pseudo_labels.run.folder import EVAL, EVAL_REPORT, RunFolder
from meta_pseudo_labels.run.progress import counted
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.utils.checkpoint_files import weights_digest
from meta_pseudo_labels.utils.files import read_json, reports_full_disk
from meta_pseudo_labels.utils.settings import user_error

SAVED_MODEL = "saved_model"
KERAS_FILE = "student.keras"


@STAGES.register("export")
class Export(Stage):
    help = "Export the student, finetuned if it was, as a SavedModel."
    settings = (ExportSettings,)
    files = (RunFile(SAVED_MODEL, "the exported student, versions 1, 2, ..."),)

    @staticmethod
    def run(experiment):
        path = experiment.export()
        network = "finetuned" if experiment.is_finetuned() else "student"
        print(f"Exported: {path} ({network})")
        for line in summary_lines(path):
            print(line)

    @staticmethod
    def check(config):
        if config.export_onnx:
            check_installed()


def export_run(student, config, data, *, network, step):
    """Writes the next version of the SavedModel in a run's folder.

    With export_keras, export_litert and export_onnx, its assets.extra also
    holds the student in these formats.

    Args:
      student: the network to export.
      config: `Config` of the run.
      data: `ImageData` or `ShardedData` of the run.
      network: its name on the card: "finetuned" or "student".
      step: of training, for the card.

    Returns:
      The folder of the version.

    Raises:
      ConfigError: if it cannot be written there.
    """
    folder = RunFolder(config.output_dir)
    model = plain_student(student, config, data.spec)
    card = build_card(
        model,
        config,
        data,
        network=network,
        step=step,
        metrics=recorded_accuracies(
            folder, step, {network: weights_digest(model)}, data
        ),
    )

    def add(folder):
        count(1)  # The SavedModel itself.
        if config.export_keras:
            model.save(os.path.join(folder, KERAS_FILE))
            card["keras_file"] = KERAS_FILE
            count(1)
        if config.export_litert:
            card["litert"] = write_litert(model, folder, data)
            count(1)
        if config.export_onnx:
            card["onnx"] = write_onnx(model, folder, data)
            count(1)
        write_card(card, folder)

    path = folder.path(SAVED_MODEL)
    extras = (config.export_keras, config.export_litert, config.export_onnx)
    formats = 1 + sum(extras)
    with (
        reports_full_disk(path),
        counted("export", formats, 0, config, unit="format") as count,
    ):
        return user_error(
            export_saved_model, model, path, spec=data.spec, add=add
        )


def plain_student(student, config, spec):
    """The same network in float32, without what only training needs.

    Servers may lack bfloat16 or compute it slowly, and rematerialization has
    no gradients to save memory for here.
    """
    config = dataclasses.replace(config, remat=False)
    plain = build_model(config, spec, role="student", dtype="float32")
    plain.set_weights(student.get_weights())
    return plain


def recorded_accuracies(folder, step, weights, data):
    """The contents of eval.json; None if it is of anything else.

    Args:
      folder: `RunFolder`.
      step: of the checkpoint.
      weights: `weights_digest` by network, for those to report.
      data: `ImageData` or `ShardedData`, with the test images.
    """
    report, accuracies = (
        _json(folder.path(name)) or {} for name in (EVAL_REPORT, EVAL)
    )
    evaluated = report.get("weights", {})
    of_these = (
        report.get("step") == step and weights.items() <= evaluated.items()
    )
    if not of_these:
        return None
    evaluated = report.get("images_digest")  # Old reports have none.
    tested = images_digest(data.test_images, data.test_labels)
    if evaluated not in (None, tested):
        logging.warning(
            "The model card has no accuracies: %s is of other images than the "
            "test images of the run. Name them (--eval_dir), or run mpl eval.",
            folder.path(EVAL),
        )
        return None
    return accuracies


def _json(path):
    """The contents of a JSON file; None if there is no readable file."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
