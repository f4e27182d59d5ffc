"""Inference with a run, block by block; it resumes after a kill."""

import collections
import concurrent.futures
import dataclasses
import signal

import numpy as np
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.evaluation.evaluate import predict_logits
from meta_pseudo_labels.run.config.inference import InferenceSettings
from meta_pseudo_labels.run.folder import INFERENCE
from meta_pseudo_labels.run.inference.files import PredictionFiles
from meta_pseudo_labels.run.inference.networks import (
    check_checkpoints,
    checkpoint_networks,
)
from meta_pseudo_labels.run.inference.rows import (
    row_schema,
    row_table,
)
from meta_pseudo_labels.run.inference.sources import open_source
from meta_pseudo_labels.run.progress import counted
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.run.stopping import Interrupted, watch_signals
from meta_pseudo_labels.utils.checkpoint_files import weights_digest
from meta_pseudo_labels.utils.files import locked, reports_full_disk
from meta_pseudo_labels.utils.settings import ConfigError, user_error

NOT_FINITE = "the network's logits are not finite"
# Processes that predict at a time have these of their own.
_TELL_APART = "--inference_thread_index or --inference_name"
_DIGITS = 16  # Of a digest: enough to tell two apart, and still readable.


@STAGES.register("inference")
class Predict(Stage):
    help = "Predict many images; see docs/inference.md."
    settings = (InferenceSettings,)
    files = (RunFile(INFERENCE, "predictions of images, in CSV and Parquet"),)

    @staticmethod
    def run(experiment):
        print(experiment.infer().as_text())

    @staticmethod
    def check(config):
        config.check_inference()


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The result of inference.

    Attributes:
      csv, parquet: paths of the two files, which have the same rows.
      images: how many there are; each has a row.
      errors: how many of them have no prediction.
      is_new: False if the files existed already.
    """

    csv: str
    parquet: str
    images: int
    errors: int
    is_new: bool

    def as_text(self):
        """Where they are, and for how many images; for a terminal."""
        done = "Predicted" if self.is_new else "Already predicted"
        failed = (
            f", {self.errors:,} of them failed: see `error`"
            if self.errors
            else ""
        )
        return (
            f"{done}: {self.images:,} images{failed}\n"
            f"  {self.csv}\n  {self.parquet}"
        )


def infer_run(experiment):
    """Predicts the classes of the images that the settings name.

    Writes two files, CSV and Parquet, to inference/ in output_dir. A row has
      image: name of the file within --inference_dir, or part and number;
      class, class_index, probability: the most probable class;
      error: why there is no prediction, if the image cannot be read or
        the network's logits are not finite;
      probability_<class>: float32, one for each class, which sum to 1; with
        inference_class_id, for that class only.

    Args:
      experiment: `Experiment` of a trained run.

    Returns:
      `Predictions`.

    Raises:
      ConfigError: if the images or networks that the settings ask for are
        not available, an image cannot be read and strict_data is set, or
        files of the same name hold other predictions.
      CheckpointError: see `checkpoint_networks`.
      Interrupted: by SIGTERM or Ctrl-C; the same call resumes.
    """
    config = experiment.config
    folder = experiment.folder
    folder.require(must_exist=True)
    check_checkpoints(config)
    spec = experiment.data.spec
    _check_class(config, spec)
    source = user_error(open_source, config, experiment.data)
    networks = checkpoint_networks(experiment)
    files = PredictionFiles(
        folder.path(INFERENCE),
        name=config.inference_name,
        index=config.inference_thread_index,
        shards=config.inference_shards,
        schema=row_schema(spec.names, config.inference_class_id),
    )
    numbers = np.arange(
        config.inference_thread_index, len(source), config.inference_shards
    )
    size = config.inference_block
    blocks = [numbers[i : i + size] for i in range(0, len(numbers), size)]
    with reports_full_disk(folder):
        settings = _settings(config, source, networks)
        files.claim(settings)
        is_new = not files.is_finished()
        if is_new or files.has_parts():
            with locked(files.parts, other=_TELL_APART):
                if not files.is_finished():
                    _write_parts(config, spec, source, networks, files, blocks)
                    files.join(len(blocks), settings)
                files.remove_parts()
            files.remove_empty()
    images, errors = files.counts()
    return Predictions(files.csv, files.parquet, images, errors, is_new)


def _check_class(config, spec):
    wanted = config.inference_class_id
    if wanted is not None and wanted >= spec.num_classes:
        raise ConfigError(
            f"--inference_class_id={wanted}, but {spec.name!r} has "
            f"{spec.num_classes} classes, 0 to {spec.num_classes - 1}."
        )


def _settings(config, source, networks):
    """What the rows depend on, the same for all processes that share them."""
    return {
        "data": config.inference_source,
        "split": config.inference_split,
        "images": len(source),
        "images_digest": source.digest[:_DIGITS],
        "networks": len(networks),
        "weights_digest": weights_digest(*networks)[:_DIGITS],
        "class_id": config.inference_class_id,
        "block": config.inference_block,
    }


def _write_parts(config, spec, source, networks, files, blocks):
    """Writes the parts that are missing."""
    missing = [
        number
        for number, block in enumerate(blocks)
        if not files.has_part(number, len(block))
    ]
    total = sum(map(len, blocks))
    done = total - sum(len(blocks[number]) for number in missing)
    with (
        watch_signals() as signals,
        counted("inference", total, done, config, unit="image") as count,
    ):
        read = read_ahead(source, [blocks[number] for number in missing])
        for number, (images, reasons) in zip(missing, read, strict=True):
            names = [source.name(image) for image in blocks[number]]
            if config.strict_data and reasons:
                _refuse(names, reasons, source.place)
            probabilities = _probabilities(
                networks, images, reasons, spec, config.eval_batch_size
            )
            broken = ~np.isfinite(probabilities).all(axis=-1)
            reasons |= dict.fromkeys(np.flatnonzero(broken), NOT_FINITE)
            rows = row_table(
                files.schema,
                class_names=spec.names,
                names=names,
                reasons=reasons,
                probabilities=probabilities,
                class_id=config.inference_class_id,
            )
            files.write_part(number, rows)
            done += len(names)
            count(len(names))
            if signals:
                raise Interrupted(
                    f"{signal.Signals(signals[0]).name} ended inference after "
                    f"{done} of {total} images. The same command resumes it."
                )


def read_ahead(source, blocks):
    """Reads blocks of images, each while the previous one is predicted."""
    reader = concurrent.futures.ThreadPoolExecutor(1)
    ahead = collections.deque()
    try:
        for block in blocks:
            ahead.append(reader.submit(source.read, block))
            if len(ahead) > 1:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        reader.shutdown(cancel_futures=True)


def _refuse(names, reasons, place):
    first = min(reasons)
    raise ConfigError(
        f"{names[first]} in {place} is not a usable image "
        f"({reasons[first]}); fix or remove it, or set --nostrict_data, which "
        "explains it in the column `error`."
    )


def _probabilities(networks, images, reasons, spec, batch_size):
    """[n, classes] float32; meaningless where there is a reason.

    The mean of the networks' probabilities, for images prepared as in
    evaluation.
    """
    usable = np.ones([len(images)], bool)
    usable[list(reasons)] = False
    found = np.zeros([len(images), spec.num_classes], np.float32)
    if not usable.any():
        return found
    dataset = data.evaluation_dataset(
        images[usable],
        np.zeros([usable.sum()], np.int32),  # There are no labels.
        spec=spec,
        batch_size=batch_size,
    )
    each = [_softmax(network, dataset) for network in networks]
    found[usable] = np.mean(each, axis=0)
    return found


def _softmax(network, dataset):
    logits, _ = predict_logits(network, dataset)
    return tf.nn.softmax(tf.cast(logits, tf.float32)).numpy()
