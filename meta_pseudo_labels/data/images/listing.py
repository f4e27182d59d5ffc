"""Which files a folder of images holds, and what is not worth a look there.

Operating systems, cameras, network drives, clouds and programs that copy leave
files and folders among photographs: lists, waste baskets, half of a download,
and thumbnails, which are pictures too and copies of others. They are told by
their names, passed over, and reported.
"""

import collections
import fnmatch
import itertools
import os
import re
import stat

from absl import logging

# In lower case; each line is a kind of machine or program.
_SYSTEM_FOLDERS = (
    *("@eadir", "@tmp", "#recycle", "#snapshot", "@sharebin"),  # Synology.
    *("@recycle", "@recently-snapshot", "@transcode", "lost+found"),
    *("@__thumb", "@trash", "@sharesnap"),  # QNAP, as the line above.
    *("$recycle.bin", "found.[0-9][0-9][0-9]", "msocache"),  # Windows.
    *("recycler", "recycled"),
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
    # Cameras: a thumbnail of a film, a small film, lists.
    *("*.thm", "*.lrv", "*.ctg", "*.aae", "*.xmp", "autprint.mrk"),
    # Downloads and copies that have not ended, and what editors keep.
    *("*.part", "*.partial", "*.filepart", "*.crdownload", "*.opdownload"),
    *("*.download", "*.aria2", "*.tmp", "*.temp", "~$*"),
    *("*~", "#*#", "*.bak", "*.swp", "*.orig", "*.rsync-partial"),
    *("*.!qb", "*.!sync", "*.!ut", "*.bc!", "*.sb-????????-??????"),
    *("*.*_original", "*.*_exiftool_tmp"),
    # Two computers changed one file: the older of both.
    *("*.sync-conflict-*", "*conflicted copy*", "*(case conflict*"),
)
_NAMED = 5  # Of those passed over, in the log.


def list_files(folder):
    """The files below a folder, at any depth.

    Links are followed. A folder that is met a second time, as in a circle of
    links, is passed over.

    Args:
      folder: a local folder.

    Returns:
      Two lists of names within the folder, with "/" between, sorted: the order
      does not depend on the file system. The first are the files; pipes and
      the like are among them. The second are hidden ones and those that
      systems leave, files and whole folders.

    Raises:
      ValueError: where a folder cannot be read.
    """
    names, passed_over, seen, waiting = [], [], set(), [""]
    while waiting:
        inner = waiting.pop()
        path = os.path.join(folder, inner) if inner else folder
        files, folders, left = list_folder(path)
        identity = os.path.realpath(path)
        if identity in seen:
            continue
        seen.add(identity)
        prefix = f"{inner}/" if inner else ""
        names += [prefix + name for name in files]
        passed_over += [prefix + name for name in left]
        waiting += [prefix + name for name in reversed(folders)]
    return sorted(names), sorted(passed_over)


def list_folder(folder):
    """What stands in a folder itself.

    Returns:
      Three sorted lists of names: all that is no folder, the folders, and what
      is hidden or left by systems.

    Raises:
      ValueError: where the folder is not there or cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = {e.name: os.path.isdir(e.path) for e in entries}
    except OSError as error:
        raise ValueError(
            f"The folder {shown(folder)} cannot be read: {error.strerror}; "
            "name one that is there."
        ) from error
    left = {name for name in found if is_left(name, is_folder=found[name])}
    folders = {name for name in found if found[name]} - left
    return sorted(found.keys() - left - folders), sorted(folders), sorted(left)


def is_left(name, *, is_folder):
    """Whether a name is hidden, or one that systems give."""
    table = _FOLDER_NAMES if is_folder else _FILE_NAMES
    return name.startswith(".") or table.fullmatch(name.lower()) is not None


def report_passed_over(names, *, where):
    """Logs how many files and folders were passed over, and the first ones."""
    if names:
        logging.warning(
            "%s: passed over %d that are hidden or that systems leave: %s.",
            shown(where),
            len(names),
            listed(map(shown, names), most=_NAMED),
        )


def file_identity(path):
    """What tells a file from all others, whatever its names; None without one.

    Links to a file have its identity, hard ones too.
    """
    try:
        found = os.stat(path)
    except OSError:  # Reading it says what is wrong.
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    if not found.st_ino:  # Some network drives have no numbers.
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def refuse_shared(parts):
    """Refuses a file that is in the test and elsewhere, or in two classes.

    A labeled image among the unlabeled ones is none of that.

    Args:
      parts: triples of paths, their classes, none of images without a class,
        and whether they are test images.

    Raises:
      ValueError: for such a file, which names two of its paths.
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
        "it would be learned from and tested on",
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
      owned: for each file a list of pairs, a group and a path.
      so: what would follow, for the message.
    """
    shared = [
        pairs for pairs in owned if len({group for group, _ in pairs}) > 1
    ]
    if shared:
        (_, one), *_, (_, other) = sorted(shared[0])
        raise ValueError(
            f"{shown(one)} and {shown(other)} are one file, by a link, so that "
            f"{so}; of such files there are {len(shared)}. Remove one of each."
        )


def shown(name):
    """A file name that any log can print, on one line."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def listed(names, most=10):
    """Names with commas between, the first ones of many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _any_of(patterns):
    """One regular expression for all of the patterns."""
    return re.compile("|".join(map(fnmatch.translate, patterns)))


_FOLDER_NAMES, _FILE_NAMES = _any_of(_SYSTEM_FOLDERS), _any_of(_SYSTEM_FILES)
