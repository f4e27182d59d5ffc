"""TensorBoard's event files, cut back to the step where a run resumes.

TensorBoard's own purge, by an event that says where a session started, does
not help: its loader (of 2.21) still shows such scalars twice.
"""

import glob
import os

import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError

from meta_pseudo_labels.utils.compat import event_class

_RECORD_OVERHEAD = 16  # Bytes of a record's length and of its two checksums.


def drop_events_after(step, folder):
    """Cuts later and torn events off the files of a folder.

    A killed run wrote them after its last checkpoint; the resumed run writes
    them again, to its own file. Within one file steps never decrease, so only
    its end goes, and cutting that off needs no room on the disk.

    A file without a single readable event is somebody else's or beyond repair:
    it is left as it is, with a warning.

    Args:
      step: the last one to keep.
      folder: of the event files, not searched recursively; may be missing.
    """
    # TensorBoard takes every file with this in its name for an event file.
    pattern = os.path.join(glob.escape(folder), "*tfevents*")
    for path in sorted(filter(_is_own, glob.glob(pattern))):
        size, kept = os.path.getsize(path), _bytes_until(step, path)
        if size and not kept:
            logging.warning("%s holds no events; it is left as it is.", path)
        elif kept < size:
            os.truncate(path, kept)


def _is_own(path):
    """Whether it is a file of this folder: the target of a link is not."""
    return os.path.isfile(path) and not os.path.islink(path)


def _bytes_until(step, path):
    """Where in a file the first later or damaged event begins, in bytes."""
    end = 0
    # In batches, an event takes microseconds. A torn or damaged record ends the
    # file without an error.
    records = tf.data.TFRecordDataset(path).ignore_errors().batch(4096)
    for batch in records.as_numpy_iterator():
        for record in batch:
            try:
                event = event_class().FromString(record)
            except DecodeError:
                return end
            if event.step > step:
                return end
            end += len(record) + _RECORD_OVERHEAD
    return end
