"""The snippets of docs/extending.md, each as a user's module."""

import json
import pathlib
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data, models
from meta_pseudo_labels.data.sources import SOURCES
from meta_pseudo_labels.learners import LEARNERS
from meta_pseudo_labels.learners.feedback import ESTIMATORS
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.flags import config_from_flags
from meta_pseudo_labels.run.data import load_data
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.labeled_choice import check_choice_of_labels
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.utils.settings import ConfigError
from tests.command_line import defined
from tests.tiny_run import rows, tiny

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "extending.md"
SNIPPETS = {
    kind: code
    for kind, code in re.findall(
        r"```python\n# ([a-z ]+): --.*?\n(.*?)```", PAGE.read_text(), re.S
    )
}


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A function from a kind to the module that its snippet is; forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (
        LEARNERS,
        ESTIMATORS,
        STAGES,
        SOURCES,
        models.FAMILIES,
    ):
        registry.discover()
        monkeypatch.setattr(registry, "_found", registry.registered)

    def write(kind):
        name = f"my_{kind.replace(' ', '_')}"
        (tmp_path / f"{name}.py").write_text(SNIPPETS[kind])
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


def trained(folder, **settings):
    config = tiny(folder, **settings)
    assert Experiment(config).train()
    return [
        row for row in rows(config) if "loss/lr" in row or "lr/student" in row
    ]


def test_every_snippet_is_run():
    assert set(SNIPPETS) == {
        "estimator",
        "method",
        "mpl",
        "network",
        "task mode",
        "source",
    }


def test_an_estimator(plugin, tmp_path):
    steps = trained(
        tmp_path / "run", plugins=plugin("estimator"), mpl_feedback="alarmed"
    )
    assert len(steps) == 4


def test_mpl_with_another_loss_of_the_teacher(plugin, tmp_path):
    losses = {}
    for weight in (0.0, 10.0):
        steps = trained(
            tmp_path / str(weight),
            plugins=plugin("mpl"),
            method="unsure_mpl",
            unsure_weight=weight,
        )
        assert all(row["teacher/entropy"] > 0 for row in steps)
        losses[weight] = [row["cross_entropy/teacher_on_l"] for row in steps]
    assert losses[0.0][0] == losses[10.0][0]  # Before the first update.
    assert losses[0.0][1:] != losses[10.0][1:]


def test_what_changes_mpl_does_not_take_labels_of_a_fixed_teacher(
    plugin, tmp_path
):
    """Reduced MPL is a learner of its own, which would not hear of it."""
    with pytest.raises(ConfigError, match="--method=unsure_mpl, which changes"):
        tiny(
            tmp_path,
            plugins=plugin("mpl"),
            method="unsure_mpl",
            teacher_labels="elsewhere",
        )


@pytest.mark.fast("1")
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_method(plugin, tmp_path, replicas):
    steps = trained(
        tmp_path / "run",
        plugins=plugin("method"),
        method="entropy",
        entropy_weight=0.5,
        replicas_per_worker=replicas,
    )
    assert len(steps) == 4
    for row in steps:
        assert 0 < row["entropy/weak"] <= np.log(10) + 1e-6


def test_the_method_hears_of_weights_and_regularizers(plugin):
    """What is copied from the page must not lose what Keras promises."""
    __import__(plugin("method"))
    student = keras.Sequential(
        [
            keras.Input([2]),
            keras.layers.Dense(
                2,
                kernel_initializer="ones",
                kernel_regularizer=keras.regularizers.L2(0.25),
            ),
        ]
    )
    learner = LEARNERS["entropy"](student, weight=0.0)
    learner.compile(keras.optimizers.SGD(0.0))
    inputs = np.float32([[1, 2], [3, 4]])
    rows = {"labeled": inputs, "labels": [0, 1], "weak": inputs}
    batches = tf.data.Dataset.from_tensors(rows)
    history = learner.fit(batches, class_weight={0: 0.0, 1: 3.0}, verbose=0)
    logs = {name: values[-1] for name, values in history.history.items()}
    # Weights 0 and 3 of log 2 each, a mean over two; four weights of 1.
    np.testing.assert_allclose(logs["loss/cross_entropy"], 1.5 * np.log(2))
    np.testing.assert_allclose(logs["loss/total"], 1.5 * np.log(2) + 1.0)


def test_a_network(plugin, tmp_path):
    name = plugin("network")
    steps = trained(
        tmp_path / "run",
        plugins=name,
        method="supervised",
        model_type="tower-2",
    )
    assert len(steps) == 4
    # The bare name is of no size.
    with pytest.raises(ValueError, match="tower-<blocks>"):
        Config(plugins=name, model_type="tower")


def test_a_source(plugin, tmp_path):
    folder = tmp_path / "run"
    steps = trained(
        folder,
        plugins=plugin("source"),
        dataset="stripes",
        method="supervised",
        num_labeled=20,
    )
    assert len(steps) == 4
    settings = json.loads((folder / "hparams.json").read_text())
    assert settings["plugins"] == "my_source"
    labeled = json.loads((folder / "labeled.json").read_text())
    assert labeled["class_names"] == ["horizontal", "vertical"]
    assert labeled["source"] == "stripes"
    # As runs had it before sets of plug-ins kept their names: it goes on.
    old = labeled | {"source": "arrays"}
    (folder / "labeled.json").write_text(json.dumps(old))
    config = Config(**settings)
    check_choice_of_labels(config, load_data(config))
    assert (
        len(data.load("stripes", num_labeled=None, seed=0).labeled_labels)
        == 100
    )


def test_a_task_mode(plugin, tmp_path, capsys):
    folder = tmp_path / "run"
    name = plugin("task mode")
    # Its settings are the run's too, and may change all the same.
    trained(folder, method="supervised", num_labeled=20, plugins=name)
    arguments = [
        f"--plugin={name}",
        "--task_mode=count",
        "--count_limit=15",
        f"--output_dir={folder}",
    ]
    values = defined(arguments)
    values(["main.py", *arguments])
    config = config_from_flags(values)
    STAGES[config.task_mode].run(Experiment(config))
    assert "Counted: 15" in capsys.readouterr().out
    assert (folder / "count.json").read_text() == "15"
