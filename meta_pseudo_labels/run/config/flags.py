"""The command line: a flag per field of `Config`, and the release's others.

Only programs such as `main.py` import this; the library takes a `Config`.
"""

import dataclasses
import sys

from absl import flags

from meta_pseudo_labels.distribute.strategies import has_tpu
from meta_pseudo_labels.release.dataset_names import (
    DATASET_NAME_HELP,
    split_dataset_name,
)
from meta_pseudo_labels.release.idle_flags import IDLE_FLAGS
from meta_pseudo_labels.run.config.core import Config, config_class
from meta_pseudo_labels.run.config.inference import unread_by
from meta_pseudo_labels.run.config.unread import unread_settings
from meta_pseudo_labels.run.flag_table import at_home, early_flags
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.utils.plugins import load_plugins
from meta_pseudo_labels.utils.settings import (
    ConfigError,
    choices_of,
    command_name,
    module_names,
    value_type,
)

_DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
# Settings of several names: the flag, which may be repeated, and its help.
REPEATED = {
    "plugins": (
        "plugin",
        "Dotted name of a module to import first; repeat the flag for more. "
        "What it registers (a method, an estimator, a source, a network, a "
        "task mode) can be named like the built-in ones. (default: none)",
    ),
    "callbacks": (
        "callback",
        "A function that makes additional Keras callbacks for training and "
        "finetuning: a module and a function in it that takes the Config, such "
        "as my_callbacks:tracker; repeat the flag for more. A resumed run "
        "keeps its own if none is given. (default: none)",
    ),
}


def define_flags(flag_values=flags.FLAGS, *, arguments=()):
    """Defines a flag for every setting, with its help and its default.

    It also defines --dataset_name and the flags of the release that have no
    effect, so that every flag of the release exists.

    Args:
      flag_values: where to define them.
      arguments: the command line. The plug-ins that it names, or the run in
        its --output_dir, are imported first, so that their settings have flags.

    Raises:
      ConfigError: for a plug-in that cannot be imported.
    """
    _load_plugins_of(arguments)

    def define(name, type_, default, help):
        if default is None:  # absl then shows no default at all.
            help += " (default: none)"
        try:
            _DEFINE[type_](
                name,
                default,
                help,
                flag_values=flag_values,
                module_name=sys.argv[0],  # The flags that --help lists.
            )
        except flags.DuplicateFlagError as error:
            raise ConfigError(
                f"--{name}, a setting of a plug-in, has the name of an "
                "existing flag; give it another name."
            ) from error

    for field in dataclasses.fields(config_class()):
        default = field.metadata["flag_default"]
        if field.name in REPEATED:
            _define_repeated(field.name, flag_values)
        else:
            define(field.name, value_type(field), default, _help(field))
    define("dataset_name", str, None, DATASET_NAME_HELP)
    for flag in _idle_flags():
        define(flag.name, flag.value_type, flag.default, flag.full_help)


def _define_repeated(setting, flag_values):
    flag, help = REPEATED[setting]
    flags.DEFINE_multi_string(
        flag,
        [],
        help,
        flag_values=flag_values,
        module_name=sys.argv[0],
    )


def _idle_flags():
    """The release's flags without effect, except those named like a setting."""
    settings = {field.name for field in dataclasses.fields(config_class())}
    return [flag for flag in IDLE_FLAGS if flag.name not in settings]


def _load_plugins_of(arguments):
    """Imports the plug-ins of a command line, its flagfiles and its run."""
    early = early_flags(arguments)
    if early is None:
        return
    if not early["reset_output_dir"]:
        folder = RunFolder(at_home(early["output_dir"]))
        saved = folder.settings().get("plugins")
        try:
            load_plugins(saved)
        except ConfigError as error:
            raise ConfigError(
                f"The run in {folder} was made with a plug-in. {error}"
            ) from error
    load_plugins(early["plugin"])


def _joined(saved, given):
    """Names separated by commas, those of a run first, each once."""
    names = [module_names(saved), *given]
    names = [name for part in names for name in module_names(part).split(",")]
    return ",".join(dict.fromkeys(filter(None, names)))


def config_from_flags(flag_values=flags.FLAGS):
    """The run's settings, from the parsed command line.

    --dataset_name stands for several of them. In stages after training, what
    the command line leaves out is taken from the run's own hparams.json, so
    that `--output_dir` alone names a run. inspect deletes nothing; with
    --reset_output_dir it inspects the data of a new run, not of that one.

    Raises:
      ConfigError: for a value out of range, settings that contradict
        --dataset_name, --reset_output_dir with a task that needs the run, or
        an unreadable hparams.json.
    """
    return Config(**_settings(flag_values))


