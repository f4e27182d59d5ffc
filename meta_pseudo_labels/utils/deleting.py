"""Deletes files and folders, after checking everything that would go.

What cannot be deleted as a whole stays whole: if a part cannot go, nothing
does. What is mounted is not ours, in whatever folder it appears.
"""

import fcntl
import os
import re
import shutil
import stat
import sys

from meta_pseudo_labels.utils.settings import ConfigError

_MOUNTS = "/proc/self/mountinfo"  # Of Linux.
_GET_FLAGS, _FIXED = 0x80086601, 0x10 | 0x20  # What chattr +i and +a set.


def delete(*paths):
    """Deletes files, folders with their contents, and links, not their targets.

    Args:
      *paths: what to delete; paths may be absent.

    Raises:
      ConfigError: see `check_deletable`; nothing is deleted then.
    """
    check_deletable(*paths)
    for path in paths:
        while os.path.lexists(path):
            try:
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.remove(path)
            except FileNotFoundError:  # Another process was faster.
                continue
            except OSError as error:
                raise ConfigError(
                    f"{error.filename or path} cannot be deleted: "
                    f"{error.strerror}. Delete {path} yourself, then start "
                    "the same command again."
                ) from error


def check_deletable(*paths):
    """Refuses what cannot be deleted as a whole, or belongs to somebody else.

    Raises:
      ConfigError: for a mount within, a folder that may not be changed, what
        chattr protects, even from root, and files of anyone but you and the
        owner of the folder that a path is in.
    """
    mounts = mount_points()
    for path in filter(os.path.lexists, paths):
        top = os.path.abspath(path)
        folder = os.path.realpath(os.path.dirname(top))
        top = os.path.join(folder, os.path.basename(top))
        if not _may_change(folder) or _is_fixed(folder):
            raise _refusal(top, "may not be removed by you")
        within = os.stat(folder)
        for found, status, parent in _all_within(top, within):
            why = _why_not(found, status, parent, mounts, within)
            if why:
                raise _refusal(found, why)


def mount_points():
    """Where file systems, folders or files are mounted, a set of real paths.

    Only on Linux, where a folder can be mounted on another of the same device.
    """
    try:
        with open(_MOUNTS, "rb") as file:
            places = [line.split()[4] for line in file]
    except OSError:
        return set()
    octal = re.compile(rb"\\([0-7]{3})")
    return {
        os.fsdecode(octal.sub(lambda m: bytes([int(m[1], 8)]), place))
        for place in places
    }


def _all_within(top, within):
    """A path and all its contents, each with its status and its folder's."""
    waiting = [(top, within)]
    while waiting:
        path, parent = waiting.pop()
        try:
            status = os.lstat(path)
            yield path, status, parent
            if stat.S_ISDIR(status.st_mode):
                names = os.listdir(path)
                waiting += [(os.path.join(path, n), status) for n in names]
        except FileNotFoundError:  # Gone meanwhile.
            continue
        except OSError as error:
            raise _refusal(path, f"cannot be read ({error.strerror})") from None


def _why_not(path, status, parent, mounts, within):
    """Why a path must stay; None where it may go."""
    user = os.geteuid()
    if path in mounts or status.st_dev != within.st_dev:
        return "is a mount"
    if status.st_uid not in (within.st_uid, user):
        return "belongs to somebody else"
    if parent.st_mode & stat.S_ISVTX and user not in (
        0,
        status.st_uid,
        parent.st_uid,
    ):
        return "may be deleted only by its owner"
    is_folder = stat.S_ISDIR(status.st_mode)
    if is_folder and not _may_change(path):
        return "may not be changed by you"
    if (is_folder or stat.S_ISREG(status.st_mode)) and _is_fixed(path):
        return "may not be changed by anyone (see lsattr)"
    return None


def _is_fixed(path):
    """Whether a file or folder is immutable, or may only be added to."""
    if sys.platform != "linux":
        return False
    try:
        place = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        flags = fcntl.ioctl(place, _GET_FLAGS, bytes(8))
    except OSError:  # A file system without them.
        return False
    finally:
        os.close(place)
    return bool(int.from_bytes(flags[:4], sys.byteorder) & _FIXED)


def _may_change(folder):
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)


def _refusal(path, why):
    named = path if path.isprintable() else repr(path)  # One line.
    return ConfigError(
        f"{named} {why}, so nothing was deleted. Unmount or remove it "
        "yourself, or name another --output_dir."
    )
