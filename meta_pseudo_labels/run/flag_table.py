"""Help and errors of a command line, before TensorFlow is loaded.

    python -m meta_pseudo_labels.run.flag_table

writes flag_table.json, all flags of the package and which of them belong to
each task mode, from the settings and the stages. What the table refuses,
`Config` or absl would refuse in the same words; what it accepts they still
check. It is not used if there may be other flags: with plug-ins, or if it
lacks a setting or a registered name.
"""

import copy
import dataclasses
import json
import os
import pathlib
import re
import sys

from absl import app, flags, logging  # noqa: F401 Both define flags.

from meta_pseudo_labels.run.places import check_place
from meta_pseudo_labels.utils.settings import WORDS, check, setting

_TABLE = pathlib.Path(__file__).with_name("flag_table.json")
_PACKAGE = _TABLE.parents[1]
_TYPES = {"bool": bool, "int": int, "float": float, "string": str}
_DEFINE = {
    "bool": flags.DEFINE_bool,
    "int": flags.DEFINE_integer,
    "float": flags.DEFINE_float,
    "string": flags.DEFINE_string,
    "multi string": flags.DEFINE_multi_string,
}
_HELP = ("help", "helpshort", "?")
# Arguments with flags that TensorFlow defines, or that list these too.
_LATE = re.compile(r"--?(helpfull|helpxml|test_|tt_|xml_|\w+_oom_|op_|delta_)")
_NAME = re.compile(
    r'^    (\w+): [\w |]+ = setting\(|register\(\s*"([^"]+)"', re.MULTILINE
)


def refuse(program, arguments, *, task_mode=None):
    """Ends the command if it asks for help, or cannot run.

    Args:
      program: its name, for messages.
      arguments: flags, those of recipes among them.
      task_mode: that of the command, or None.

    Raises:
      ConfigError: for a value out of its range, or a folder that no run can be
        in.
      SystemExit: after a message on what is wrong, or a list of all flags.
    """
    if any(map(_LATE.match, arguments)) or _may_have_plugins(arguments):
        return
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    if table["names"] != names():
        return
    values = flags.FlagValues()
    for name in _HELP:
        flags.DEFINE_bool(name, False, "", flag_values=values)
    for flag in _flags_of(flags.FLAGS):  # Those of absl.
        if flag.name not in {*_HELP, *table["flags"]}:
            values[flag.name] = copy.deepcopy(flag)
    _define(table["flags"], values, program)
    try:
        rest = values([program, *arguments])
    except flags.Error:
        rest = None
    asks = any(values[name].value for name in _HELP)
    if rest is not None and asks and task_mode in table["stages"]:
        end_with_help(task_mode, table)
    if rest is None or asks:
        _define(table["flags"], flags.FLAGS, program)
        app.run(
            lambda _: None, argv=[program, *arguments], flags_parser=parse_flags
        )
    if len(rest) > 1:  # Words that are not flags are reported first.
        return
    _check_flags(table["flags"], values)
    mode = task_mode or values["task_mode"].value or "train"
    stage = table["stages"].get(mode)
    only_checks = values.flag_values_dict().get("only_check_args")
    if stage and not stage["waits"] and not only_checks:
        place = at_home(values["output_dir"].value)
        check_place(place, must_exist=stage["needs_run"])


def _check_flags(rows, values):
    for name, row in rows.items():
        value = values[name].value
        if values[name].present and "low" in row and value is not None:
            check(_field(name, row), at_home(value))


def asks_for_help(arguments):
    """Whether --help, or another word for it, is among these."""
    return any(
        argument.startswith("-") and argument.lstrip("-") in _HELP
        for argument in arguments
    )


def end_with_help(task_mode, table):
    """Prints the help of a command, and ends with status 0.

    Args:
      task_mode: that of the command.
      table: a dict as `table` makes it.

    Raises:
      SystemExit: always.
    """
    try:
        print(command_help(task_mode, table), flush=True)
    except BrokenPipeError:  # `| head` has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def command_help(task_mode, table):
    """What a command does, its own flags, then all others.

    Args:
      task_mode: that of the command.
      table: a dict as `table` makes it.
    """
    stage, rows = table["stages"][task_mode], dict(table["flags"])
    rows.pop("task_mode", None)  # It is the command's word.
    command = f"mpl {WORDS.get(task_mode, task_mode)}"
    own, others = f"Flags of {command}", "All other flags"
    values = flags.FlagValues()
    _define({name: rows.pop(name) for name in stage["flags"]}, values, own)
    _define(rows, values, others)
    parts = [
        f"{command} --output_dir=<folder of the run> [--flag=value ...]",
        stage["help"],
        values.module_help(own).strip() or "It has no flags of its own.",
        values.module_help(others).strip(),
        "Try --helpfull for those of absl and TensorFlow too.",
    ]
    return "\n\n".join(parts)