def _settings(flag_values):
    """The fields of the `Config` of `config_from_flags`, a dict."""
    given = {
        name: at_home(value) for name, value in _given(flag_values).items()
    }
    if flag_values["dataset_name"].value is not None:
        given |= split_dataset_name(flag_values["dataset_name"].value, given)
    given["task_mode"] = task = given.get("task_mode") or "train"
    typed = flag_values["plugin"].value
    given["plugins"] = _joined("", typed)
    if flag_values["callback"].present:  # --callback= alone removes all.
        given["callbacks"] = _joined("", flag_values["callback"].value)
    stage = STAGES.get(task)  # None if unknown; Config refuses it.
    if stage is None:
        return given
    resets = given.get("reset_output_dir")
    if resets and not stage.trains and task != "inspect":
        raise ConfigError(
            "--reset_output_dir would delete the run that "
            f"{command_name(task)} needs; leave it out, or say "
            "--noreset_output_dir after the --flagfile."
        )
    if resets:  # Of a new run, or a look at its data.
        return given
    saved = RunFolder(given.get("output_dir")).settings()
    given["plugins"] = _joined(saved.get("plugins"), typed)
    if stage.trains:  # Keeps only its plug-ins and callbacks.
        given.setdefault("callbacks", saved.get("callbacks", ""))
        return given
    load_plugins(given["plugins"])
    known = {field.name for field in dataclasses.fields(config_class())}
    known -= unread_by(task)  # Refused if given; the run may have them.
    return {k: v for k, v in saved.items() if k in known} | given


def flag_warnings(config, flag_values=flags.FLAGS, *, arguments=()):
    """A line for each flag that was set and has no or an odd effect.

    Args:
      config: the `Config` made of them.
      flag_values: the parsed command line.
      arguments: the command line as it was typed. Of the settings that a run
        does not read, only those given here cause a warning: a flagfile may
        serve several methods.
    """
    lines = [flag.warning(flag_values[flag.name]) for flag in _idle_flags()]
    if config.dataset_service_replicas is not None:
        lines.append(
            "--dataset_service_replicas has no effect: --data_service names "
            "a service, and all its workers help."
        )
    if (
        config.use_tpu
        and config.task_mode == "train"
        and config.distribution == "auto"
        and not has_tpu(config)
    ):
        lines.append(
            "--use_tpu has no effect: there is no TPU here. The run "
            "uses this machine's other devices."
        )
    if config.task_mode == "train":
        lines += _short_lines(config)
    if (
        config.label_sampling == "balanced"
        and config.uda_distribution_alignment
    ):
        lines.append(
            "--uda_distribution_alignment assumes that the classes of "
            "unlabeled images are as balanced as --label_sampling=balanced "
            "makes the labeled ones; leave one out if they are not."
        )
    if config.task_mode == "train":
        lines += _unread_lines(config, _typed(arguments))
    return [line for line in lines if line is not None]


def _short_lines(config):
    """The line that warns of a run that mostly waits and warms up, if any."""
    steps, peak = config.num_train_steps, config.steps_to_peak
    if 2 * steps >= 3 * peak:
        return []
    ends = f"waiting and warming up end at step {peak}, "
    if steps < peak:
        ends += "after the run does: hardly anything will be learned"
    else:
        ends += f"which leaves {steps - peak} steps to learn in"
    return [
        f"--num_train_steps={steps}: {ends}. For a short trial set the "
        "..._wait_steps and ..._warmup_steps too."
    ]


def _unread_lines(config, typed):
    """A line for each reason why settings among `typed` have no effect."""
    flags_of = {}
    unread = unread_settings(dataclasses.asdict(config))
    for name, why in sorted(unread.items()):
        if name in typed:
            flags_of.setdefault(why, []).append(f"--{name}")
    return [
        f"{', '.join(names)} {'have' if names[1:] else 'has'} no effect: {why}"
        for why, names in flags_of.items()
    ]


def _typed(arguments):
    """The names of the flags on a command line, without those in flagfiles."""
    names = set()
    for argument in arguments:
        if argument == "--":  # No flags after it.
            break
        if argument.startswith("-"):
            name = argument.lstrip("-").partition("=")[0]
            names |= {name, name.removeprefix("no")}
    return names


def config_from_flagfile(path, **settings):
    """The settings in a flagfile, with some replaced; for scripts.

    Args:
      path: of the flagfile, or the name of a recipe, such as "digits_mpl".
      **settings: fields of `Config` that win over the file.

    Raises:
      ConfigError: for a value out of range, and a file that does not exist.
    """
    # Imported here: a command line reads recipes before it has settings.
    from meta_pseudo_labels.run.recipes import expand

    flag_values = flags.FlagValues()
    define_flags(flag_values)
    flag_values(["settings", *expand([f"--recipe={path}"])])
    return Config(**_settings(flag_values) | settings)


def _given(flag_values):
    """The settings that were given, as a dict.

    Also those that a program set. The default that a flag shows is not always
    the setting's own, so what was not given is left out.
    """
    return {
        field.name: flag_values[field.name].value
        for field in dataclasses.fields(config_class())
        if field.name in flag_values
        and (
            flag_values[field.name].present
            or flag_values[field.name].value != field.metadata["flag_default"]
        )
    }


def _help(field):
    """What a setting means, and which values it accepts."""
    meta, choices = field.metadata, choices_of(field)
    if choices is not None:
        known = ", ".join(str(c) for c in choices if c is not None)
        return f"{meta['help']} One of: {known}."
    bounds = [
        f"{word} {meta[bound]:,}"
        for word, bound in (("at least", "low"), ("at most", "high"))
        if meta[bound] is not None
    ]
    return f"{meta['help']} {', '.join(bounds).capitalize()}".strip() + (
        "." if bounds else ""
    )
