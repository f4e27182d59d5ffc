"""Which files a folder of images holds, and which of them to ignore.

Operating systems, cameras, network drives, clouds and copy programs leave files
and folders among photographs: lists, recycle bins, unfinished downloads, and
thumbnails, which are pictures too, but copies of others. They are recognized
by their names, passed over, and reported.
"""

import collections
import fnmatch
import itertools
import os
import re
import stat

from absl import logging

# In lower case; one kind of machine or program per line.
_SYSTEM_FOLDERS = (
    *("@eadir", "@tmp", "#recycle", "#snapshot", "@sharebin"),  # Synology.
    *("@recycle", "@recently-snapshot", "@transcode", "lost+found"),
    *("@__thumb", "@trash", "@sharesnap"),  # QNAP, like the line above.
    *("$recycle.bin", "found.[0-9][0-9][0-9]", "msocache"),  # Windows.
    *("recycler", "recycled"),  # See `refuse_doubtful`.
    *("system volume information",),
    *("__macosx", "network trash folder", "temporary items"),  # macOS.
    *("thevolumesettingsfolder", "ipod photo cache", "resource.frk"),
    # macOS keeps smaller copies in these, too.
    *("*.photoslibrary", "*.photolibrary", "*.aplibrary"),
    *("lost.dir", "*.lrdata", "*.cocatalog", "_gsdata_", "~snapshot"),
    *("*.download", "*.part", "*.tmp"),
)
_SYSTEM_FILES = (
    *("thumbs.db", "thumbs.db:*", "ehthumbs*.db", "desktop.ini", "folder.htt"),
    *("autorun.inf", "*.lnk", "*.url", "hiberfil.sys", "pagefile.sys"),
    *("icon\r", "icon[?_]", "*.webloc", "thevolumesettingsfolder"),
    *("synophoto_thumb_*", "synoindex_media_info", "synofile_thumb_*"),
    *("picasa.ini", "zbthumbnail.info", "pspbrwse.jbf"),
    *("albumart_{*}_*.jpg", "albumartsmall.jpg"),
    # Cameras: thumbnails of videos, small videos, lists.
    *("*.thm", "*.lrv", "*.ctg", "*.aae", "*.xmp", "autprint.mrk"),
    # Unfinished downloads and copies, and what editors keep.
    *("*.part", "*.partial", "*.filepart", "*.crdownload", "*.opdownload"),
    *("*.download", "*.aria2", "*.tmp", "*.temp", "~$*"),
    *("*~", "#*#", "*.bak", "*.swp", "*.orig", "*.rsync-partial"),
    *("*.!qb", "*.!sync", "*.!ut", "*.bc!", "*.sb-????????-??????"),
    *("*.*_original", "*.*_exiftool_tmp"),
    # Two computers changed one file: this is the older version.
    *("*.sync-conflict-*", "*conflicted copy*", "*(case conflict*"),
)
_LEFT = "files or folders, hidden or left by systems"
_NAMED = 5  # Names of those passed over, in the log.


def list_files(folder):
    """The files below a folder, at any depth.

    Links are followed. A folder that is reached a second time, as in a cycle of
    links, is passed over.

    Args:
      folder: its path, or its address in a bucket, such as gs://b/a.

    Returns:
      Two lists of names relative to the folder, separated by "/" and sorted:
      the order does not depend on the file system. The first holds the files,
      including pipes and the like. The second holds files and whole folders
      that are hidden or left by systems.

    Raises:
      ValueError: if a folder cannot be read.
      OpError: if a bucket cannot be.
    """
    names, passed_over, seen, waiting = [], [], set(), [""]
    while waiting:
        inner = waiting.pop()
        path = os.path.join(folder, inner) if inner else folder
        files, folders, left = list_folder(path)
        identity = path if _is_address(path) else os.path.realpath(path)
        if identity in seen:
            continue
        seen.add(identity)
        prefix = f"{inner}/" if inner else ""
        names += [prefix + name for name in files]
        passed_over += [prefix + name for name in left]
        waiting += [prefix + name for name in reversed(folders)]
    return sorted(names), sorted(passed_over)


def list_folder(folder):
    """What a folder itself holds.

    Returns:
      Three sorted lists of names: everything but folders, the folders, and what
      is hidden or left by systems.

    Raises:
      ValueError, OpError: if the folder does not exist or cannot be read.
    """
    if _is_address(folder):
        found = _in_bucket(folder)
    else:
        found = _on_disk(folder)
    left = {name for name in found if is_left(name, is_folder=found[name])}
    folders = {name for name in found if found[name]} - left
    return sorted(found.keys() - left - folders), sorted(folders), sorted(left)


