"""The table of flags: what it says is what the settings say."""

import dataclasses
import json
import re
import sys

import pytest
from absl import app, flags

from meta_pseudo_labels.run import flag_table
from meta_pseudo_labels.run.config.flags import config_from_flags
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.utils.settings import ConfigError
from tests.command_line import defined

PROGRAM = sys.argv[0]


@pytest.fixture
def refuse(monkeypatch):
    """What `refuse` would have absl or the user be told; None where nothing."""

    def run(main, argv, flags_parser):  # As app.run does.
        assert flags_parser is flag_table.parse_flags
        flags.FLAGS(argv)  # What it makes a line of.

    def refusal(*arguments, task_mode=None):
        with monkeypatch.context() as patch:
            patch.setattr(flags, "FLAGS", flags.FlagValues())
            patch.setattr(app, "run", run)
            try:
                flag_table.refuse(PROGRAM, arguments, task_mode=task_mode)
            except (flags.Error, ConfigError) as error:
                return str(error)
        return None

    return refusal


def late_refusal(*arguments):
    """The same from the settings themselves."""
    try:
        values = defined(arguments)
        values([PROGRAM, *arguments])
        config_from_flags(values)
    except (flags.Error, ConfigError) as error:
        return str(error)
    return None


def test_the_table_is_that_of_the_settings():
    """Else: python -m meta_pseudo_labels.run.flag_table"""
    written = json.loads(flag_table._TABLE.read_text("utf-8"))
    made = json.loads(json.dumps(flag_table.table()))
    assert written == made
    assert list(written["flags"]) == list(made["flags"])  # The order counts.


def test_help_is_that_of_the_settings():
    rows = json.loads(flag_table._TABLE.read_text("utf-8"))["flags"]
    values = flags.FlagValues()
    flag_table._define(rows, values, PROGRAM)
    assert values.module_help(PROGRAM) == defined().module_help(PROGRAM)


def shown(text):
    """The flags that a page of help has, in its order."""
    return re.findall(r"^  --(?:\[no\])?(\w+):", text, re.MULTILINE)


@pytest.mark.parametrize("mode", STAGES)
def test_help_of_a_command_begins_with_what_is_its_own(mode):
    made = json.loads(flag_table._TABLE.read_text("utf-8"))
    text = flag_table.command_help(mode, made)
    assert text.startswith("mpl ") and STAGES[mode].help in text
    own, others = text.split("All other flags:")
    groups = STAGES[mode].settings
    fields = [f.name for group in groups for f in dataclasses.fields(group)]
    if mode != "train":
        assert sorted(shown(own)) == sorted(fields)
    assert sorted(shown(own) + shown(others)) == sorted(
        set(made["flags"]) - {"task_mode"}
    )


def test_flags_of_training_are_those_that_no_later_command_has():
    made = json.loads(flag_table._TABLE.read_text("utf-8"))
    own = set(made["stages"]["train"]["flags"])
    assert {"method", "lr", "mpl_feedback", "dataset", "output_dir"} <= own
    assert not own & {"diagnose_draws", "finetune_lr", "inference_dir"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--methd=mpl",),
        ("--seed=1", "--nomethod"),
        ("--train_batch_size=x",),
        ("--train_batch_size=-1",),
        ("--train_batch_size=8", "--train_batch_size", "0"),
        ("--seed=99999999999",),
        ("--num_train_steps=99999999999",),
        ("--lr=nan",),
        ("--lr=-0.1", "--seed=-1"),  # The first setting is told of.
        ("--remat=perhaps",),
        ("--finetune_lr",),
        ("--method=mlp",),
        ("--mpl_feedback=exakt",),
        ("--task_mode=trian",),
        ("--precision=half",),
        ("--augment_policy=none",),
        ("--inference_network=",),
        ("--flagfile=absent.flags",),
    ],
    ids=" ".join,
)
def test_what_is_refused_early_is_told_in_the_same_words(refuse, arguments):
    said = refuse(*arguments)
    assert said is not None and said == late_refusal(*arguments)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--seed=x", "Error: flag --seed=x: invalid literal"),
        ("--sed=1", "Error: Unknown command line flag 'sed'."),
    ],
)
def test_what_cannot_be_parsed_is_one_line(monkeypatch, argument, words):
    monkeypatch.setattr(flags, "FLAGS", defined())
    with pytest.raises(SystemExit) as ended:
        flag_table.parse_flags([PROGRAM, argument])
    said = str(ended.value)
    assert said.startswith(words) and "\n" not in said
    assert said.endswith(" `mpl train --help` lists all flags.")


