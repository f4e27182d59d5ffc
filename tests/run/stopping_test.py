"""Runs that are stopped: by a signal, by bad updates; and gone on with."""

import contextlib
import os
import signal
from unittest import mock

import numpy as np
import pytest

from meta_pseudo_labels.learners.callbacks import AtStep
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.stages import finetune, train
from meta_pseudo_labels.run.stopping import (
    Diverged,
    Interrupted,
    StopAfterBadSteps,
    signals_interrupt,
    watch_signals,
)
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_run import assert_same_weights, rows, tiny, weights


class SignalAt(AtStep):
    """Sends this process a signal at a step, as a scheduler would."""

    def __init__(self, step, number=signal.SIGTERM):
        super().__init__()
        self.at = step
        self.number = number

    def on_train_batch_end(self, batch, logs=None):
        if self.step == self.at:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def signal_at(monkeypatch):
    """Makes runs get a signal at a step, from a callback of their own."""

    def arm(module, *args):
        fit = module.fit_epochs

        def armed(model, batches, *, callbacks, **kwargs):
            callbacks = [SignalAt(*args), *callbacks]
            monkeypatch.setattr(module, "fit_epochs", fit)
            return fit(model, batches, callbacks=callbacks, **kwargs)

        monkeypatch.setattr(module, "fit_epochs", armed)

    return arm


def supervised(folder, **settings):
    return tiny(folder, method="supervised", lr=1.0, **settings)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    config = supervised(tmp_path_factory.mktemp("undisturbed"))
    Experiment(config).train()
    return config


def saved_steps(config, folder="checkpoints"):
    names = os.listdir(os.path.join(config.output_dir, folder))
    return sorted(n.split(".")[0] for n in names if n.endswith(".index"))


@pytest.mark.fast("1-15")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_signal_saves_and_the_same_command_goes_on(
    tmp_path, undisturbed, signal_at, step, number
):
    """Within an epoch at once; at its end (2) after its evaluation."""
    config = supervised(tmp_path)
    signal_at(train, step, number)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"at step {step}. The same command"):
        Experiment(config).train()
    assert signal.getsignal(number) is before
    assert saved_steps(config)[-1] == f"step-{step}"
    assert rows(config) == [r for r in rows(undisturbed) if r["step"] <= step]
    assert not (tmp_path / "done").exists()

    assert Experiment(config).train()

    assert rows(config) == rows(undisturbed)
    assert_same_weights(config, undisturbed)
    assert (tmp_path / "done").exists() and not (tmp_path / "lock").exists()


@pytest.mark.long
def test_a_signal_in_the_last_step_ends_a_run_as_ever(
    tmp_path, undisturbed, signal_at
):
    config = supervised(tmp_path)
    signal_at(train, 4)
    assert Experiment(config).train()
    assert (tmp_path / "done").read_text() == "4 steps\n"
    assert_same_weights(config, undisturbed)


@pytest.mark.long
def test_a_finetuning_that_was_stopped_goes_on(tmp_path, signal_at):
    settings = dict(finetune_steps=5, finetune_batch_size=8)
    finetuned = []
    for name, step in (("whole", None), ("stopped", 3)):
        config = supervised(tmp_path / name, **settings)
        Experiment(config).train()
        if step is not None:
            signal_at(finetune, step)
            with pytest.raises(Interrupted):
                Experiment(config).finetune()
            assert "finetuned" not in Experiment(config).evaluate()
        assert Experiment(config).finetune()
        finetuned.append(_finetuned_weights(config))
        log = (tmp_path / name / "finetune" / "metrics.jsonl").read_text()
        assert log.count("\n") == 5
    for got, want in zip(*finetuned, strict=True):
        np.testing.assert_array_equal(got, want)


def _finetuned_weights(config):
    experiment = Experiment(config)
    return experiment.finetuned_student(
        experiment.trained_learner()
    ).get_weights()


@pytest.mark.long
def test_a_finished_finetuning_is_left_unless_it_is_to_be_another(tmp_path):
    config = supervised(tmp_path)
    Experiment(config).train()
    assert Experiment(config).finetune()
    before = _finetuned_weights(config)
    assert not Experiment(config).finetune()
    with pytest.raises(ConfigError, match="finetune_lr.*allow_hparam_change"):
        Experiment(supervised(tmp_path, finetune_lr=0.5)).finetune()
    changed = supervised(tmp_path, finetune_lr=0.5, allow_hparam_change=True)
    assert Experiment(changed).finetune()
    after = _finetuned_weights(config)
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.long
def test_another_finetuning_that_was_stopped_goes_on_too(tmp_path, signal_at):
    """Not with the weights of the first."""
    config = supervised(tmp_path)
    Experiment(config).train()
    Experiment(config).finetune()
    before = _finetuned_weights(config)
    changed = supervised(tmp_path, finetune_lr=0.5, allow_hparam_change=True)
    signal_at(finetune, 1)
    with pytest.raises(Interrupted):
        Experiment(changed).finetune()
    again = supervised(tmp_path, finetune_lr=0.5)
    assert "finetuned" not in Experiment(again).evaluate()
    assert Experiment(again).finetune()
    after = _finetuned_weights(again)
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


