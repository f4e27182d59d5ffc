"""The images to predict: by number, in any order, prepared as in evaluation.

A source has a length, `name(number)`, `place` for messages, `digest`, which
changes with the images, and `read`. For an unreadable image, `read` gives a
reason instead of raising an error.
"""

import concurrent.futures
import contextlib
import functools
import glob
import hashlib
import itertools
import os

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data import Records
from meta_pseudo_labels.data.images.decoding import (
    broken,
    decode_image,
    read_image_file,
)
from meta_pseudo_labels.data.images.headers import (
    START_BYTES,
    ImageError,
    image_kind,
)
from meta_pseudo_labels.data.images.listing import (
    list_files,
    report_passed_over,
    shown,
)
from meta_pseudo_labels.data.preparation import prepare_encoded
from meta_pseudo_labels.data.sources import source_of
from meta_pseudo_labels.run.config.inference import (
    FOLDER,
    OWN_PARTS,
    RECORDS,
    TFDS_PREFIX,
)
from meta_pseudo_labels.run.inference.record_bytes import (
    record_bytes,
    release_records,
    tfds_records,
)
from meta_pseudo_labels.utils.settings import ConfigError

_THREADS = min(8, os.cpu_count() or 1)
# Files per call of a graph: a call for each costs more than small pictures do.
_AT_ONCE = 8
_TEXTS = (".json", ".txt")  # No records, but may stand beside them.


class ArrayImages:
    """Images that are in memory already, such as a run's own test images."""

    def __init__(self, images, part):
        self._images = images
        self._part = part
        self.place = f"the {part} images"
        self.digest = hashlib.sha256(np.ascontiguousarray(images)).hexdigest()

    def __len__(self):
        return len(self._images)

    def name(self, number):
        return f"{self._part}/{number}"

    def read(self, numbers):
        """See `EncodedImages.read`."""
        return self._images[numbers], {}


