"""Files: written whole, locked to one process, or on a full disk."""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import stat
import time
import zlib

import tensorflow as tf

from meta_pseudo_labels.utils.settings import ConfigError

SCRATCH = ".part"
# What a spreadsheet takes for the start of a formula, full-width signs too: for
# Python's and Arrow's regular expressions, whose code-point escapes differ.
FORMULA = "^\\s*[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20]"
LOCK = "lock"
_MOST_BYTES = 500_000_000  # Of a JSON file with numbers of labeled images.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# The file that it replaces, and the writer: machine and process, which names by
# earlier versions lack.
_SCRATCH_NAME = re.compile(
    rf"(.+?)(?:\.([0-9a-f]{{8}})-(\d{{1,9}}))?{re.escape(SCRATCH)}"
)
_LONGEST_WRITE = 3_600  # Seconds; a scratch file that is older is left over.


@contextlib.contextmanager
def replaces(path, *, scratch=None):
    """Replaces a file, whole or not at all.

    Several processes may do so at a time: the last one wins. What killed ones
    left is removed.

    Args:
      path: of the file.
      scratch: where it is written first, and by no other process; by default
        beside it.

    Yields:
      The path to write to; that file then replaces the old one.
    """
    if scratch is None:
        for left in filter(_is_left_over, scratch_files(path)):
            with contextlib.suppress(OSError):  # Another one removed it, too.
                os.remove(left)
        scratch = f"{path}.{_machine()}-{os.getpid()}{SCRATCH}"
    if os.path.lexists(scratch) and not os.path.isdir(scratch):
        os.remove(scratch)  # It may be a link, or a pipe that nobody reads.
    try:
        yield scratch
        sync(scratch)
        os.replace(scratch, path)
    except OSError as error:
        if error.filename == scratch:  # Messages name what users know.
            error.filename = os.fspath(path)
        raise
    sync(os.path.dirname(path) or ".")


def scratch_files(path):
    """Paths of what processes that replace a file write, or left, beside it."""
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or ".")
    except OSError:  # Writing to it will tell.
        return []
    return [os.path.join(folder, n) for n in names if replaced_by(n) == name]


def replaced_by(name):
    """Name of the file that a scratch file replaces; None for other files."""
    found = _SCRATCH_NAME.fullmatch(name)
    return found and found[1]


def _is_left_over(scratch):
    """Whether nobody writes to a scratch file any more."""
    _, machine, process = _SCRATCH_NAME.fullmatch(
        os.path.basename(scratch)
    ).groups()
    if machine == _machine() and not _is_running(int(process)):
        return True
    try:
        return time.time() - os.lstat(scratch).st_mtime > _LONGEST_WRITE
    except FileNotFoundError:
        return False


def _is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # It is somebody else's.
        pass
    return True


def _machine():
    """Eight characters for where numbers of processes mean what they do here.

    Machines may share a disk, and containers also the name of the machine.
    """
    place = socket.gethostname()
    with contextlib.suppress(OSError):
        place += os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(place.encode()):08x}"


def write_whole(path, text):
    """Replaces a file's content by a text, whole or not at all."""
    with replaces(path) as scratch, open(scratch, "w") as file:
        file.write(text)


def parse_json(text):
    """The value of a JSON text, which may come from anywhere.

    Raises:
      ValueError: if it is not JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path):
    """The value in a JSON file.

    Raises:
      OSError, ValueError: if there is no such file, or it is a pipe, whose
        reader would wait, or larger than any of our files.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(
            errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path)
        )
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
    with open(path, encoding="utf-8") as file:
        return parse_json(file.read())


def read_object(path, what, *, keys=(), mend=""):
    """The object in a JSON file, a dict.

    Args:
      path: of the file.
      what: what it is, for the error message.
      keys: keys that it must have.
      mend: what to do if it cannot be read, for the error message.

    Raises:
      ConfigError: if it cannot be read.
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
    """Makes a file, or a folder's entries, survive a crash of the machine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_inside(path, folder):
    """Whether a path is that of a folder, or leads into it."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([path, folder]) == folder


def is_out_of_room(error):
    """Whether an OSError or an error of TensorFlow's means a full disk."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    # TensorFlow uses the same class for a device that is out of memory.
    text = str(error)
    return any(os.strerror(number) in text for number in _NO_ROOM)


def path_hash(path):
    """Eight characters that identify a path, after following links."""
    return f"{zlib.crc32(os.path.realpath(path).encode()):08x}"


@contextlib.contextmanager
def reports_full_disk(folder):
    """Turns what writing to a folder on a full disk raises into one line.

    Raises:
      ConfigError: if there is no room; any other error stays as it is.
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
def locked(folder, *, other="--output_dir"):
    """Locks a folder, made if it is missing, for this process alone.

    The lock ends with the process, however that ends. It is not filelock's:
    versions before 4 empty the file when they open it, so that others could no
    longer be told who holds the lock.

    Args:
      folder: its path.
      other: the flags that give a process another folder, for the message.

    Raises:
      ConfigError: if another process holds it, or the folder cannot be made.
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
    with _own_file(path, other) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):  # Reset by another.
                os.remove(path)
                if is_new and not os.listdir(folder):  # Nothing was written.
                    os.rmdir(folder)


@contextlib.contextmanager
def _own_file(path, other):
    """The file, opened and locked; see `locked`."""
    while True:
        with _opened(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                owner = file.read() or "another process"
                raise ConfigError(
                    f"{os.path.dirname(path)} is in use by {owner}. Wait for "
                    f"it, stop it, or name another {other}."
                ) from error
            except OSError as error:
                raise _cannot_lock(path, error) from error
            # The last owner may have removed the file that was opened here.
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
