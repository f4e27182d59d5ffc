"""Plug-ins: a user's modules, which register what the package lacks."""

import contextlib
import copy
import dataclasses
import pickle
import re
import sys
from unittest import mock

import pytest

from meta_pseudo_labels.learners import LEARNERS
from meta_pseudo_labels.learners.feedback import ESTIMATORS
from meta_pseudo_labels.run import command
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.flags import (
    config_from_flags,
    flag_warnings,
)
from meta_pseudo_labels.run.config.unread import unread_settings
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.run.stopping import Diverged, Interrupted
from meta_pseudo_labels.utils.checkpoint_files import CheckpointError
from meta_pseudo_labels.utils.plugins import failure_within, load_plugins
from meta_pseudo_labels.utils.settings import ConfigError
from meta_pseudo_labels.utils.signals import EXIT_INTERRUPTED
from tests.command_line import defined

MODULE = """
import dataclasses

from meta_pseudo_labels.learners import LEARNERS, Supervised
from meta_pseudo_labels.learners.feedback import estimator
from meta_pseudo_labels.run.stages import STAGES, Stage
from meta_pseudo_labels.utils.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class {name}Settings:
    {name}_strength: float = setting(0.5, "How strong it is.", low=0, high=1)


@LEARNERS.register("{name}")
class {name}(Supervised):
    settings = ({name}Settings,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class {name}Counts:
    {name}_limit: int = setting(3, "The most that is counted.", low=0)


@STAGES.register("{name}_count")
class Count(Stage):
    help = "Count."
    needs_run = False
    settings = ({name}Counts,)

    @staticmethod
    def run(experiment):
        print(experiment.config.{name}_limit)


@estimator()
def {name}_feedback(student_step, teacher_logits):
    return student_step.labeled_loss_new * 0.0
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A function that writes a plug-in, which is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (LEARNERS, ESTIMATORS, STAGES):
        registry.discover()
        monkeypatch.setattr(registry, "_found", registry.registered)

    def write(name, text=MODULE):
        (tmp_path / f"{name}_module.py").write_text(text.format(name=name))
        return f"{name}_module"

    return write


def test_what_it_registers_has_a_name_and_settings_of_its_own(plugin):
    config = Config(
        plugins=plugin("glue"), method="glue", mpl_feedback="glue_feedback"
    )
    assert isinstance(config, Config)
    assert config.plugins == "glue_module"
    assert config.glue_strength == 0.5
    other = dataclasses.replace(config, glue_strength=1.0, glue_limit=1)
    assert (other.glue_strength, other.glue_limit) == (1.0, 1)
    assert "glue_strength" in dataclasses.asdict(other)
    with pytest.raises(ConfigError, match="--glue_strength=2.0 is too large"):
        dataclasses.replace(config, glue_strength=2.0)


def test_its_settings_have_flags(plugin, monkeypatch, tmp_path):
    arguments = [
        f"--plugin={plugin('tape')}",
        "--method=tape",
        "--tape_strength=0.25",
        f"--output_dir={tmp_path}",
    ]
    values = defined(arguments)
    values(["main.py", *arguments])
    config = config_from_flags(values)
    assert (config.method, config.tape_strength) == ("tape", 0.25)
    # Later stages know it from the run.
    (tmp_path / "hparams.json").write_text(config.to_json())
    later = [
        "--task_mode=tape_count",
        "--tape_limit=7",
        f"--output_dir={tmp_path}",
    ]
    values = defined(later)
    values(["main.py", *later])
    config = config_from_flags(values)
    assert (config.method, config.tape_limit) == ("tape", 7)
    assert config.plugins == "tape_module"


def test_several_are_named_one_after_another(plugin):
    names = [plugin("nail"), plugin("bolt")]
    arguments = [f"--plugin={name}" for name in names]
    values = defined(arguments)
    values(["main.py", *arguments])
    assert config_from_flags(values).plugins == "nail_module,bolt_module"
    assert Config(plugins=names).plugins == "nail_module,bolt_module"


def test_a_config_of_one_goes_on_after_another_is_there(plugin):
    """Else it is made anew as one of defaults, which a run writes down."""
    first = Config(plugins=plugin("oil"), seed=7, oil_limit=5)
    Config(plugins=plugin("wax"))
    longer = dataclasses.replace(first, num_train_steps=5)
    assert (longer.seed, longer.oil_limit, longer.wax_limit) == (7, 5, 3)
    assert longer.num_train_steps == 5
    for copied in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert (copied.seed, copied.oil_limit) == (7, 5)


def test_training_goes_on_with_the_plugins_of_its_run(plugin, tmp_path):
    config = Config(plugins=plugin("tar"), method="tar")
    (tmp_path / "hparams.json").write_text(config.to_json())

    def settings(*arguments):
        arguments = [f"--output_dir={tmp_path}", *arguments]
        values = defined(arguments)
        values(["main.py", *arguments])
        return config_from_flags(values)

    assert settings("--method=tar").plugins == "tar_module"
    more = [f"--plugin={name}" for name in ("tar_module", plugin("gum"))]
    assert settings("--method=tar", *more).plugins == "tar_module,gum_module"
    assert settings("--reset_output_dir").plugins == ""


def test_settings_that_cannot_be_read_are_no_matter_of_plug_ins(tmp_path):
    (tmp_path / "hparams.json").write_text("{")
    with pytest.raises(ConfigError, match="hparams.json cannot be") as caught:
        defined([f"--output_dir={tmp_path}"])
    assert "plug-in" not in str(caught.value)


def test_a_lost_module_of_a_run_does_not_hinder_its_reset(tmp_path):
    (tmp_path / "hparams.json").write_text('{"plugins": "gone"}')
    folder = f"--output_dir={tmp_path}"
    with pytest.raises(ConfigError, match="was made with a plug-in. --plugin="):
        defined([folder])
    defined([folder, "--reset_output_dir"])


@pytest.mark.parametrize(
    "name, type_, told",
    [
        ("lr", "float", r"pin_lr_module.pin_lrSettings.lr has the name of an"),
        ("names", "list", r"Settings.names is of type <class 'list"),
        (
            "dataset_name",
            "float",
            r"--dataset_name, a setting of a plug-in, has",
        ),
    ],
)
def test_settings_that_no_command_line_can_have(plugin, name, type_, told):
    text = MODULE.replace("{name}_strength: float", f"{name}: {type_}")
    module = plugin(f"pin_{name}", text)
    with pytest.raises(ConfigError, match=told):
        defined([f"--plugin={module}"])


def test_types_may_be_written_as_any_python_has_them(plugin):
    """And a setting may have a name that the release had, without effect."""
    text = "from __future__ import annotations\nimport typing\n" + MODULE
    text = text.replace("{name}_strength: float", "teacher_lr: float")
    text = text.replace(
        "{name}_limit: int = setting(3",
        "{name}_limit: typing.Optional[int] = setting(None",
    )
    arguments = [f"--plugin={plugin('peg', text)}", "--teacher_lr=0.25"]
    values = defined(arguments)
    values(["main.py", *arguments])
    config = config_from_flags(values)
    assert (config.teacher_lr, config.peg_limit) == (0.25, None)
    assert not any(
        "teacher_lr" in line for line in flag_warnings(config, values)
    )


def test_a_method_that_reads_use_augment_is_not_warned_of_it(plugin):
    config = Config(plugins=plugin("mop"), method="mop", use_augment=True)
    assert "use_augment" not in unread_settings(dataclasses.asdict(config))


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="--plugin=no_such: there is no such"):
        Config(plugins="no_such")
    with pytest.raises(ConfigError, match="--plugin=no_such.sub: there is no"):
        defined(["--plugin", "no_such.sub"])


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("mine.py", "mine"),
        ("./mine.py", "mine"),
        ("lab/mine.py", "lab.mine"),
        ("lab/mine", "lab.mine"),
        (".//lab/", "lab"),
        ("lab/../mine.py", "mine"),
    ],
)
def test_the_name_of_a_file_comes_with_that_of_its_module(file, module):
    message = f"--plugin={file}: .* not its file: --plugin={module}$"
    with pytest.raises(ConfigError, match=message):
        Config(plugins=file)


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        ("/home/me/mine.py", "put /home/me on .*, and give --plugin=mine"),
        ("../mine.py", "put .. on PYTHONPATH, or go .* give --plugin=mine"),
        ("~/mine.py", "put ~ on PYTHONPATH.* --plugin=mine"),
        ("my-dir/lab/mine.py", "put my-dir/lab on .* --plugin=mine"),
        ("my-methods.py", "rename it .* such as my_methods.py."),
    ],
)
def test_no_name_is_suggested_that_cannot_be_imported(file, advice):
    with pytest.raises(ConfigError, match=f"not its file: {advice}$"):
        Config(plugins=file)


def test_a_module_that_fails_is_named_with_its_error(plugin):
    name = plugin("crash", "import keras\n\nraise KeyError('{name}')\n")
    with pytest.raises(
        ConfigError, match="--plugin=crash_module fails on import: KeyError"
    ):
        Config(plugins=name)
    name = plugin("needs", "import no_such_library\n")
    with pytest.raises(ConfigError, match="No module named 'no_such_library'"):
        Config(plugins=name)
    assert "needs_module" not in sys.modules


BROKEN = """
from meta_pseudo_labels.learners.feedback import estimator