class EncodedImages:
    """Images encoded as in files.

    Args:
      count: how many there are.
      name: a function from a number to the name of the image.
      load: a function from numbers, [n] int64, to a list of functions, each of
        which returns the bytes of an image, or raises `ImageError`.
      place: where they are, for messages.
      digest: hexadecimal; different for different images.
      spec: `DatasetSpec` of the run.
    """

    def __init__(self, count, name, load, *, place, digest, spec):
        self._count = count
        self.name = name
        self._load = load
        self.place = place
        self.digest = digest
        self._spec = spec
        self._prepare, self._prepare_all = _preparations(spec)

    def __len__(self):
        return self._count

    def read(self, numbers):
        """Some of the images, prepared as for evaluation.

        Args:
          numbers: [n] int64.

        Returns:
          [n, image_size, image_size, 3] uint8, black where there is no usable
          image; and a dict from those places, 0 to n - 1, to reasons.
        """
        size = self._spec.image_size
        images = np.zeros([len(numbers), size, size, 3], np.uint8)
        reasons = {}
        loads = self._load(numbers)
        # If there are few files, each thread still gets its share.
        share = max(1, min(_AT_ONCE, -(-len(loads) // _THREADS)))
        some = [loads[i : i + share] for i in range(0, len(loads), share)]
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
            found = threads.map(self._some, some)
            for place, image in enumerate(itertools.chain.from_iterable(found)):
                if _is_error(image):
                    reasons[place] = str(image)
                else:
                    images[place] = image
        return images, reasons

    def _some(self, loads):
        """An image or an `ImageError` each, in one call if no file fails."""
        files = (_or_error(load) for load in loads)
        if self._prepare_all:
            files = list(files)
            if not any(map(_is_error, files)):
                with contextlib.suppress(tf.errors.OpError):
                    return self._prepare_all(files)
        return [
            file if _is_error(file) else _or_error(self._prepare, file)
            for file in files
        ]


def _or_error(function, *arguments):
    try:
        return function(*arguments)
    except ImageError as error:
        return error


def _is_error(found):
    return isinstance(found, ImageError)


def open_source(config, images):
    """The images that the settings name.

    Args:
      config: `Config`.
      images: the run's `data.ImageData` or `data.ShardedData`.

    Raises:
      ConfigError: if there are none.
      ValueError: if they cannot be read at all.
    """
    kind, spec = config.inference_source, images.spec
    folder = config.inference_dir and os.path.expanduser(config.inference_dir)
    if kind in OWN_PARTS:
        return _own_images(images, kind)
    if kind == FOLDER:
        return _folder_images(folder, spec)
    if kind == RECORDS:
        records, names = release_records(_record_files(folder), folder)
        return _record_images(records, names, place=folder, spec=spec)
    name, split = kind.removeprefix(TFDS_PREFIX), config.inference_split
    records = tfds_records(name, split, data_dir=folder or config.data_dir)
    place = f"split {split!r} of {name}"
    return _record_images(records, split, place=place, spec=spec)


def _own_images(images, part):
    own = getattr(images, f"{part}_images", None)
    if own is None or not len(own):
        raise ConfigError(
            f"--inference_data={part}: {images.spec.name!r} has no {part} "
            "images; name others."
        )
    if isinstance(own, Records):
        place = f"the {part} images"
        return _record_images(own, part, place=place, spec=images.spec)
    return ArrayImages(own, part)


def _folder_images(folder, spec):
    names, passed_over = list_files(folder)
    report_passed_over(passed_over, where=folder)
    if not names:
        raise ConfigError(
            f"--inference_dir={folder} holds no files; put images there."
        )

    def load(numbers):
        paths = [os.path.join(folder, names[number]) for number in numbers]
        return [functools.partial(read_image_file, path) for path in paths]

    readable = [shown(name) for name in names]
    digest = hashlib.sha256("\0".join(readable).encode())
    # Cameras give different images the same names.
    digest.update(_sizes_and_times([os.path.join(folder, n) for n in names]))
    return EncodedImages(
        len(names),
        readable.__getitem__,
        load,
        place=folder,
        digest=digest.hexdigest(),
        spec=spec,
    )


def _sizes_and_times(paths):
    """Bytes that differ if files were changed: their sizes and times."""
    facts = np.zeros([len(paths), 2], np.int64)
    for fact, path in zip(facts, paths, strict=True):
        # Reading it says what is wrong.
        with contextlib.suppress(OSError, tf.errors.OpError):
            # In whole seconds, on which copies of a folder agree.
            if "://" in path:
                found = tf.io.gfile.stat(path)
                fact[:] = found.length, found.mtime_nsec // 10**9
            else:
                found = os.stat(path)
                fact[:] = found.st_size, int(found.st_mtime)
    return facts.tobytes()


def _record_files(path):
    """The files below a folder, or those of a pattern or a path, sorted.

    What is passed over is reported: what `list_files` passes over, in a bucket
    too, folders that a pattern matches, and texts beside the records.
    """
    is_address = "://" in path
    here = tf.io.gfile if is_address else os.path
    if here.isdir(path):
        names, passed_over = list_files(path)
        report_passed_over(passed_over, where=path)
        paths = (os.path.join(path, name) for name in names)
        return _without_texts(paths, where=path)
    if here.exists(path):  # Even if its name could be a pattern.
        return [path]
    found = sorted(tf.io.gfile.glob(path) if is_address else glob.glob(path))
    folders = [name for name in found if here.isdir(name)]
    report_passed_over(folders, where=path, what="folders in the pattern")
    rest = (name for name in found if name not in folders)
    return _without_texts(rest, where=path)


def _without_texts(paths, *, where):
    """Those paths that may be of records, which TFDS describes in texts."""
    kept, texts = [], []
    for path in paths:
        (texts if path.lower().endswith(_TEXTS) else kept).append(path)
    report_passed_over(texts, where=where, what="files of text")
    return kept


def _record_images(records, names, *, place, spec):
    """Images in `Records`.

    Args:
      records: `Records`.
      names: the names of their files, or one name for all of them.
      place, spec: see `EncodedImages`.
    """

    def name(number):
        if isinstance(names, str):
            return f"{names}/{number}"
        shard = records.shards[number]
        first = np.searchsorted(records.shards, shard)
        return f"{names[shard]}/{number - first}"

    hashed = hashlib.sha256(
        "\0".join(map(os.path.basename, records.paths)).encode()
    )
    hashed.update(np.ascontiguousarray(records.shards))
    hashed.update(np.ascontiguousarray(records.offsets))
    # Uncompressed pictures of one size are records of one length.
    hashed.update(_sizes_and_times(records.paths))
    return EncodedImages(
        len(records),
        name,
        record_bytes(records, spec),
        place=place,
        digest=hashed.hexdigest(),
        spec=spec,
    )


def _preparations(spec):
    """Functions from the bytes of an image to its pixels as in evaluation.

    The second one takes a list of JPEG and PNG files, none of which may have an
    error; it is None if the source has no such way.

    Folders and tfds:... sets are decoded by `decode_image`, so that the same
    files are refused; the other sources by TensorFlow alone.
    """
    size = spec.image_size
    by_header = source_of(spec).exact
    encoded = tf.TensorSpec([], tf.string)
    decoded = tf.TensorSpec([1, None, None, 3], tf.uint8)
    from_bytes = tf.function(
        lambda data: prepare_encoded(data, spec),
        input_signature=[encoded],
        autograph=False,
    )
    from_files = tf.function(
        # One by one: there are many threads already, and pictures may be large.
        lambda files: tf.map_fn(
            lambda data: prepare_encoded(data, spec),
            files,
            fn_output_signature=tf.uint8,
            parallel_iterations=1,
        ),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    from_pixels = tf.function(
        # A file of the model's size is a picture like others: of ImageNet's,
        # evaluation takes the center.
        lambda images: source_of(spec).resize(images, spec),
        input_signature=[decoded],
        autograph=False,
    )

    def prepare(data):
        kind = image_kind(data[:START_BYTES])
        with tf.device("CPU:0"):
            if not by_header and kind in ("JPEG", "PNG"):
                try:
                    return from_bytes(tf.constant(data)).numpy()
                except tf.errors.OpError as error:
                    raise broken(kind, error) from error
            image = decode_image(data, deep_levels=spec.deep_levels)
            if by_header and image.shape == (size, size, 3):
                return image
            return from_pixels(image[np.newaxis])[0].numpy()

    def prepare_all(files):
        with tf.device("CPU:0"):
            return from_files(tf.constant(files)).numpy()

    return prepare, None if by_header else prepare_all
