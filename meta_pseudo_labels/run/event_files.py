"""TensorBoard's event files, cut back to the step where a run goes on.

TensorBoard's own purge, by an event that says where a session started, is of
no use: its loader (of 2.21) shows such scalars twice all the same.
"""

import glob
import os

import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError

from meta_pseudo_labels.utils.compat import event_class

_RECORD_OVERHEAD = 16  # Bytes of a record's length and of its two checksums.


def drop_events_after(step, folder):
    """Cuts later events off the files of a folder, and torn ones.

    A killed run wrote them after its last checkpoint; the run that goes on
    writes them again, to a file of its own. Within one file steps never fall,
    so what goes is an end, and cutting it off needs no room on the disk.

    A file without a single event that can be read is somebody else's or past
    help: it is left, with a warning.

    Args:
      step: the last one that is kept.
      folder: of the event files, not of folders in it; may be missing.
    """
    # Whatever has this in its name TensorBoard takes for an event file.
    pattern = os.path.join(glob.escape(folder), "*tfevents*")
    for path in sorted(filter(_is_own, glob.glob(pattern))):
        size, kept = os.path.getsize(path), _bytes_until(step, path)
        if size and not kept:
            logging.warning("%s holds no events; it is left as it is.", path)
        elif kept < size:
            os.truncate(path, kept)


def _is_own(path):
    """Whether it is a file, of this folder: what a link names is elsewhere."""
    return os.path.isfile(path) and not os.path.islink(path)


def _bytes_until(step, path):
    """Where in a file the first later or damaged event begins."""
    end = 0
    # In batches it takes microseconds an event. Errors: a torn or damaged
    # record ends the file.
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
