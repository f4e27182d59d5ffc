"""The command line: one absl flag per field of `Config`.

Only `main.py` and its like import this; the library takes a `Config`.
"""

import dataclasses
import sys

from absl import flags

from meta_pseudo_labels.config import Config, value_type
from meta_pseudo_labels.run_folder import saved_settings

_DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define_flags(flag_values=flags.FLAGS):
    """Defines a flag for every setting, with its help and its default."""
    for field in dataclasses.fields(Config):
        _DEFINE[value_type(field)](
            field.name,
            field.default,
            _help(field),
            flag_values=flag_values,
            module_name=sys.argv[0],  # The flags that --help lists.
        )


def config_from_flags(flag_values=flags.FLAGS):
    """The run's settings, from the parsed command line.

    After training, what the command line does not say is taken from the run's
    own hparams.json, so that `--output_dir` alone names a run.

    Raises:
      ConfigError: for a value out of range, or an unreadable hparams.json.
    """
    names = [field.name for field in dataclasses.fields(Config)]
    given = {name: flag_values[name] for name in names}
    values = {name: flag.value for name, flag in given.items()}
    if values["task_mode"] != "train":
        saved = saved_settings(values["output_dir"])
        values |= {
            name: value
            for name, value in saved.items()
            if name in given and not given[name].present
        }
    return Config(**values)


def config_from_flagfile(path, **settings):
    """The settings in a flagfile, with some replaced; for scripts.

    Args:
      path: of the flagfile.
      **settings: fields of `Config` that win over the file.

    Raises:
      ConfigError: for a value out of range.
    """
    flag_values = flags.FlagValues()
    define_flags(flag_values)
    flag_values(["settings", f"--flagfile={path}"])
    return dataclasses.replace(config_from_flags(flag_values), **settings)


def _help(field):
    """What a setting means, and which values it takes."""
    meta = field.metadata
    if meta["choices"] is not None:
        known = ", ".join(str(c) for c in meta["choices"] if c is not None)
        return f"{meta['help']} One of: {known}."
    bounds = [
        f"{word} {meta[bound]:g}"
        for word, bound in (("at least", "low"), ("at most", "high"))
        if meta[bound] is not None
    ]
    return f"{meta['help']} {', '.join(bounds).capitalize()}".strip() + (
        "." if bounds else ""
    )
