"""One setting: its default, meaning and range, and the check of its value."""

import collections.abc
import dataclasses
import math
import os
import re
import shlex
import sys
import types
import typing

from meta_pseudo_labels.utils.registry import nearest


class ConfigError(ValueError):
    """An invalid or pointless setting; the message says what to change."""


# Task mode -> command, if the words differ.
WORDS = {"inference": "predict"}


def command_for(task_mode, folder):
    """What to type for a task of a run, in the way this program was started.

    Args:
      task_mode: such as "eval".
      folder: folder of the run; text in `<>` is for the reader to replace.
    """
    folder = folder if folder.startswith("<") else shlex.quote(folder)
    if os.path.basename(sys.argv[0]) == "main.py":
        return f"python main.py --task_mode={task_mode} --output_dir={folder}"
    word = WORDS.get(task_mode, task_mode)
    return f"mpl {word} --output_dir={folder}"


def command_name(task_mode):
    """How messages write the command of a task mode: `mpl predict`."""
    return f"`mpl {WORDS.get(task_mode, task_mode)}`"


def module_names(names):
    """Dotted names of modules, and of what is in them, separated by commas.

    Args:
      names: a sequence of names, or such a string; None or empty for none.
    """
    if not names or isinstance(names, str):
        return ",".join((names or "").replace(" ", "").split(","))
    return ",".join(names)


_SAME = object()
_MOST = 2**31 - 1  # For integers without an upper bound: TensorFlow's limit.


def setting(
    default,
    help,
    *,
    low=None,
    high=None,
    choices=None,
    flag_default=_SAME,
    free=False,
):
    """A dataclass field for one setting.

    Args:
      default: value if none is given.
      help: what it means and in which unit; whole sentences.
      low: smallest value, or None.
      high: largest value, or None.
      choices: all values, a tuple or a `Registry`, or a function that returns
        them; None if any value in range will do.
      flag_default: default that the command line shows, if the release's flag
        has a different one. It takes effect only if it is given.
      free: whether it may change between the stages of a run without making
        it another run.
    """
    if flag_default is _SAME:
        flag_default = default
    metadata = dict(
        help=help,
        low=low,
        high=high,
        choices=choices,
        flag_default=flag_default,
        free=free,
    )
    return dataclasses.field(default=default, metadata=metadata)


def choices_of(field):
    """All values of a setting, a tuple; None if any in range will do."""
    choices = field.metadata["choices"]
    if choices is None:
        return None
    if callable(choices):
        choices = choices()
    values = tuple(choices)
    return values if field.default in values else (field.default, *values)


def value_type(field):
    """The type of a setting's value, apart from None."""
    if may_be_none(field):
        return next(
            t for t in typing.get_args(field.type) if t is not types.NoneType
        )
    return field.type


def may_be_none(field):
    """Whether a setting's type is a union, `int | None` or the like."""
    return typing.get_origin(field.type) in (types.UnionType, typing.Union)


def check(field, value):
    """Raises ConfigError if a setting's value is out of its range."""
    check_address(field.name, value)
    name, meta = f"--{field.name}={value}", field.metadata
    choices = choices_of(field)
    if choices is not None:
        if value not in choices:
            known = [str(c) for c in choices if c is not None]
            raise ConfigError(
                f"{name} is unknown{nearest(value, known)}; use one of: "
                f"{', '.join(known)}."
            )
        return
    if value is None and may_be_none(field):
        return
    expected = value_type(field)
    fits = (int, float) if expected is float else expected
    if not isinstance(value, fits) or (
        isinstance(value, bool) and expected is not bool
    ):
        raise ConfigError(
            f"{name} must be of type {expected.__name__}; got "
            f"{type(value).__name__}."
        )
    if expected is float and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number.")
    if meta["low"] is not None and not value >= meta["low"]:
        raise ConfigError(f"{name} is too small; at least {meta['low']}.")
    high = _MOST if expected is int and meta["high"] is None else meta["high"]
    if high is not None and not value <= high:
        raise ConfigError(f"{name:.80} is too large; at most {high}.")


# Settings that name files. TensorFlow reads the first ones, also from Google's
# buckets and its own memory; Python reads the others from a file system.
_READ_BY_TENSORFLOW = ("data_dir", "eval_data_dir", "inference_dir")
_ON_A_FILE_SYSTEM = (
    *("output_dir", "labeled_dir", "unlabeled_dir", "eval_dir"),
    *("label_subset", "labels_csv", "teacher_labels"),
    *("student_weights", "teacher_weights"),
    *("from_checkpoint", "load_checkpoint", "saved_model"),
    *("inference_ckpt", "inference_ckpt_ensemble"),
)
# Those of them that may name several, separated by commas.
_SEVERAL = ("teacher_labels", "inference_ckpt_ensemble")
# Where KerasHub downloads presets from; it then keeps them elsewhere.
_HUBS = ("kaggle", "hf", "modelscope")
_MOUNTS = {"gs": "gcsfuse", "s3": "mount-s3"}