def parse_flags(arguments):
    """The parser for `app.run`: its errors are one line, as all errors are.

    Args:
      arguments: the command line, the program first.

    Returns:
      The arguments that are not flags.

    Raises:
      SystemExit: for an unknown flag, or a value of another type.
    """
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        reason = " ".join(str(error).split())
        if not reason.endswith((".", "?")):
            reason += "."
        sys.exit(f"Error: {reason} `mpl train --help` lists all flags.")


def early_flags(arguments):
    """The flags that may name plug-ins, before all flags are known.

    Args:
      arguments: the command line, whose flagfiles are read.

    Returns:
      Values of --plugin, --output_dir and --reset_output_dir; None if something
      about them is wrong, which the parser of all flags reports.
    """
    early = flags.FlagValues()
    flags.DEFINE_multi_string("plugin", [], "", flag_values=early)
    flags.DEFINE_string("output_dir", None, "", flag_values=early)
    flags.DEFINE_bool("reset_output_dir", False, "", flag_values=early)
    try:
        early(["", *arguments], known_only=True)
    except flags.Error:
        return None
    return early.flag_values_dict()


def at_home(value):
    """A value whose paths may begin with ~, which shells leave in --flag=~/x.

    Commas separate several paths. No other setting begins with ~.
    """
    if not isinstance(value, str):
        return value
    parts = (
        os.path.expanduser(part.strip()) if part.strip()[:1] == "~" else part
        for part in value.split(",")
    )
    return ",".join(parts)


def names():
    """Names of all settings and of all that is registered, sorted."""
    texts = [path.read_text("utf-8") for path in _PACKAGE.rglob("*.py")]
    found = _NAME.findall("".join(texts))
    return sorted({name for pair in found for name in pair if name})


def table():
    """What flag_table.json holds, from the settings themselves."""
    from meta_pseudo_labels.run.config.core import config_class
    from meta_pseudo_labels.run.config.flags import define_flags
    from meta_pseudo_labels.utils.settings import choices_of

    values = flags.FlagValues()
    define_flags(values)
    rows = {
        flag.name: {
            "type": flag.flag_type(),
            "default": flag.default,
            # What absl adds to it, it will add again.
            "help": flag.help.partition(";\n    repeat this")[0],
        }
        for flag in _flags_of(values)
    }
    for field in dataclasses.fields(config_class()):
        if field.name in rows:
            meta = field.metadata
            rows[field.name] |= {
                "low": meta["low"],
                "high": meta["high"],
                "choices": choices_of(field),
            }
    return {"names": names(), "flags": rows, "stages": _stages(rows)}


def _stages(rows):
    """The help of each task mode, and the flags that are its own.

    Training's are all those that no later task mode has.
    """
    from meta_pseudo_labels.run.config.core import config_class
    from meta_pseudo_labels.run.stages import STAGES, Stage

    own = {
        name: [
            field.name
            for group in stage.settings
            for field in dataclasses.fields(group)
        ]
        for name, stage in STAGES.items()
    }
    later = {
        flag
        for name, stage in STAGES.items()
        if stage.needs_run
        for flag in own[name]
    }
    settings = [field.name for field in dataclasses.fields(config_class())]
    of_training = [
        name
        for name in settings
        if name in rows and name not in {*later, "task_mode"}
    ]
    return {
        name: {
            "help": stage.help,
            "flags": of_training if stage.trains else own[name],
            "needs_run": stage.needs_run,
            # Its run, and the disk for it, may not be there yet.
            "waits": stage.wait is not Stage.wait,
        }
        for name, stage in STAGES.items()
    }


def _may_have_plugins(arguments):
    early = early_flags(arguments)
    if early is None or early["plugin"] or not early["output_dir"]:
        return bool(early and early["plugin"])
    try:
        path = os.path.join(at_home(early["output_dir"]), "hparams.json")
        with open(path, encoding="utf-8") as file:
            return bool(json.load(file).get("plugins"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, AttributeError, RecursionError):
        return True  # Its reader says what is wrong with it.


def _flags_of(flag_values):
    modules = flag_values.flags_by_module_dict().values()
    return [flag for module in modules for flag in module]


def _define(rows, flag_values, program):
    for name, row in rows.items():
        _DEFINE[row["type"]](
            name,
            row["default"],
            row["help"],
            flag_values=flag_values,
            module_name=program,
        )


def _field(name, row):
    """The setting of a flag."""
    field = setting(
        None,
        row["help"],
        low=row["low"],
        high=row["high"],
        choices=row["choices"],
    )
    field.name, field.type = name, _TYPES[row["type"]]
    return field


def main():
    """Writes flag_table.json, one flag per line."""
    made = table()
    rows = (
        f"{json.dumps(name)}: {json.dumps(row)}"
        for name, row in made["flags"].items()
    )
    stages = (
        f"{json.dumps(name)}: {json.dumps(stage)}"
        for name, stage in made["stages"].items()
    )
    _TABLE.write_text(
        f'{{"names": {json.dumps(made["names"])},\n'
        '"flags": {\n' + ",\n".join(rows) + "\n},\n"
        '"stages": {\n' + ",\n".join(stages) + "\n}}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
