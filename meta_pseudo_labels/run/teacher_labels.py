"""The labels of a fixed teacher: from one run's folder to another run.

The run that trains the teacher leaves class distributions in its folder
(`mpl cache_labels`); another one learns from them (`--teacher_labels`), or from
the mean of those of several runs.
Three things could go stale, and each is detected: the images, by the file's
fingerprint of them; the teacher, by a digest of its weights; and the file that
a run began with, by a digest of its content. A run that has begun goes on with
that file, whatever became of the teacher.
"""

import json
import os

from meta_pseudo_labels import data
from meta_pseudo_labels.data.class_distributions import (
    CLASS_DISTRIBUTIONS,
    distributions_path,
)
from meta_pseudo_labels.evaluation.evaluate import class_distributions
from meta_pseudo_labels.run.finetuned import finetuned_from
from meta_pseudo_labels.run.folder import TEACHER_LABELS, RunFolder
from meta_pseudo_labels.run.progress import counted
from meta_pseudo_labels.run.restoring import checkpoints_of
from meta_pseudo_labels.utils.checkpoint_files import (
    CheckpointError,
    files_digest,
)
from meta_pseudo_labels.utils.files import is_inside, read_object, write_whole
from meta_pseudo_labels.utils.settings import (
    ConfigError,
    command_for,
    several_paths,
    user_error,
)


def cache_labels(network, config, images):
    """Writes the class distributions of a run's network for all images.

    Args:
      network: of the run, see `inference.network_of`.
      config: `Config` of the run.
      images: `data.ImageData` or `data.ShardedData`.

    Returns:
      The path of the file.
    """
    model_type = config.model_type
    if config.inference_network == "teacher":
        model_type = config.teacher_model_type or model_type
    source = {
        "output_dir": config.output_dir,
        "network": config.inference_network,
        "model_type": model_type,
        "method": config.method,
        "from_checkpoint": config.from_checkpoint,
        "weights": _weights_digest(config.output_dir, config.from_checkpoint),
    }
    path = RunFolder(config.output_dir).path(CLASS_DISTRIBUTIONS)
    total = len(images.labeled_images) + len(images.unlabeled_images)
    with counted("cache_labels", total, 0, config, unit="image") as count:
        distributions = class_distributions(
            network,
            images,
            batch_size=config.eval_batch_size,
            source=source,
            count=count,
        )
    data.save_class_distributions(distributions, path, data=images)
    return path


def load_teacher_labels(config, images, *, fresh=False):
    """The class distributions that a run learns from; None if it has none.

    For several files, their mean.

    Args:
      config: `Config` of the run.
      images: `data.ImageData` or `data.ShardedData`.
      fresh: whether to ignore the run that output_dir holds.

    Raises:
      ConfigError: if they cannot be read, are of other images or labels, their
        teacher was trained further before the run began, they are in the
        folder of the run itself, or the run began with others.
    """
    if not config.teacher_labels:
        return None
    paths = several_paths("teacher_labels", config.teacher_labels)
    parts = [_distributions_of(path, config, images) for path in paths]
    found = parts[0]
    if len(parts) > 1:
        found = user_error(data.mean_distributions, parts)
    if not fresh and _began_with(config, found):
        return found
    for path, part in zip(paths, parts, strict=True):
        _check_up_to_date(path, part)
    return found


def check_teacher_labels(config, images):
    """Refuses labels other than those that a finished run learned.

    Labels that are gone are not checked.

    Args:
      config, images: see `load_teacher_labels`.

    Raises:
      ConfigError: if the labels differ.
    """
    if config.teacher_labels:
        paths = several_paths("teacher_labels", config.teacher_labels)
        if all(map(os.path.exists, map(distributions_path, paths))):
            load_teacher_labels(config, images)


def _distributions_of(path, config, images):
    """The `ClassDistributions` of one file, or of the folder of one run."""
    if is_inside(path, config.output_dir):
        raise ConfigError(
            f"--teacher_labels={path} is in --output_dir: the teacher needs a "
            "folder of its own; name another --output_dir."
        )
    return user_error(data.load_class_distributions, path, data=images)


def _check_up_to_date(path, distributions):
    """Raises ConfigError if the run next to a file was trained since."""
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    source = distributions.source
    # Older files do not tell, and took the latest.
    wanted = source.get("from_checkpoint", "latest")
    then, now = source.get("weights"), _weights_digest(folder, wanted)
    if None not in (then, now) and then != now:
        raise ConfigError(
            f"--teacher_labels={path}: the run in {folder} has been trained or "
            "finetuned since its labels were written; write them again: "
            f"{_command(folder)}"
        )


def _began_with(config, distributions):
    """Whether a run began with these teacher labels; False if it did not begin.

    Raises:
      ConfigError: if it began with others.
    """
    path = RunFolder(config.output_dir).path(TEACHER_LABELS)
    if not os.path.exists(path):
        return False
    began = read_object(
        path,
        "the teacher labels of a run",
        keys=("digest",),
        mend="Restore it, or train in another --output_dir.",
    )
    if began["digest"] != distributions.digest:
        raise ConfigError(
            f"--teacher_labels={config.teacher_labels} has other labels than "
            f"when the run in {config.output_dir} began. Restore them, or "
            "train in another --output_dir."
        )
    return True


def save_teacher_labels(config, distributions):
    """Writes teacher_labels.json: where the labels of a run come from."""
    if distributions is None:
        return
    text = json.dumps(
        {"digest": distributions.digest, "source": distributions.source},
        indent=2,
    )
    write_whole(RunFolder(config.output_dir).path(TEACHER_LABELS), text + "\n")


def _weights_digest(folder, wanted):
    """A hash of the weights that a run's predictions come from.

    A checkpoint's index holds a checksum of every tensor.

    Args:
      folder: of the run.
      wanted: its from_checkpoint.

    Returns:
      The hash; None if there is no such checkpoint, or no run.
    """
    try:
        found = checkpoints_of(wanted, folder)
    except CheckpointError:
        return None
    if not found:
        return None
    checkpoint = found[0]
    step = checkpoint.rpartition("-")[2]
    finetuned = finetuned_from(RunFolder(folder), checkpoint, step)
    return files_digest(f"{checkpoint}.index", finetuned)


def _command(folder):
    return command_for("cache_labels", str(folder))
