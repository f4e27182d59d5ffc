"""The command line: one flag per setting."""

import dataclasses
import json

import pytest
from absl import flags

from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.flags import (
    REPEATED,
    config_from_flagfile,
    config_from_flags,
)
from meta_pseudo_labels.utils.settings import ConfigError, choices_of
from tests.command_line import defined, parse, refusal

# Of the others the flag may be repeated, see plugins_test.py.
FIELDS = [f for f in dataclasses.fields(Config) if f.name not in REPEATED]


@pytest.fixture
def run_folder(tmp_path):
    """A folder with the settings of a run."""
    config = Config(
        output_dir="where it was trained",
        method="uda",
        lr=0.3,
        teacher_model_type="mlp",
        finetune_lr=0.5,
        progress=False,
    )
    (tmp_path / "hparams.json").write_text(config.to_json())
    return tmp_path


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_setting_has_a_flag_with_its_help_and_default(field):
    flag = defined()[field.name]
    assert flag.default == field.metadata["flag_default"]
    assert flag.help.startswith(field.metadata["help"])
    for choice in choices_of(field) or ():
        assert choice is None or str(choice) in flag.help


def test_help_lists_every_setting():
    """Also without --helpfull, which buries them among absl's own."""
    listed = defined().main_module_help()
    for field in FIELDS:
        assert f"--{field.name}:" in listed or f"]{field.name}:" in listed


def test_no_flag_is_a_default_run():
    assert parse() == Config()


def test_defaults_that_only_the_flags_show_count_where_they_are_given():
    assert parse().image_size is None and parse().num_classes is None
    config = parse("--image_size=32", "--num_classes=10")
    assert config == Config(image_size=32, num_classes=10)


def test_what_a_program_sets_counts_too():
    values = defined()
    values(["main.py"])
    values.lr = 0.3
    values.set_default("image_size", 24)
    assert config_from_flags(values) == Config(lr=0.3, image_size=24)


def test_flags_arrive_with_their_types():
    config = parse(
        "--lr=1",
        "--seed=7",
        "--noprogress",
        "--method=uda",
        "--output_dir=runs/a b",
        "--teacher_model_type=mlp",
    )
    assert config == Config(
        lr=1.0,
        seed=7,
        progress=False,
        method="uda",
        output_dir="runs/a b",
        teacher_model_type="mlp",
    )
    assert isinstance(config.lr, float)


@pytest.mark.parametrize(
    "argument", ["--train_batch_size=four", "--lr=fast", "--progress=maybe"]
)
def test_values_of_another_type_are_named(argument):
    name, value = argument.removeprefix("--").split("=")
    with pytest.raises(flags.Error) as caught:
        parse(argument)
    assert name in str(caught.value) and value in str(caught.value)


def test_unknown_flags_are_named():
    with pytest.raises(flags.Error, match="num_train_step"):
        parse("--num_train_step=3")


def test_values_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="--train_batch_size=-4"):
        parse("--train_batch_size=-4")


def test_the_command_line_wins_over_the_flagfile_before_it(tmp_path):
    base, recipe = tmp_path / "base.flags", tmp_path / "recipe.flags"
    base.write_text("# Base.\n--lr=0.1\n--seed=1\n--uda_data=2\n")
    recipe.write_text(f"--flagfile={base}\n--lr=0.2\n--seed=2\n")
    config = parse(f"--flagfile={recipe}", "--lr=0.3")
    assert (config.lr, config.seed, config.uda_data) == (0.3, 2, 2)


def test_later_stages_take_the_settings_of_the_run(run_folder):
    config = parse("--task_mode=eval", f"--output_dir={run_folder}")
    assert config == Config(
        task_mode="eval",
        output_dir=str(run_folder),
        method="uda",
        lr=0.3,
        teacher_model_type="mlp",
        finetune_lr=0.5,
        progress=False,
    )


def test_later_stages_let_the_command_line_win(run_folder):
    config = parse(
        "--task_mode=finetune",
        f"--output_dir={run_folder}",
        "--finetune_lr=1e-5",  # The default, but said out loud.
    )
    assert config.finetune_lr == 1e-5
    assert config.lr == 0.3


def test_training_takes_nothing_from_the_folder(run_folder):
    config = parse(f"--output_dir={run_folder}")
    assert config == Config(output_dir=str(run_folder))


def test_settings_of_other_versions_are_passed_over(run_folder):
    path = run_folder / "hparams.json"
    path.write_text(json.dumps({"lr": 0.4, "abolished": 1}))
    config = parse("--task_mode=eval", f"--output_dir={run_folder}")
    assert config.lr == 0.4


def test_saved_settings_out_of_range_are_refused(run_folder):
    (run_folder / "hparams.json").write_text('{"lr": "high"}')
    with pytest.raises(ConfigError, match="--lr=high"):
        parse("--task_mode=eval", f"--output_dir={run_folder}")


def test_a_home_is_found_where_no_shell_did_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    config = parse(
        "--task_mode=inference",
        "--output_dir=~/runs/a~",
        "--inference_ckpt_ensemble=latest,~/runs/b",
    )
    assert config.output_dir == "/home/someone/runs/a~"
    assert config.inference_ckpt_ensemble == "latest,/home/someone/runs/b"


def test_a_class_to_infer_counts_only_where_it_is_given():
    """0 is a class, and the release's default."""
    task = "--task_mode=inference"
    assert parse(task).inference_class_id is None
    assert parse(task, "--inference_class_id=0").inference_class_id == 0


def test_flags_of_inference_hold_for_that_task_alone():
    bad = "--inference_thread_index=3"
    assert "must be below --inference_num_threads=1" in refusal(
        "--task_mode=inference", bad
    )
    assert parse(bad).inference_thread_index == 3


