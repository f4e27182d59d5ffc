"""The least memory that a run takes, compared with what the machine has.

A lower bound, before anything is built: what it refuses could not run, what it
accepts may still be too much.
"""

import os

from meta_pseudo_labels import models
from meta_pseudo_labels.data.spec import DATASETS
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.utils.settings import ConfigError

_FLOAT = 4  # Bytes.
# For every network in training: weights, gradients, momentum, and the copies
# that checkpoints are written from.
_COPIES = 4
_LIMITS = (  # Of a container, in bytes; "max" means none.
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def check_memory(config, *, image_size=None, num_classes=None, trains=True):
    """Refuses settings that need more memory than this machine has.

    Args:
      config: `Config`.
      image_size, num_classes: of the data, if they are known; otherwise from
        the settings.
      trains: whether networks are trained, not only evaluated.

    Raises:
      ConfigError: with the memory that they would take.
    """
    known = DATASETS.get(config.dataset)
    image_size = image_size or config.image_size or (known and known.image_size)
    num_classes = num_classes or (known and known.num_classes) or 2
    if not image_size:
        return
    shape = (image_size, image_size, 3)
    networks = [config.model_type, LEARNERS[config.method].teacher_type(config)]
    weights = sum(
        models.fewest_weights(name, input_shape=shape, num_classes=num_classes)
        for name in filter(None, networks)
    )
    images = config.eval_batch_size
    if trains:
        weights *= _COPIES
        workers = max(1, len(config.addresses))
        passes = max(LEARNERS[config.method].passes(config))
        images = config.train_batch_size * passes // workers
        if os.environ.get("TF_CONFIG") and not config.addresses:
            images = 0  # Shared by workers not counted yet.
    pixels = images * image_size**2 * 3
    needed, there = _FLOAT * (weights + pixels), memory_bytes()
    if there is not None and needed > there:
        raise ConfigError(
            f"--model_type={config.model_type} and {images:,} images of "
            f"{image_size} x {image_size} pixels in a step take "
            f"at least {needed / 2**30:,.1f} GB; this machine has "
            f"{there / 2**30:,.1f} GB. Use a smaller network, image or batch."
        )


def memory_bytes():
    """Of this machine, or of its container; None if not known."""
    found = []
    try:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (OSError, ValueError):  # Not on this system.
        pass
    for path in _LIMITS:
        try:
            with open(path) as file:
                found.append(int(file.read()))
        except (OSError, ValueError):  # None, or "max".
            continue
    return min((number for number in found if number > 0), default=None)
