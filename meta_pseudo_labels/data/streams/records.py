"""Records in files that are too large for memory: found, counted, read.

Files are TFRecord files; a shard is one of several that make up a split. One
scan before training, which reads only lengths, finds the place of every record.
So any record can be read by itself, in any order, and a stream can start
anywhere at no cost. Nothing is written.
"""

import collections.abc
import concurrent.futures
import dataclasses
import os
import re

import numpy as np
import tensorflow as tf

_THREADS = 16  # The scan waits for the disk, not for the processor.
_HEAD, _FRAME = 12, 16  # Bytes: length, its checksum; plus the data's checksum.
_NAMED = 5  # Files named in a message.


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Where the records of a split are, and what is in them.

    Attributes:
      paths: the files, in order.
      shards: [N] int32, the file of each record, as an index into `paths`.
      offsets: [N] int64, the byte in that file where the record begins.
      parse: a TensorFlow function from a record, [] string, to {"image": []
        string, the encoded image; "label": [] int32, counted from 0}.
      strict: whether an unusable record is an error during a run; otherwise it
        is skipped.
    """

    paths: tuple[str, ...]
    shards: np.ndarray
    offsets: np.ndarray
    parse: collections.abc.Callable
    strict: bool = False

    def __len__(self):
        return len(self.offsets)

    def first(self, count):
        """The first `count` records in the order of the source."""
        return self[:count]

    def __getitem__(self, places):
        """Some of the records, indexed like the rows of an array."""
        return dataclasses.replace(
            self, shards=self.shards[places], offsets=self.offsets[places]
        )

    def name(self, number):
        """The name in messages of the record with this number."""
        shard = self.shards[number]
        place = number - np.searchsorted(self.shards, shard)
        return f"record {place} of {self.paths[shard]}"

    def reader(self):
        """A function that reads one record.

        Its arguments are the record's number, [] int64, and a function of
        the parsed record; its result is a tf.data.Dataset of one element,
        what that function returns. It fails if the record is damaged.
        Call it only in the functions of other data sets, as in
        `Dataset.range(3).flat_map(lambda i: read(i, decode))`: TensorFlow
        cannot serialize the operation as a data set of its own.

        It is a pure graph: it may run in the tf.data service, as long as the
        workers see the same paths.
        """
        with tf.device("CPU:0"):  # Captured, so not constants of the graph.
            paths = tf.constant(self.paths)
            shards = tf.constant(self.shards)
            offsets = tf.constant(self.offsets)

        def read(number, decode):
            shard = tf.gather(shards, number)
            # The raw operation can begin anywhere in a file and checks the
            # record's checksum. A buffer would read what follows too.
            variant = tf.raw_ops.TFRecordDatasetV2(
                filenames=tf.gather(paths, shard)[tf.newaxis],
                compression_type="",
                buffer_size=tf.constant(0, tf.int64),
                byte_offsets=tf.gather(offsets, number)[tf.newaxis],
            )
            rest = tf.data.experimental.from_variant(
                variant, tf.TensorSpec([], tf.string)
            )
            # One function: each additional data set takes time per record.
            return rest.take(1).map(lambda record: decode(self.parse(record)))

        return read


def no_records():
    """A split that does not exist."""
    return Records((), np.zeros([0], np.int32), np.zeros([0], np.int64), None)


def find_shards(folder, split):
    """All files `split-00000-of-00128` and so on of a folder.

    Args:
      folder: where to look.
      split: the beginning of their names.

    Returns:
      A list of paths in order; empty if there is no such file.

    Raises:
      ValueError: if some are missing, or there are two sets of them.
    """
    pattern = re.compile(re.escape(split) + r"-(\d+)-of-(\d+)")
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    found = [match for match in map(pattern.fullmatch, names) if match]
    if not found:
        return []
    totals = sorted({match[2] for match in found})
    if len(totals) > 1:
        raise ValueError(
            f"{folder} has files {split}-*-of-{totals[0]} and "
            f"{split}-*-of-{totals[1]}; keep one set of them."
        )
    (total,) = totals
    wanted = [
        f"{split}-{index:0{len(found[0][1])}d}-of-{total}"
        for index in range(int(total))
    ]
    check_present(folder, wanted, present=names)
    return [os.path.join(folder, name) for name in wanted]


def check_present(folder, wanted, *, present):
    """Raises ValueError that names the missing files, if any."""
    missing = sorted(set(wanted) - set(present))
    if missing:
        more = len(missing) - _NAMED
        raise ValueError(
            f"{folder} lacks {len(missing)} of {len(wanted)} files: "
            f"{', '.join(missing[:_NAMED])}"
            f"{f' and {more} more' if more > 0 else ''}; copy them there."
        )


def index_records(paths, parse, *, lengths=None):
    """Finds the place of every record in the files.

    Reads 12 bytes of each record, whatever its size.

    Args:
      paths: the files.
      parse: see `Records`.
      lengths: how many records each must have; None if that is not known.

    Returns:
      `Records`.

    Raises:
      ValueError: if a file ends within a record, is empty, is not a TFRecord
        file, or has another number of records.
    """
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        offsets = list(pool.map(_record_offsets, paths))
    for path, found, length in zip(paths, offsets, lengths or [], strict=False):
        if len(found) != length:
            raise ValueError(
                f"{path} holds {len(found)} records, but its data set says "
                f"{length}; copy it again."
            )
    counts = [len(found) for found in offsets]
    return Records(
        paths=tuple(paths),
        shards=np.repeat(np.arange(len(paths), dtype=np.int32), counts),
        offsets=np.concatenate(offsets),
        parse=parse,
    )


def _record_offsets(path):
    """The byte offsets at which the records of a file begin, [n] int64."""
    size = tf.io.gfile.stat(path).length
    offsets, position = [], 0
    with _open_unbuffered(path) as file:
        while position < size:
            file.seek(position)
            head = file.read(_HEAD)
            end = position + _FRAME + int.from_bytes(head[:8], "little")
            if len(head) < _HEAD or end > size:
                raise ValueError(
                    f"{path} ends within record {len(offsets)}, at byte "
                    f"{position} of {size}; it is cut off or not a TFRecord "
                    "file, copy it again."
                )
            offsets.append(position)
            position = end
    if not offsets:
        raise ValueError(f"{path} is empty; copy it again.")
    return np.array(offsets, np.int64)


def _open_unbuffered(path):
    """Opens a file so that seeking over a record does not read it."""
    if "://" in path:  # A bucket.
        return tf.io.gfile.GFile(path, "rb")
    file = open(path, "rb", buffering=0)
    if hasattr(os, "posix_fadvise"):  # And no read-ahead of what is skipped.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    return file