def helper(step):
    return step.gain

@estimator()
def {name}(student_step, teacher_logits):
    if teacher_logits is None:
        return float("text")
    return helper(student_step)
"""


@pytest.mark.parametrize(
    ("logits", "line", "told"),
    [(0, 5, "AttributeError: .* 'gain'"), (None, 10, "ValueError: could not")],
)
def test_what_fails_in_a_plug_in_is_told_with_its_line(
    plugin, logits, line, told
):
    """The deepest line that is the user's, not Python's or TensorFlow's."""
    name = f"odd_{line}"
    module = plugin(name, BROKEN)
    load_plugins(module)
    with pytest.raises((AttributeError, ValueError)) as caught:
        ESTIMATORS[name](object(), logits)
    failure = failure_within(f"other,{module}", caught.value)
    assert re.fullmatch(
        f"--plugin={module} fails at {module}.py, line {line}: {told}.*",
        str(failure),
    )
    assert failure_within("other", caught.value) is None


def test_the_modules_of_a_package_are_its_own(caplog):
    """Not those of one whose name begins alike; debugging needs it all."""
    scope = {"__name__": "kit.inner"}
    exec(compile("def halve(x):\n  return x / 0", "inner.py", "exec"), scope)
    with pytest.raises(ZeroDivisionError) as caught:
        scope["halve"](1)
    assert failure_within("ki,kit.in", caught.value) is None
    with caplog.at_level("DEBUG", logger="absl"):
        failure = failure_within("kit", caught.value)
    assert str(failure).startswith("--plugin=kit fails at inner.py, line 2: ")
    assert "Traceback" in caplog.text and "in halve" in caplog.text


