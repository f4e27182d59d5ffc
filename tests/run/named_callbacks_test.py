"""Callbacks that a run names, and the trackers of docs/callbacks.md."""

import pathlib
import re
import sys
import types

import keras
import numpy as np
import pytest

from meta_pseudo_labels.run import experiment
from meta_pseudo_labels.run.callbacks import named_callbacks
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.flags import config_from_flags
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.utils.settings import ConfigError
from tests.command_line import defined
from tests.fit_by_hand import FitByHand
from tests.tiny_run import tiny

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "callbacks.md"
MLFLOW, WANDB = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
MODULE = """
import keras

class Seen(keras.callbacks.Callback):
    def __init__(self, config):
        super().__init__()
        self.config = config

def several(config):
    return Seen(config), keras.callbacks.TerminateOnNaN()

def nothing(config):
    pass

def no_callbacks(config):
    return [Seen(config), "wandb"]

def fails(config):
    raise OSError("no route\\nto host")

number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a user's module, and forgets it afterwards."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield write
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_factories_get_the_settings_and_make_one_callback_or_several(module):
    module("made_here", MODULE)
    config = Config(callbacks=["made_here:Seen", "made_here:several"])
    one, two, three = named_callbacks(config)
    assert one.config is two.config is config
    assert isinstance(three, keras.callbacks.TerminateOnNaN)
    assert named_callbacks(Config()) == ()


@pytest.mark.parametrize(
    "name, why",
    [
        ("made_here", "name a module and a function"),
        ("made_here:", "name a module and a function"),
        (":Seen", "name a module and a function"),
        ("not_there:Seen", "there is no such module"),
        ("broken_here:Seen", "fails on import: NameError"),
        ("made_here:absent", "has no such function"),
        ("made_here:number", "has no such function"),
        ("made_here:nothing", "makes None, of type NoneType"),
        ("made_here:no_callbacks", "makes 'wandb', of type str"),
        ("made_here:fails", "fails: OSError: no route to host"),
        ("keras.callbacks:CSVLogger", "takes no Config"),
        ("lab/made.py:tracker", "its file: --callback=lab.made:tracker$"),
        ("a-b/made.py:tracker", "give --callback=made:tracker$"),
    ],
)
def test_what_makes_no_callback_is_refused_first(module, tmp_path, name, why):
    module("made_here", MODULE)
    module("broken_here", "absent")
    config = tiny(tmp_path / "run", callbacks=name)
    with pytest.raises(ConfigError, match=why) as error:
        Experiment(config)
    text = str(error.value)
    assert text.startswith(f"--callback={name}") and "\n" not in text
    assert not (tmp_path / "run").exists()


def test_a_task_that_trains_nothing_makes_none(tmp_path):
    folder = str(tmp_path)
    Experiment(Config(output_dir=folder, task_mode="inspect", callbacks="x"))
    run = Experiment(
        Config(output_dir=folder, task_mode="finetune", callbacks="x")
    )
    with pytest.raises(ConfigError, match="--callback=x: name a module"):
        run.finetune()


@pytest.mark.parametrize(
    "given, want",
    [
        ((), "a:b,c:d"),
        (("--callback=e:f", "--callback=g:h,i:j"), "e:f,g:h,i:j"),
        (("--callback=",), ""),
        (("--reset_output_dir",), ""),
    ],
)
def test_a_run_that_goes_on_keeps_its_callbacks(tmp_path, given, want):
    first = Config(output_dir=str(tmp_path), callbacks="a:b,c:d")
    RunFolder(tmp_path).save_settings(first)

    def config(*arguments):
        values = defined()
        values(["main.py", f"--output_dir={tmp_path}", *arguments])
        return config_from_flags(values)

    assert config(*given).callbacks == want
    if "--reset_output_dir" not in given:
        assert config("--task_mode=finetune", *given).callbacks == want


def tracker():
    """A module that passes for mlflow and for wandb, and what it was told."""
    fake = types.SimpleNamespace(run=None, opened=[], logged=[])

    def start_run(run_id=None, run_name=None):
        name = run_id or f"id {len(fake.opened)}"
        fake.opened.append((run_id, run_name))
        fake.run = types.SimpleNamespace(
            id=name, info=types.SimpleNamespace(run_id=name)
        )
        return fake.run

    def log(values, step):
        fake.logged.append((fake.run.id, step, sorted(values)))

    def end():
        fake.run = None

    fake.start_run, fake.active_run = start_run, lambda: fake.run
    fake.init = lambda id, name, resume: start_run(id, name)
    fake.log = fake.log_metrics = log
    fake.end_run = fake.finish = end
    return fake


def two_fits(config):
    """Finetuning that ends with step 2 of 4, and goes on in another process.

    Within an epoch, so that `on_train_begin` comes twice.
    """
    for start in 0, 2:
        (callback,) = named_callbacks(config)
        fit = FitByHand(callback, start=start).begin().begin()
        fit.step(2)
        fit.end_epoch(loss=np.float32(start))
        callback.close()


@pytest.mark.parametrize(
    "name, factory, code",
    [("mlflow", "MLflow", MLFLOW), ("wandb", "WandB", WANDB)],
)
def test_a_tracker_goes_on_with_its_run(
    name, factory, code, module, tmp_path, monkeypatch
):
    fake = tracker()
    monkeypatch.setitem(sys.modules, name, fake)
    module("page", code)
    run = tmp_path / "run"
    run.mkdir()
    config = tiny(run, callbacks=f"page:{factory}")
    two_fits(config)
    assert fake.opened == [(None, "finetune"), ("id 0", "finetune")]
    assert fake.logged == [("id 0", 2, ["loss"]), ("id 0", 4, ["loss"])]
    kept = run / "callbacks" / f"{name}_finetune.txt"
    assert kept.read_text() == "id 0"
    # A new run there is another one for the tracker.
    RunFolder(str(run)).save_settings(config)
    RunFolder(str(run)).reset()
    assert not kept.exists()


def test_mlflow_itself_has_one_run(module, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file:{tmp_path}/mlruns")
    module("page", MLFLOW)
    two_fits(tiny(tmp_path, callbacks="page:MLflow"))
    (run,) = mlflow.MlflowClient().search_runs(["0"])
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(2, 0), (4, 2)]


def test_they_come_after_those_of_python(module, tmp_path, monkeypatch):
    """In the first of several workers alone."""
    module("made_here", MODULE)
    given = keras.callbacks.Callback()
    config = tiny(tmp_path / "run", callbacks="made_here:Seen")
    run = Experiment(config, callbacks=[given])
    seen = {}
    for stage, name in ("train", "train"), ("finetune", "finetune_run"):
        monkeypatch.setattr(
            experiment,
            name,
            lambda *args, stage=stage, callbacks, **kwargs: seen.update(
                {stage: callbacks}
            ),
        )
    monkeypatch.setattr(run, "trained_learner", lambda: None)
    run.data, run.test_dataset = None, None
    run.learner = types.SimpleNamespace(distribute_strategy=None)
    run.train()
    run.finetune()
    assert seen["train"] == seen["finetune"] == [given, seen["train"][1]]
    assert type(seen["train"][1]).__name__ == "Seen"
    monkeypatch.setattr(experiment, "worker_of", lambda strategy: 1)
    run.train()
    assert seen["train"] == [given]
