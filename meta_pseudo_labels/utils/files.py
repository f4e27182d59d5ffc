"""Files: written whole, kept to one process, or without room to be written."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import zlib

import tensorflow as tf

from meta_pseudo_labels.utils.settings import ConfigError

SCRATCH = ".part"
# What a spreadsheet takes for the beginning of a formula, wide signs too: for
# Python's expressions and for Arrow's, which write numbers of signs otherwise.
FORMULA = "^\\s*[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20]"
LOCK = "lock"
_MOST_BYTES = 500_000_000  # Of a file of JSON, numbers of labeled images.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def replaces(path, *, scratch=None):
    """Replaces a file, whole or not at all.

    Args:
      path: of the file.
      scratch: where it is written; by default beside it.

    Yields:
      The path to write to, which then takes the place of the file.
    """
    scratch = scratch or f"{path}{SCRATCH}"
    if os.path.lexists(scratch) and not os.path.isdir(scratch):
        os.remove(scratch)  # A link leads elsewhere, of a pipe nobody reads.
    yield scratch
    sync(scratch)
    os.replace(scratch, path)
    sync(os.path.dirname(path) or ".")


def write_whole(path, text):
    """Replaces a file by a text, whole or not at all."""
    with replaces(path) as scratch, open(scratch, "w") as file:
        file.write(text)


def parse_json(text):
    """The value in a text of JSON, which may come from anywhere.

    Raises:
      ValueError: where it is none, or is nested beyond what can be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_json(path):
    """The value in a file of JSON.

    Raises:
      OSError, ValueError: where there is no such file; none of a pipe, which
        one would wait for, nor of one that is larger than any of ours.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(
            errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path)
        )
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no file")
    if status.st_size > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
    with open(path, encoding="utf-8") as file:
        return parse_json(file.read())


def read_object(path, what, *, keys=(), mend=""):
    """The object in a JSON file, a dict.

    Args:
      path: of the file.
      what: it is, for the reader of the error.
      keys: that it must have.
      mend: what to do where it cannot be read.

    Raises:
      ConfigError: where it cannot be read.
    """
    try:
        found = read_json(path)
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
        for key in keys:
            if key not in found:
                raise ValueError(f"it has no {key!r}")
        return found
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read as {what}: {error}. {mend}".rstrip()
        ) from error


def sync(path):
    """Has a file, or what a folder names, survive the loss of the machine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_inside(path, folder):
    """Whether a path leads into a folder, or to it."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([path, folder]) == folder


def is_out_of_room(error):
    """Whether an OSError or TensorFlow's error is that of a full disk."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    # The same class also stands for a processor without memory.
    text = str(error)
    return any(os.strerror(number) in text for number in _NO_ROOM)


def path_hash(path):
    """Eight characters that tell a path from others, wherever links lead."""
    return f"{zlib.crc32(os.path.realpath(path).encode()):08x}"


@contextlib.contextmanager
def reports_full_disk(folder):
    """Makes one line of what writing to a folder without room raises.

    Raises:
      ConfigError: where there is no room; any other error as it is.
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        if not is_out_of_room(error):
            raise
        raise ConfigError(
            f"There is no room to write to {folder}. What was saved is intact: "
            "make room, and start the same command again."
        ) from error


@contextlib.contextmanager
def locked(folder):
    """Keeps a folder, made where it is missing, to this process.

    The lock goes with the process, however that ends. Not filelock's, of which
    the versions before 4 empty the file as they open it: whoever waits could
    no longer be told who has it.

    Raises:
      ConfigError: where another process has it, or it cannot be made.
    """
    is_new = not os.path.exists(folder)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        if is_out_of_room(error):
            raise
        raise ConfigError(
            f"{folder} cannot be made: {error.strerror}. Name another "
            "--output_dir."
        ) from error
    path = os.path.join(folder, LOCK)
    with _own_file(path) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):  # Reset by another.
                os.remove(path)
                if is_new and not os.listdir(folder):  # Nothing came of it.
                    os.rmdir(folder)


@contextlib.contextmanager
def _own_file(path):
    """The file, opened and locked."""
    while True:
        with _opened(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                owner = file.read() or "another process"
                raise ConfigError(
                    f"{os.path.dirname(path)} is in use by {owner}. Wait for "
                    "it, stop it, or name another --output_dir."
                ) from error
            except OSError as error:
                raise _cannot_lock(path, error) from error
            # Its last owner may have removed the file that was opened.
            if os.path.exists(path) and os.path.samestat(
                os.stat(path), os.fstat(file.fileno())
            ):
                yield file
                return


def _opened(path):
    try:
        return open(path, "a+", opener=_open_no_link)
    except OSError as error:
        if is_out_of_room(error):
            raise
        raise _cannot_lock(path, error) from error


def _open_no_link(path, flags):
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _cannot_lock(path, error):
    return ConfigError(
        f"{path} cannot be locked, which keeps other processes out: "
        f"{error.strerror}. Name an --output_dir on a file system with locks, "
        "where you may write."
    )
