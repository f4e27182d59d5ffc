"""The command `mpl`: its words, its recipes, and how soon it answers."""

import json
import pathlib
import subprocess
import sys

import pytest

from meta_pseudo_labels.run import cli
from meta_pseudo_labels.run.recipes import _REPEATED, expand, recipes
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.utils.settings import ConfigError
from tests.scripts import ROOT, run_script


def ended(monkeypatch, *arguments):
    """What the command says as it gives up."""
    monkeypatch.setattr(sys, "argv", ["mpl", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


@pytest.fixture
def started(monkeypatch):
    """The task modes and flags that commands would have run with."""
    calls = []
    monkeypatch.setattr(
        cli,
        "run",
        lambda _, typed, task_mode=None: calls.append((task_mode, typed)),
    )
    return calls


def test_the_help_knows_every_task_mode():
    registered = {name: stage.help for name, stage in STAGES.items()}
    assert cli.task_modes() == registered


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"]])
def test_help_lists_words_and_recipes(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mpl", *arguments])
    cli.main()
    text = capsys.readouterr().out
    for word in (
        "train",
        "predict",
        "serve",
        "digits_mpl",
        STAGES["eval"].help,
    ):
        assert word in text
    assert "inference " not in text


def test_help_and_what_is_wrong_need_no_tensorflow():
    wrong = (
        ("trian",),
        ("train", "--output_dir=gs://mine/run"),
        ("train", "--output_dir=--recipe=digits_mpl/seed_2"),
        ("train", "--output_dir", "--seed=2"),
        ("eval", "--output_dir=run", "--eval_data_dir", "s3://mine/data"),
        ("serve", "--saved_model=gs://mine/model"),
        ("predict", "--output_dir=run", "--inference_dir=gs://mine/photos"),
        ("train", "--method=mlp"),
        ("train", "--help"),
    )
    code = (
        "import sys; from meta_pseudo_labels.run import cli; cli.usage()\n"
        f"for words in {wrong}:\n"
        "  sys.argv = ['mpl', *words]\n"
        "  try: cli.main()\n"
        "  except SystemExit as end: print(end.code)\n"
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    (
        word,
        run,
        flag,
        next_flag,
        data,
        model,
        photos,
        method,
        *help,
        end,
        loaded,
    ) = process.stdout.splitlines()
    assert word.startswith("Error: mpl trian: there is no such command")
    assert "(did you mean train?)" in word
    assert "predict, compare, serve, recipe" in word and "inference" not in word
    assert run.startswith("Error: --output_dir=gs://mine/run: runs are written")
    assert flag.startswith("Error: --output_dir=--recipe=digits_mpl/seed_2: ")
    assert next_flag.startswith("Error: --output_dir=--seed=2: this is a flag")
    assert data.startswith("Error: --eval_data_dir=s3://mine/data: TensorFlow ")
    assert model.startswith("Error: --saved_model=gs://mine/model is read from")
    assert photos.startswith("Error: --inference_dir=gs://mine/photos is read ")
    assert "Mount the bucket (gcsfuse)" in photos
    assert method.startswith("Error: --method=mlp is unknown (did you mean mpl")
    assert any(line.startswith("  --mpl_feedback: ") for line in help)
    assert (end, loaded) == ("0", "set()")


def test_help_begins_with_the_command(monkeypatch, capsys):
    for word, task, flag in (
        ("diagnose", "diagnose", "diagnose_batches"),
        ("predict", "inference", "inference_block"),
    ):
        assert ended(monkeypatch, word, "--help") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"mpl {word} --output_dir=")
        assert lines[2] == STAGES[task].help
        assert lines[4] == f"Flags of mpl {word}:"
        assert lines[5].startswith(f"  --{flag}: ")


def test_the_last_address_of_a_setting_counts(monkeypatch):
    monkeypatch.setattr(cli, "quiet_start", lambda: 1 / 0)  # It went on.
    with pytest.raises(ZeroDivisionError):
        flags = ["--data_dir=s3://mine/data", "--data_dir=gs://mine/x"]
        cli.run("mpl", [*flags, "--output_dir=x"])


def test_a_word_is_a_task_mode(started, monkeypatch):
    for arguments in (
        ["eval", "--output_dir=x"],
        ["predict"],
        ["--task_mode=export", "--output_dir=x"],
    ):
        monkeypatch.setattr(sys, "argv", ["mpl", *arguments])
        cli.main()
    assert started == [
        ("eval", ["--output_dir=x"]),
        ("inference", []),
        (None, ["--task_mode=export", "--output_dir=x"]),
    ]


@pytest.mark.long
@pytest.mark.parametrize(
    "flags",
    ["--recipe=cifar10_4000_mpl", "--flagfile=flags/cifar10_4000_mpl.flags"],
)
def test_the_word_wins_over_the_task_mode_of_a_flagfile(flags, tmp_path):
    """Else `mpl export` with a recipe of the release would train."""
    absent = tmp_path / "absent"
    result = run_script(
        "meta_pseudo_labels", "export", flags, f"--output_dir={absent}"
    )
    assert result.returncode == 1
    assert f"{absent} does not exist: train there first" in result.stderr
    assert not absent.exists()


def test_a_plug_in_brings_its_own_word(started, monkeypatch, tmp_path):
    (tmp_path / "words_of_mine.py").write_text(
        "from meta_pseudo_labels.run.stages import STAGES, Stage\n"
        "@STAGES.register('juggle')\n"
        "class Juggle(Stage):\n"
        "    help = 'Juggle.'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(STAGES, "_found", STAGES.registered)
    assert "no such command" in ended(monkeypatch, "juggle")
    plugin = "--plugin=words_of_mine"
    monkeypatch.setattr(sys, "argv", ["mpl", "juggle", plugin])
    cli.main()
    assert started == [("juggle", [plugin])]
    two_words = ["--plugin", "words_of_mine"]
    monkeypatch.setattr(sys, "argv", ["mpl", "juggle", *two_words])
    cli.main()
    (tmp_path / "hparams.json").write_text('{"plugins": "words_of_mine"}')
    run = f"--output_dir={tmp_path}"
    monkeypatch.setattr(sys, "argv", ["mpl", "juggle", run])
    cli.main()
    assert started[1:] == [
        ("juggle", two_words),
        ("juggle", [run]),
    ]


@pytest.mark.parametrize("flag", ["--task_mode=train", "--task_mode"])
def test_a_second_task_mode_is_refused(flag, started, monkeypatch):
    said = ended(monkeypatch, "eval", "--output_dir=x", flag, "train")
    assert said == (
        "Error: mpl eval names the task mode already; leave out --task_mode."
    )
    assert started == []


def test_serving_has_flags_of_its_own(monkeypatch, capsys):
    assert ended(monkeypatch, "serve", "--port=-1", "--saved_model=x") == 2
    assert "usage: mpl serve" in capsys.readouterr().err


def test_the_recipes_are_the_flagfiles():
    names = {path.stem for path in (ROOT / "flags").glob("*.flags")}
    assert set(recipes()) == names and "digits_mpl" in names


def test_the_flags_of_a_recipe_come_first_wherever_it_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    flags = expand(["--seed=1", "--recipe=digits_mpl", "--lr=2", "--", "x"])
    # What was typed comes later and wins, also what stood before.
    assert flags[-4:] == ["--seed=1", "--lr=2", "--", "x"]
    assert "--method=mpl" in flags
    assert "--dataset=digits" in flags  # Of the file that it includes.
    assert not any("flagfile" in flag or "recipe" in flag for flag in flags)
    assert expand(["--recipe", "digits_mpl"]) == flags[:-4]


def test_a_recipe_may_be_a_file(tmp_path):
    (tmp_path / "mine.flags").write_text(
        "# Mine.\n--flagfile=base.flags\n\n--lr=3\n"
    )
    (tmp_path / "base.flags").write_text("--seed=4\n")
    flags = expand([f"--recipe={tmp_path / 'mine.flags'}"])
    assert flags == ["--seed=4", "--lr=3"]


def test_a_file_includes_recipes_in_either_way(monkeypatch, tmp_path):
    """Also one of the same name, in a folder that has no flags/."""
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "digits_mpl.flags"
    mine.write_text("--flagfile=flags/digits_mpl.flags\n--lr=3\n")
    flags = expand([f"--recipe={mine}"])
    assert flags == [*expand(["--recipe=digits_mpl"]), "--lr=3"]
    mine.write_text("// Mine.\n--recipe=digits_mpl\n--lr=3\n")
    assert expand([f"--recipe={mine}"]) == flags


def test_recipes_do_not_read_flags_of_the_present_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flags").mkdir()
    (tmp_path / "flags" / "digits.flags").write_text("--seed=7\n")
    assert "--seed=7" not in expand(["--recipe=digits_mpl"])


def test_a_flagfile_may_name_a_recipe(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.flags").write_text("--recipe=digits_mpl\n--lr=3\n")
    recipe = expand(["--recipe=digits_mpl"])
    for given in (["--flagfile=~/mine.flags"], ["-flagfile", "~/mine.flags"]):
        # The later one wins, as always with flagfiles.
        assert expand(["--seed=1", *given, "--lr=2"]) == [
            *("--seed=1", *recipe, "--lr=3", "--lr=2")
        ]
    assert expand(["--", *given]) == ["--", *given]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--flagfile=absent"], "absent cannot be read: No such file or direc"),
        (["--flagfile=~nobody-at-all/x"], "~nobody-at-all/x cannot be read: "),
        (["--flagfile="], "cannot be read: Is a directory.$"),
        (["--flagfile"], "--flagfile needs a name"),
    ],
)
def test_a_flagfile_that_is_not_there_is_named(given, words):
    with pytest.raises(ConfigError, match=words):
        expand(given)


@pytest.mark.parametrize("flag", ["recipe", "flagfile"])
def test_addresses_in_a_file_are_refused_as_early(flag, monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "quiet_start", lambda: 1 / 0)  # TensorFlow's.
    path = tmp_path / "mine.flags"
    path.write_text("--inference_dir=gs://mine/photos\n")
    said = ended(monkeypatch, "predict", f"--{flag}={path}", "--output_dir=x")
    assert said.startswith("Error: --inference_dir=gs://mine/photos is read ")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--flagfile=absent.flags", "absent.flags cannot be read"),
        ("--flagfile=mine.flags", "mine.flags includes itself"),
        ("--recipe=absent", "--recipe=absent is not a recipe"),
    ],
)
def test_a_file_that_includes_what_it_cannot_is_named(
    line, words, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.flags").write_text(f"{line}\n")
    with pytest.raises(ConfigError, match=words):
        expand(["--recipe=mine.flags"])


def test_a_line_that_is_no_flag_is_not_passed_over(tmp_path):
    (tmp_path / "mine.flags").write_text("method=mpl\n")
    assert expand([f"--recipe={tmp_path}/mine.flags"]) == ["method=mpl"]


def test_a_recipe_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="did you mean digits_mpl or"):
        expand(["--recipe=digit_mpl"])
    with pytest.raises(ConfigError, match="needs a name"):
        expand(["--recipe"])


def test_a_recipe_is_printed_with_what_it_takes_from_others(
    monkeypatch, tmp_path, capsys
):
    (tmp_path / "base.flags").write_text(
        "--lr=1\n--use_bfloat16\n--plugin=a\n--seed=3\n"
    )
    (tmp_path / "mine.flags").write_text(
        "# Mine.\n# And theirs.\n--flagfile=base.flags\n# Not this.\n"
        "--plugin=b\n--lr=2\n--nouse_bfloat16\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mpl", "recipe", "mine.flags"])
    cli.main()
    assert capsys.readouterr().out == (
        "# Mine.\n# And theirs.\n\n"
        "--plugin=a\n--seed=3\n--plugin=b\n--lr=2\n--nouse_bfloat16\n"
    )


