"""Where the release's variables come from: dicts and TF1 checkpoints."""

import dataclasses
import os
import re
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.utils.checkpoint_files import (
    CheckpointError,
    find_checkpoint,
)


@dataclasses.dataclass(frozen=True)
class Source:
    """Named arrays that are read one at a time.

    Attributes:
      name: for messages.
      shapes: from a variable's name to its shape.
      read: from a variable's name to its array.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


def open_source(source):
    """A `Source` for a dict, or for the path of a TF1 checkpoint.

    Raises:
      CheckpointError: if there is no checkpoint, or it cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        return _open_checkpoint(os.fspath(source))
    arrays = {_plain(name): np.asarray(v) for name, v in source.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    return Source("The dict of arrays", shapes, arrays.__getitem__)


def _open_checkpoint(path):
    prefix = find_checkpoint(path)
    try:
        reader = tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"The checkpoint {prefix} cannot be read: {error}"
        ) from error
    shapes = reader.get_variable_to_shape_map()
    names = {_plain(name): name for name in shapes}
    if len(names) < len(shapes):
        raise CheckpointError(
            f"The checkpoint {prefix} holds variables in several parts, which "
            "are not joined here: save it again without partitions."
        )
    return Source(
        f"The checkpoint {prefix}",
        {plain: tuple(shapes[name]) for plain, name in names.items()},
        lambda plain: _read(reader, names[plain], prefix),
    )


def _read(reader, name, prefix):
    try:
        return reader.get_tensor(name)
    except (tf.errors.OpError, IndexError, RuntimeError) as error:
        raise CheckpointError(
            f"The checkpoint {prefix} is damaged at {name}: {error}"
        ) from error


def _plain(name):
    """Without what TF1 adds: ":0", and "/part_0" of partitioned variables."""
    return re.sub(r"/part_\d+", "", re.sub(r":\d+$", "", name))