def test_a_flagfile_is_read(refuse, tmp_path):
    (tmp_path / "my.flags").write_text("# Mine.\n--seed=-3\n")
    arguments = (f"--flagfile={tmp_path / 'my.flags'}",)
    assert "--seed=-3 is too small" in refuse(*arguments)
    assert refuse(*arguments) == late_refusal(*arguments)


def test_what_may_be_right_is_left_to_the_settings(refuse, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    hparams, mine = run / "hparams.json", tmp_path / "my.flags"
    mine.write_text("--plugin=mine\n--of_mine=3\n")
    unknown = "--of_mine=3"
    assert refuse(unknown, f"--output_dir={run}") is not None
    assert refuse("--plugin=mine", unknown) is None
    assert refuse(f"--flagfile={mine}") is None
    for text in ('{"plugins": "mine"}', "[]", "{"):
        hparams.write_text(text)
        assert refuse(unknown, f"--output_dir={run}") is None
    hparams.write_text('{"plugins": ""}')
    assert refuse(unknown, f"--output_dir={run}") is not None
    assert refuse("--test_tmpdir=/tmp") is None  # A flag of TensorFlow.
    assert refuse("word", "--seed=-1") is None  # The word is told of first.
    assert refuse("--mpl_feedback=exact", f"--output_dir={run}") is None


def test_a_folder_that_no_run_can_be_in_is_refused_early(refuse, tmp_path):
    file, new = tmp_path / "file", tmp_path / "new"
    file.touch()
    assert "--output_dir is missing" in refuse()
    assert f"{file} is a file" in refuse(f"--output_dir={file}")
    assert "patterns of names" in refuse(f"--output_dir={tmp_path}/a*")
    assert refuse(f"--output_dir={new}") is None
    for mode in ("eval", "finetune", "inference"):
        for told in (
            refuse(f"--task_mode={mode}", f"--output_dir={new}"),
            refuse(f"--output_dir={new}", task_mode=mode),
        ):
            assert f"{new} does not exist: train there first" in told
    for mode in ("inspect", "eval_forever"):  # Of a run that is to come.
        assert refuse(f"--output_dir={new}", task_mode=mode) is None


def test_a_folder_is_not_looked_at_where_it_may_come_or_is_not_used(
    refuse, tmp_path
):
    (tmp_path / "file").touch()
    file = f"--output_dir={tmp_path}/file"
    assert "is a file" in refuse(file, task_mode="evals")
    assert refuse(file, task_mode="eval_forever") is None


def test_folders_are_at_home_and_in_flagfiles(refuse, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    flagfile = tmp_path / "mine.flags"
    flagfile.write_text("--output_dir=~/run\n")
    assert refuse(f"--flagfile={flagfile}", task_mode="eval") is None
    flagfile.write_text("--output_dir=~/ran\n")
    told = refuse(f"--flagfile={flagfile}", task_mode="eval")
    assert f"{tmp_path}/ran does not exist" in told


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("~/a", "/home/me/a"),
        ("~/a, ~/b,c", "/home/me/a,/home/me/b,c"),
        ("a, b", "a, b"),
        (3, 3),
    ],
)
def test_each_of_several_folders_may_be_at_home(monkeypatch, given, meant):
    monkeypatch.setenv("HOME", "/home/me")
    assert flag_table.at_home(given) == meant


def test_a_setting_that_the_table_lacks_is_no_unknown_flag(
    refuse, monkeypatch, tmp_path
):
    assert refuse("--of_mine=3") is not None
    package = tmp_path / "package"
    package.mkdir()
    (package / "mine.py").write_text(
        '    of_mine: int = setting(\n        3, "'
    )
    monkeypatch.setattr(flag_table, "_PACKAGE", package)
    assert flag_table.names() == ["of_mine"]
    assert refuse("--of_mine=3") is None