def test_flags_that_may_be_repeated_are_known_to_recipes():
    table = pathlib.Path(cli.__file__).with_name("flag_table.json")
    rows = json.loads(table.read_text(encoding="utf-8"))["flags"]
    kinds = {name for name, row in rows.items() if "multi" in row["type"]}
    assert kinds == set(_REPEATED)


def test_a_recipe_may_be_printed_into_what_stops_reading():
    words = [sys.executable, "-um", "meta_pseudo_labels", "recipe"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_all_recipes_are_printed_with_a_sentence_each(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mpl", "recipe"])
    cli.main()
    lines = dict(
        line.split(": ", 1) for line in capsys.readouterr().out.splitlines()
    )
    assert lines.keys() == recipes().keys()
    assert lines["digits_mpl"] == (
        "Meta Pseudo Labels: a teacher as in digits_uda, and its student."
    )


def test_a_recipe_that_cannot_be_printed_ends_with_a_line(monkeypatch):
    message = ended(monkeypatch, "recipe", "digit_mpl")
    assert message.startswith("Error: --recipe=digit_mpl is not a recipe (did")
    assert ended(monkeypatch, "recipe", "a", "b").startswith("Error: unrecog")
    for path in ("", "~nobody-at-all/x", 300 * "x"):
        message = ended(monkeypatch, "recipe", path)
        assert message.startswith(f"Error: --recipe={path} is not a ")