@pytest.fixture
def stage(plugin, monkeypatch):
    """A function that makes a stage of a plug-in, and settings for it."""
    monkeypatch.setattr(command, "Experiment", lambda config: mock.MagicMock())
    monkeypatch.setattr(command, "input_errors", contextlib.nullcontext)

    def make(name, does):
        text = MODULE.replace("print(experiment.config.{name}_limit)", does)
        return Config(plugins=plugin(name, text), task_mode=f"{name}_count")

    return make


def test_a_run_ends_with_the_line_of_its_plug_in(stage):
    before, _, _ = MODULE.partition("print(experiment")
    line = before.count("\n") + 1
    config = stage("late", "print(1 / 0)")
    message = f"late_module.py, line {line}: ZeroDiv"
    with pytest.raises(ConfigError, match=message):
        command.run(config)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Interrupted("Stopped."), EXIT_INTERRUPTED),
        (Diverged("Stopped."), "Error: Stopped."),
        (CheckpointError("Stopped."), "Error: Stopped."),
    ],
)
def test_a_training_that_a_plug_in_starts_ends_as_any(
    stage, monkeypatch, error, status
):
    config = stage(f"runs_{type(error).__name__}", "experiment.train()")
    experiment = mock.MagicMock()
    experiment.train.side_effect = error
    monkeypatch.setattr(command, "Experiment", lambda config: experiment)
    monkeypatch.setattr(
        command, "run_command", lambda *_, typed: command.run(config)
    )
    with pytest.raises(SystemExit) as ended:
        command.main(["main.py"])
    assert ended.value.code == status


def test_names_that_nobody_registered_come_with_near_ones():
    for name, value, near in (
        ("method", "supervise", "supervised"),
        ("mpl_feedback", "reinforce_cosin", "reinforce_cosine"),
        ("task_mode", "evall", "eval"),
    ):
        with pytest.raises(ConfigError, match=f"did you mean .*{near}"):
            Config(**{name: value})
