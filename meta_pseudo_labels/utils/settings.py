"""One setting: its default, what it means, its range; and who refuses it."""

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
    """A setting that cannot be meant; the message says what to change."""


# Task mode -> command, where that is another word.
WORDS = {"inference": "predict"}


def command_for(task_mode, folder):
    """What to type for a task of a run, as this program was started.

    Args:
      task_mode: such as "eval".
      folder: of the run; text in `<>` is for the reader to replace.
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
    """Dotted names of modules, and of what is in them, with commas between.

    Args:
      names: a sequence of names, or such a text; None or empty for none.
    """
    if not names or isinstance(names, str):
        return ",".join((names or "").replace(" ", "").split(","))
    return ",".join(names)


_SAME = object()
_MOST = 2**31 - 1  # Of whole numbers that name no bound: those of TensorFlow.


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
      default: value where nothing is said.
      help: what it means and in which unit; whole sentences.
      low: smallest value, or None.
      high: largest value, or None.
      choices: all values, a tuple or a `Registry`, or a function that gives
        them; None where any in range will do.
      flag_default: default that the command line shows, where the release's
        flag has another one. It counts only where it is given.
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
    """All values of a setting, a tuple; None where any in range will do."""
    choices = field.metadata["choices"]
    if choices is None:
        return None
    if callable(choices):
        choices = choices()
    values = tuple(choices)
    return values if field.default in values else (field.default, *values)


def value_type(field):
    """The type of a setting's value, None apart."""
    if may_be_none(field):
        return next(
            t for t in typing.get_args(field.type) if t is not types.NoneType
        )
    return field.type


def may_be_none(field):
    """Whether a setting's type is a union, `int | None` or the like."""
    return typing.get_origin(field.type) in (types.UnionType, typing.Union)


def check(field, value):
    """Raises ConfigError where one setting's value is out of its range."""
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


# Settings that name files. TensorFlow reads those of the first, in buckets of
# Google and its own memory too; Python the others, on a file system.
_READ_BY_TENSORFLOW = ("data_dir", "eval_data_dir", "inference_dir")
_ON_A_FILE_SYSTEM = (
    *("output_dir", "labeled_dir", "unlabeled_dir", "eval_dir"),
    *("label_subset", "labels_csv", "teacher_labels"),
    *("student_weights", "teacher_weights"),
    *("from_checkpoint", "load_checkpoint", "saved_model"),
    *("inference_ckpt", "inference_ckpt_ensemble"),
)
# Those of them that may name several, with commas between.
_SEVERAL = ("teacher_labels", "inference_ckpt_ensemble")
# From where KerasHub downloads presets, which it then keeps elsewhere.
_HUBS = ("kaggle", "hf", "modelscope")
_MOUNTS = {"gs": "gcsfuse", "s3": "mount-s3"}


def check_address(name, value):
    """Refuses what cannot be a path of the files that a setting names.

    Such as a bucket's address where those of a file system are meant.

    Args:
      name: of any setting.
      value: its value.

    Raises:
      ConfigError: where the setting names files, and this is another flag, or
        the address of some that it cannot name; or one of several is empty.
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
            f"--{name}={value}: this is a flag, no path; was the path left "
            f"out? Where it is meant, say --{name}=./{value}."
        )
    found = re.match(r"(\w[\w+.-]*)://", str(value))
    scheme = found[1].lower() if found else "file"
    mount = f"Mount the bucket ({_MOUNTS.get(scheme, 'rclone mount')})"
    if found and name == "output_dir":
        raise ConfigError(
            f"--{name}={value}: runs are written to folders of a file system, "
            f"which locks and moves files. Name one, and copy it to the bucket "
            f"afterwards. {mount} only where the mount has flock."
        )
    if scheme in _HUBS and name.endswith("_weights"):
        raise ConfigError(
            f"--{name}={value}: nothing is downloaded here. Where there is a "
            "network, say keras_hub.models.ImageClassifier.from_preset("
            f"{str(value)!r}).save_to_preset(FOLDER), and give that folder."
        )
    if found and name in _ON_A_FILE_SYSTEM:
        raise ConfigError(
            f"--{name}={value} is read from a file system only. {mount}, or "
            "copy what is there, and give its path."
        )
    if name in _READ_BY_TENSORFLOW and scheme not in ("gs", "ram", "file"):
        raise ConfigError(
            f"--{name}={value}: of buckets TensorFlow reads gs:// alone. "
            f"{mount}, or copy what is there, and give its path."
        )


def several_paths(name, value):
    """The paths of a setting that may name several, a list.

    A path with commas of its own is one, where it exists.

    Args:
      name: of the setting.
      value: its value: paths with commas between.

    Raises:
      ConfigError: where one is empty.
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
    """Calls the library; what it refuses, the user can mend.

    Raises:
      ConfigError: for the library's ValueError, with its message.
    """
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise ConfigError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class Unread:
    """Settings that nothing of some runs depends on.

    Attributes:
      names: of the settings; one that ends with "_" is the beginning of many.
      why: the rest of "--lr has no effect: "; settings stand in braces.
      when: tells from all settings, by name, whether this is such a run.
      but: beginnings or names as in `names`, of those that are read after all.
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