@pytest.mark.parametrize(
    ("task", "bad", "mend"),
    [
        ("cache_labels", "inference_ckpt=best", "Use --from_checkpoint."),
        ("cache_labels", "inference_ckpt_ensemble=a,b", "Leave it out."),
        ("export", "inference_network=teacher", "Leave it out."),
        ("eval", "inference_class_id=0", "Leave it out."),
    ],
)
def test_flags_of_inference_are_refused_by_stages_that_do_not_read_them(
    tmp_path, task, bad, mend
):
    later = (f"--task_mode={task}", f"--output_dir={tmp_path}")
    message = refusal(*later, f"--{bad}")
    assert f"--{bad} is for `mpl predict`; this is `mpl {task}`." in message
    assert message.endswith(mend)
    # What training wrote down is not read either, but nobody's mistake now.
    saved = parse(f"--{bad}").to_json()
    (tmp_path / "hparams.json").write_text(saved)
    assert parse(*later) == Config(task_mode=task, output_dir=str(tmp_path))
    assert parse("--task_mode=inference", later[1]) != Config(
        task_mode="inference", output_dir=str(tmp_path)
    )


def test_labels_are_cached_from_the_network_that_inference_would_use():
    config = parse("--task_mode=cache_labels", "--inference_network=teacher")
    assert config.inference_network == "teacher"


@pytest.mark.parametrize("task", ["finetune", "eval", "evals", "export"])
def test_only_training_may_reset_the_folder(tmp_path, task):
    """But a run that was trained with a reset can be evaluated."""
    settings = Config(reset_output_dir=True, lr=0.3).to_json()
    (tmp_path / "hparams.json").write_text(settings)
    later = (f"--task_mode={task}", f"--output_dir={tmp_path}")
    assert "--reset_output_dir would delete" in refusal(
        *later, "--reset_output_dir"
    )
    config = parse(*later)
    assert config.lr == 0.3 and config.reset_output_dir
    assert not parse(*later, "--noreset_output_dir").reset_output_dir


def test_a_look_at_the_data_passes_over_a_reset(run_folder, tmp_path):
    """Of a flagfile that is there for training."""
    recipe = tmp_path / "run.flags"
    recipe.write_text("--reset_output_dir\n--num_labeled=20\n")
    look = (f"--flagfile={recipe}", "--task_mode=inspect")
    config = parse(*look, f"--output_dir={run_folder}")
    assert (config.task_mode, config.num_labeled) == ("inspect", 20)
    assert config.lr == Config().lr  # Not as the run in the folder has it.
    assert (run_folder / "hparams.json").exists()


def test_a_look_before_training_has_the_defaults(tmp_path):
    look = ("--task_mode=inspect", f"--output_dir={tmp_path}")
    assert parse(*look) == Config(task_mode="inspect", output_dir=str(tmp_path))


def test_a_flagfile_gives_a_config(tmp_path):
    path = tmp_path / "run.flags"
    path.write_text("--lr=0.2\n--method=uda\n")
    config = config_from_flagfile(path, lr=0.3, output_dir="runs/x")
    assert config == Config(lr=0.3, method="uda", output_dir="runs/x")


def test_so_does_the_name_of_a_recipe_wherever_one_stands(
    tmp_path, monkeypatch
):
    """A wheel has no flags/, which recipes name one another by."""
    monkeypatch.chdir(tmp_path)
    config = config_from_flagfile("digits_mpl", num_train_steps=7)
    assert (config.method, config.dataset) == ("mpl", "digits")
    assert config.num_train_steps == 7
    with pytest.raises(ConfigError, match=r"digits_mlp.*digits_mpl"):
        config_from_flagfile("digits_mlp")


RECIPES = ("digits_supervised", "digits_uda", "digits_mpl")


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_in_the_repository_are_valid(name, monkeypatch, request):
    """They name one another relative to the checkout, where users stand."""
    monkeypatch.chdir(request.config.rootpath)
    config = config_from_flagfile(f"flags/{name}.flags")
    assert config.method == name.removeprefix("digits_")
    assert config.num_labeled == 40


def test_the_controls_differ_from_the_method_only_where_they_must(
    monkeypatch, request
):
    """One teacher's settings for uda and mpl, one data set for all."""
    monkeypatch.chdir(request.config.rootpath)
    supervised, uda, mpl = (
        dataclasses.asdict(config_from_flagfile(f"flags/{name}.flags"))
        for name in RECIPES
    )
    own = ("method", "lr", "num_warmup_steps")

    def differences(a, b):
        return {
            name
            for name in a
            if a[name] != b[name]
            and not name.startswith("mpl_")
            and name not in own
        }

    assert differences(uda, mpl) == set()
    assert all(name.startswith("uda_") for name in differences(supervised, mpl))


@pytest.mark.parametrize("method", ["uda", "freematch", "mpl"])
def test_fast_recipes_are_of_their_method_and_of_whole_images(
    method, monkeypatch, request
):
    """MPL's teacher moves as UDA's student does."""
    monkeypatch.chdir(request.config.rootpath)
    config = config_from_flagfile(f"flags/cifar10_fast_{method}.flags")
    assert (config.method, config.num_labeled) == (method, 4000)
    assert (config.model_type, config.image_size) == ("speednet-32", None)
    if method == "mpl":
        assert config.mpl_teacher_lr == config.lr
        assert config.mpl_teacher_lr_warmup_steps == config.num_warmup_steps
        assert config.mpl_student_lr_wait_steps < config.num_train_steps / 2


def test_the_fast_recipe_learns_from_all_labels(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    config = config_from_flagfile("flags/cifar10_fast_supervised.flags")
    assert (config.method, config.num_labeled) == ("supervised", 0)
    assert config.model_type == "speednet-64"
    assert config.alternate_flips