def test_a_kill_between_the_last_checkpoint_and_done(tmp_path):
    config = supervised(tmp_path)
    Experiment(config).train()
    (tmp_path / "done").unlink()
    assert not Experiment(config).train()
    assert (tmp_path / "done").read_text() == "4 steps\n"


@pytest.mark.long
def test_finetuning_at_a_rate_that_breaks_it_saves_nothing(tmp_path):
    config = supervised(tmp_path, finetune_lr=1e38, finetune_steps=20)
    Experiment(config).train()
    with pytest.raises(Diverged, match="finetune_lr"):
        Experiment(config).finetune()
    assert "finetuned" not in Experiment(config).evaluate()


class Spoil(AtStep):
    """Makes a weight not a number as soon as a step is taken."""

    def __init__(self, step):
        super().__init__()
        self.at = step

    def on_train_batch_end(self, batch, logs=None):
        if self.step == self.at:
            weight = self.model.student.trainable_variables[0]
            weight.assign(weight * np.nan)


@pytest.mark.fast("2")
@pytest.mark.parametrize("step", [2, 3])
def test_bad_updates_stop_at_the_last_good_checkpoint(
    tmp_path, monkeypatch, step
):
    """In the last step before a checkpoint it is too late to notice."""
    config = supervised(
        tmp_path, num_train_steps=8, save_every=2, stop_after_bad_steps=5
    )
    fit = train.fit_epochs

    def spoiled(model, batches, *, callbacks, **kwargs):
        return fit(
            model, batches, callbacks=[*callbacks, Spoil(step)], **kwargs
        )

    with monkeypatch.context() as patch:
        patch.setattr(train, "fit_epochs", spoiled)
        with pytest.raises(Diverged, match="last 5 updates were skipped"):
            Experiment(config).train()
    assert saved_steps(config) == ["step-2"]
    logged = [row["step"] for row in rows(config) if "eval/accuracy" in row]
    assert len(logged) == len(set(logged))  # Though the step stands still.
    if step == 3:
        assert Experiment(config).train()
        assert all(
            np.isfinite(value).all()
            for value in weights(config).values()
            if value.dtype.kind == "f"
        )


@pytest.mark.parametrize(
    ("skipped", "limit", "told"),
    [
        ((5, 10), 100, True),
        ((5, 9), 100, False),
        ((5, 5), 100, False),
        ((0, 0), 100, False),
        ((5, 10), 10, False),
    ],
)
def test_training_that_took_no_update_says_so_at_its_end(
    skipped, limit, told, caplog
):
    """Though it was over before --stop_after_bad_steps; of two `fit`s, once."""
    stop = StopAfterBadSteps(limit)
    first, last = 3 + skipped[0], 3 + skipped[1]
    counts = iter([(3, 20), (first, 25), (first, 25), (last, 30)])
    stop._counts = lambda: next(counts)
    stop.set_model(mock.MagicMock())
    with contextlib.suppress(Diverged):
        for _ in range(2):
            stop.on_train_begin()
            stop.on_train_batch_end(0)
            stop.on_train_end()
    assert "were skipped" not in caplog.text
    stop.close()
    assert ("All 10 updates were skipped" in caplog.text) == told
    assert caplog.text.count("were skipped") == told


@pytest.mark.long
def test_steps_per_execution_that_do_not_fit_are_refused(tmp_path, signal_at):
    config = supervised(tmp_path)
    signal_at(train, 1)
    with pytest.raises(Interrupted):
        Experiment(config).train()
    together = dict(
        steps_per_execution=2, log_every=2, allow_hparam_change=True
    )
    with pytest.raises(ConfigError, match="at step 1.*per_execution=2"):
        Experiment(supervised(tmp_path, **together)).train()


def test_a_signal_outside_of_training_is_an_interruption():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"), signals_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("It went on.")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.long
def test_a_damaged_finetuning_begins_anew(tmp_path, signal_at, caplog):
    config = supervised(tmp_path, finetune_steps=5, save_every=2)
    Experiment(config).train()
    signal_at(finetune, 3)
    with pytest.raises(Interrupted):
        Experiment(config).finetune()
    for path in tmp_path.glob("finetune/from-step-*/checkpoints/*.index"):
        path.write_bytes(b"")
    assert Experiment(config).finetune()
    assert "Finetuning starts over" in caplog.text


def test_a_second_signal_has_its_usual_effect():
    # A shell has its jobs in the background ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), watch_signals() as came:
            os.kill(os.getpid(), signal.SIGINT)
            assert came == [signal.SIGINT]
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
