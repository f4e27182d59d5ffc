"""A run that was cut off goes on as if nothing had happened."""

import pytest

from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.stages import train as training_module
from tests.tiny_run import assert_same_weights, rows, tiny


class Killed(Exception):
    """The power went."""


def train_and_kill(config, monkeypatch):
    """Trains until step 3, which is after the checkpoint of step 2."""

    class Killer(training_module.MetricsLogger):
        def write(self, scalars, **times):
            super().write(scalars, **times)
            if self.step == 3:
                raise Killed

    with monkeypatch.context() as context:
        context.setattr(training_module, "MetricsLogger", Killer)
        with pytest.raises(Killed):
            Experiment(config).train()


@pytest.mark.fast("batch norm")
@pytest.mark.parametrize(
    "settings",
    [
        # killed_runs_test kills such a one for real.
        pytest.param({}, id="mpl"),
        pytest.param(
            dict(method="supervised", lr=1.0, model_type="wrn-10-1"),
            id="batch norm",
        ),
        pytest.param(
            dict(known_classes=5, label_noise=0.2, num_feedback=5),
            id="held-out feedback",
        ),
        pytest.param(
            dict(model_type="wrn-10-1", replicas_per_worker=2),
            id="two replicas",
        ),
    ],
)
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, monkeypatch, settings):
    """Killed in step 3, after a checkpoint of step 2."""
    undisturbed = tiny(tmp_path / "undisturbed", **settings)
    Experiment(undisturbed).train()
    config = tiny(tmp_path / "killed", **settings)
    train_and_kill(config, monkeypatch)
    assert rows(config)[-1]["step"] == 3

    Experiment(config).train()

    assert rows(config) == rows(undisturbed)
    assert_same_weights(config, undisturbed)


@pytest.mark.long
def test_what_was_finetuned_before_training_went_on_is_not_used(
    tmp_path, monkeypatch
):
    config = tiny(tmp_path / "run")
    train_and_kill(config, monkeypatch)
    early = Experiment(config)
    early.finetune()
    assert "finetuned" in early.evaluate()

    Experiment(config).train()

    late = Experiment(config)
    assert "finetuned" not in late.evaluate()
    late.finetune()
    assert "finetuned" in late.evaluate()