def _is_address(folder):
    return "://" in os.fspath(folder)


def _on_disk(folder):
    """Whether it is a folder, for each name in a folder."""
    try:
        with os.scandir(folder) as entries:
            return {e.name: os.path.isdir(e.path) for e in entries}
    except OSError as error:
        raise ValueError(
            f"The folder {shown(folder)} cannot be read: {error.strerror}; "
            "name one that exists."
        ) from error


def _in_bucket(folder):
    """The same of a folder in a bucket."""
    import tensorflow as tf  # Only here: others list without it.

    # Buckets end the names of folders in a slash.
    names = (name.strip("/") for name in tf.io.gfile.listdir(folder))
    return {
        name: tf.io.gfile.isdir(os.path.join(folder, name))
        for name in filter(None, names)
    }


def is_left(name, *, is_folder):
    """Whether a name is that of a hidden file, or one that systems leave."""
    table = _FOLDER_NAMES if is_folder else _FILE_NAMES
    return name.startswith(".") or table.fullmatch(name.lower()) is not None


def refuse_doubtful(left, *, where):
    """Refuses folders beside those of classes that may be classes themselves.

    Args:
      left: names of what would be passed over.
      where: the folder that holds them.

    Raises:
      ValueError: for a folder "Recycled", as where waste is sorted.
    """
    for name in left:
        if name.lower() in ("recycled", "recycler"):
            raise ValueError(
                f"{shown(where)} holds {name!r}, as Windows calls the folder "
                "of what was deleted. If it is a class, give it another name; "
                "if not, move it away."
            )


def report_passed_over(names, *, where, what=_LEFT):
    """Logs how many files and folders were passed over, and the first ones.

    Args:
      names: theirs.
      where: the folder that holds them.
      what: what they are, in the plural.
    """
    if names:
        logging.warning(
            "%s: passed over %d %s: %s.",
            shown(where),
            len(names),
            what,
            listed(map(shown, names), most=_NAMED),
        )


def file_identity(path):
    """What identifies a file, whatever its names; None if there is no file.

    Links to a file have its identity, hard ones too.
    """
    try:
        found = os.stat(path)
    except OSError:  # Reading it will tell what is wrong.
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    if not found.st_ino:  # Some network drives have no inode numbers.
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def refuse_shared(parts):
    """Refuses a file that is in the test set and elsewhere, or in two classes.

    A labeled image may be among the unlabeled ones.

    Args:
      parts: triples of paths, their classes (empty for images without a class),
        and whether they are test images.

    Raises:
      ValueError: for such a file; the message names two of its paths.
    """
    owners = collections.defaultdict(list)
    for paths, labels, is_test in parts:
        labels = labels or itertools.repeat(None)
        for path, label in zip(paths, labels, strict=False):
            identity = file_identity(path)
            if identity is not None:
                owners[identity].append((path, is_test, label))
    _refuse_two(
        [
            [(test, path) for path, test, _ in owned]
            for owned in owners.values()
        ],
        "it would be both trained on and tested on",
    )
    _refuse_two(
        [
            [(label, path) for path, _, label in owned if label is not None]
            for owned in owners.values()
        ],
        "it would have two classes",
    )


def _refuse_two(owned, so):
    """Refuses files that are in two groups.

    Args:
      owned: for each file, a list of pairs of a group and a path.
      so: what would follow from it, for the message.
    """
    shared = [
        pairs for pairs in owned if len({group for group, _ in pairs}) > 1
    ]
    if shared:
        (_, one), *_, (_, other) = sorted(shared[0])
        raise ValueError(
            f"{shown(one)} and {shown(other)} are one file, by a link, so that "
            f"{so}; there are {len(shared)} such files. Remove one of each."
        )


def shown(name):
    """A file name as one line that any log can print."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def listed(names, most=10):
    """Names separated by commas, only the first ones of many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _any_of(patterns):
    """One regular expression for all of the patterns."""
    return re.compile("|".join(map(fnmatch.translate, patterns)))


_FOLDER_NAMES, _FILE_NAMES = _any_of(_SYSTEM_FOLDERS), _any_of(_SYSTEM_FILES)
