"""The pages of flags and of a run's files, as the package tells of them."""

import csv
import dataclasses
import html
import json
import pathlib
import re

from absl import flags

from meta_pseudo_labels.release.idle_flags import IDLE_FLAGS
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.core import RUN_GROUPS
from meta_pseudo_labels.run.config.flags import REPEATED, define_flags
from meta_pseudo_labels.run.stages import STAGES

_ROOT = pathlib.Path(__file__).parents[2]
_RELEASE = pathlib.Path(__file__).with_name("release_flags.csv")
_RUNS = {
    "CIFAR-10": "flags/cifar10_4000_mpl.flags",
    "ImageNet": "flags/imagenet_10_percent_mpl.flags",
}
_FIRST = ("inspect", "train", "finetune", "eval", "export")
_FLAGS = """# Flags

Every setting of a run is a flag. This page is made of the registry that
`mpl train --help` prints.

* **Default** is what holds where nothing is said.
* **Release** is the default of Google's release, where it has the flag, and
  what the two runs in its README set. That is the nearest there is to the
  paper's settings, which the paper itself prints in part. A dash: the release
  has no such flag.
* Batch sizes are of all devices together, durations are in steps.
* `--no...` turns off what is true or false: `--noprogress`.
* In Python each flag is a field of `Config`, by the same name.

A `--recipe=NAME` sets many at once; what is typed wins. After training, what a
command line leaves out is taken from the run's `hparams.json`.

"""
_OTHERS = """## Of no group

| Flag | Default | Meaning |
|---|---|---|
"""
_IDLE = """## Of the release, without effect

The release's old scripts set them, so they are accepted; a warning says that
nothing comes of it.

| Flag | Release | Meaning |
|---|---|---|
"""
_FILES = """# Files of a run

What each command leaves in `--output_dir`. A file is there whole or not at all.
`--reset_output_dir` deletes these and nothing else.

JSON files are text. `metrics.jsonl` has a JSON object a line. `events` is for
TensorBoard: `tensorboard --logdir=runs/mpl`.
"""


def flags_page():
    """Every flag, its default, the release's, and what it means; Markdown."""
    values = flags.FlagValues()
    define_flags(values)
    release, runs = _release_defaults(), _runs()
    parts = [_FLAGS]
    for group in _groups():
        parts.append(
            f"## {group.__name__.removesuffix('Settings')}\n\n"
            f"{text(group.__doc__)}\n\n"
            "| Flag | Default | Release | Meaning |\n|---|---|---|---|\n"
        )
        for field in dataclasses.fields(group):
            name = REPEATED.get(field.name, (field.name,))[0]
            of_release = _of_release(name, release, runs)
            meaning = text(_meaning(values[name]))
            parts.append(
                f"| `--{name}` | {_shown(field.default)} | {of_release} | "
                f"{meaning} |\n"
            )
        parts.append("\n")
    meaning = text(_meaning(values["dataset_name"]))
    parts.append(f"{_OTHERS}| `--dataset_name` | none | {meaning} |\n")
    parts.append(
        "| `--recipe` | none | A flagfile of this package by its name, or any "
        "by its path; `mpl` lists the names. |\n\n"
    )
    parts.append(_IDLE)
    for flag in IDLE_FLAGS:
        if flag.name not in {f.name for f in dataclasses.fields(Config)}:
            default = _shown(flag.default)
            meaning = text(flag.full_help)
            parts.append(f"| `--{flag.name}` | {default} | {meaning} |\n")
    return "".join(parts)


def run_files_page():
    """The files that each task mode leaves; Markdown."""
    parts = [_FILES]
    for name in sorted(STAGES, key=_place):
        stage = STAGES[name]
        parts.append(f"\n## {name}\n\n{text(stage.help)}\n")
        if stage.files:
            parts.append("\n| File | What it is |\n|---|---|\n")
        for file in stage.files:
            parts.append(f"| `{file.path}` | {text(file.what)} |\n")
    return "".join(parts)


def text(words):
    """Words as Markdown that shows them, with flags as code."""
    parts = re.split(r"(`[^`]+`|--\w+(?:=[\w.<>/-]*\w)?)", words)
    parts[1::2] = [f"`{code.strip('`')}`" for code in parts[1::2]]
    parts[::2] = [
        re.sub(r"([*_|])", r"\\\1", html.escape(plain, quote=False))
        for plain in parts[::2]
    ]
    # Where it names a page.
    return re.sub(
        r"docs/([\w\\]+)\.md",
        lambda page: f"[{page[1]}](../{page[1].replace(chr(92), '')}.md)",
        "".join(parts),
    )


def _place(stage):
    """A key that sorts task modes as they follow one another."""
    return _FIRST.index(stage) if stage in _FIRST else len(_FIRST)


def _groups():
    """All groups of settings, in the order in which a reader meets them."""
    learning = Config.groups[len(RUN_GROUPS) :]
    *after, data, run = RUN_GROUPS
    return [run, data, *learning, *reversed(after)]


def _meaning(flag):
    """Its help, without what absl adds."""
    return flag.help.partition(" (default: none)")[0]


def _shown(value):
    """A default, for a cell of a table."""
    if value is None or value == "":
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _release_defaults():
    with open(_RELEASE, encoding="utf-8", newline="") as file:
        return {
            row["flag"]: (json.loads(row["default"]), row["odd"])
            for row in csv.DictReader(file)
        }


def _runs():
    """{run: {flag: value}} of what the release's README runs set."""
    found = {}
    for run, flagfile in _RUNS.items():
        values = flags.FlagValues()
        define_flags(values)
        values(["flags", f"--flagfile={_ROOT / flagfile}"])
        found[run] = {
            name: values[name].value for name in values if values[name].present
        }
    return found


def _of_release(name, release, runs):
    if name not in release:
        return "–"
    default, odd = release[name]
    said = [
        f"{run} {_shown(values[name])}"
        for run, values in runs.items()
        if name in values
    ]
    return "; ".join([odd if odd == "undefined" else _shown(default), *said])