def check_address(name, value):
    """Refuses a value that cannot be a path for a setting that names files.

    For example, a bucket's address for a path on a file system.

    Args:
      name: of any setting.
      value: its value.

    Raises:
      ConfigError: if the setting names files and the value is another flag, or
        an address that it cannot use; or if one of several paths is empty.
    """
    if name in _SEVERAL and "," in str(value):
        paths = several_paths(name, value)
        if paths != [value]:
            for path in paths:
                check_address(name, path)
            return
    names_files = name in _READ_BY_TENSORFLOW + _ON_A_FILE_SYSTEM
    if names_files and str(value).startswith("-"):
        raise ConfigError(
            f"--{name}={value}: this is a flag, not a path; was the path left "
            f"out? If it is a path, write --{name}=./{value}."
        )
    found = _scheme(value)
    scheme, mount = found or "file", _mount(found)
    if found and name == "output_dir":
        raise ConfigError(
            f"--{name}={value}: runs are written to folders of a file system, "
            f"which locks and moves files. Name one, and copy it to the bucket "
            f"afterwards. {mount} only if the mount supports flock."
        )
    if scheme in _HUBS and name.endswith("_weights"):
        raise ConfigError(
            f"--{name}={value}: nothing is downloaded here. Where there is a "
            "network, run keras_hub.models.ImageClassifier.from_preset("
            f"{str(value)!r}).save_to_preset(FOLDER), and give that folder."
        )
    if name in _ON_A_FILE_SYSTEM:
        _check_no_address(name, value)
    if name in _READ_BY_TENSORFLOW and scheme not in ("gs", "ram", "file"):
        raise ConfigError(
            f"--{name}={value}: TensorFlow reads buckets at gs:// only. "
            f"{mount}, or copy what is there, and give its path."
        )


def check_picture_folder(folder, kind=None):
    """Refuses an address where pictures to predict are to be read.

    Args:
      folder: the inference_dir.
      kind: the inference_data; for None the default, a folder of pictures.

    Raises:
      ConfigError: see `check_address`. Records may be in a bucket.
    """
    if kind in (None, "", "folder"):
        _check_no_address("inference_dir", folder)


def _check_no_address(name, value):
    """Refuses an address for a setting that is a path on a file system."""
    scheme = _scheme(value)
    if scheme is None:
        return
    mend = f"{_mount(scheme)}, or copy what is there, and give its path"
    if scheme == "file":
        mend = "Give it as a path, without file://"
    raise ConfigError(
        f"--{name}={value} is read from a file system only. {mend}."
    )


def _scheme(value):
    """That of an address, such as gs; None for a path."""
    found = re.match(r"(\w[\w+.-]*)://", str(value))
    return found[1].lower() if found else None


def _mount(scheme):
    return f"Mount the bucket ({_MOUNTS.get(scheme, 'rclone mount')})"


def several_paths(name, value):
    """The paths of a setting that may name several, a list.

    A value that exists as a path is one path, even if it contains commas.

    Args:
      name: of the setting.
      value: its value: paths separated by commas.

    Raises:
      ConfigError: if one is empty.
    """
    if os.path.exists(value):
        return [value]
    paths = [part.strip() for part in value.split(",")]
    if not all(paths):
        raise ConfigError(
            f"--{name}={value} names an empty path; write paths with single "
            "commas between."
        )
    return paths


def user_error(function, *args, **kwargs):
    """Calls the library; the user can correct what it refuses.

    Raises:
      ConfigError: for the library's ValueError, with its message.
    """
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise ConfigError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class Unread:
    """Settings without effect in some runs.

    Attributes:
      names: names of the settings; one that ends with "_" is a prefix of many.
      why: the rest of "--lr has no effect: "; settings are in braces.
      when: tells from all settings, by name, whether this is such a run.
      but: names or prefixes, as in `names`, of exceptions that do have effect.
    """

    names: tuple[str, ...]
    why: str
    when: collections.abc.Callable[[collections.abc.Mapping], bool] = (
        lambda settings: True
    )
    but: tuple[str, ...] = ()

    def covers(self, name):
        return _among(name, self.names) and not _among(name, self.but)


def _among(name, patterns):
    return any(
        name.startswith(pattern) if pattern.endswith("_") else name == pattern
        for pattern in patterns
    )
