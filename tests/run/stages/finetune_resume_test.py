"""A finetuning that was cut off ends as if nothing had happened."""

import os
import signal

import pytest

from meta_pseudo_labels.learners.callbacks import AtStep
from meta_pseudo_labels.run.stages import finetune
from meta_pseudo_labels.run.stopping import Interrupted
from meta_pseudo_labels.utils.checkpoint_files import CheckpointError
from tests.tiny_finetuning import (
    EARLY,
    WHOLE,
    assert_same,
    evaluations,
    rows,
    run,
)
from tests.tiny_run import tiny


class Killed(Exception):
    """The power went."""


def kill(*args, **kwargs):
    raise Killed


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


class At(AtStep):
    """Does something in a step, or after the epoch that ends there."""

    def __init__(self, step, action, *, after_epoch=False):
        super().__init__()
        self.at = step
        self.action = action
        self.after_epoch = after_epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.step == self.at and not self.after_epoch:
            self.action()

    def on_epoch_end(self, epoch, logs=None):
        if self.step == self.at and self.after_epoch:
            self.action()


def cut_off(config, callback):
    """Finetunes until a callback ends it, which is the first in a step and
    the last after an epoch."""
    fit = finetune.fit_epochs

    def armed(*args, callbacks, **kwargs):
        if callback.after_epoch:
            callbacks = [*callbacks, callback]
        else:
            callbacks = [callback, *callbacks]
        return fit(*args, callbacks=callbacks, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "fit_epochs", armed)
        with pytest.raises((Interrupted, Killed)):
            run(config)


def kill_before_weights(config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "save_weights", kill)
        with pytest.raises(Killed):
            run(config)


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    config = tiny(tmp_path_factory.mktemp("early"), **EARLY)
    assert run(config)
    return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    config = tiny(tmp_path_factory.mktemp("whole"), **WHOLE)
    assert run(config)
    return config


@pytest.mark.fast("9-kill")
@pytest.mark.parametrize(
    ("step", "action"), [(9, kill), (10, terminate), (11, terminate)]
)
def test_an_early_end_comes_at_the_same_step(early, tmp_path, step, action):
    """Before the first evaluation without a gain, with it, and after it."""
    config = tiny(tmp_path, **EARLY)
    cut_off(config, At(step, action))
    assert run(config)
    assert_same(config, early)


@pytest.mark.long
def test_a_kill_between_the_best_checkpoint_and_the_latest(early, tmp_path):
    """The best one is written first."""
    config = tiny(tmp_path, **EARLY)
    best = max(evaluations(early), key=lambda row: row["eval/accuracy"])["step"]
    cut_off(config, At(best, kill, after_epoch=True))
    folder = tmp_path / "finetune" / "from-step-4"
    assert (folder / "best" / f"step-{best}.index").exists()
    (folder / "checkpoints" / f"step-{best}.index").unlink()
    assert run(config)
    assert_same(config, early)


@pytest.mark.long
@pytest.mark.parametrize("step", [1, 3])
def test_the_log_is_the_same_after_a_stop_within_an_epoch(
    whole, tmp_path, step
):
    config = tiny(tmp_path, **WHOLE)
    cut_off(config, At(step, terminate))
    assert [row["step"] for row in rows(config)] == list(range(1, step + 1))
    assert run(config)
    assert_same(config, whole)


@pytest.mark.fast("early")
@pytest.mark.parametrize("end", ["early", "whole"])
def test_no_step_more_where_only_the_weights_were_not_written(
    request, monkeypatch, tmp_path, end
):
    config = tiny(tmp_path, **{"early": EARLY, "whole": WHOLE}[end])
    kill_before_weights(config)
    monkeypatch.setattr(finetune, "fit_epochs", kill)
    assert run(config)
    assert_same(config, request.getfixturevalue(end))


def test_a_damaged_best_checkpoint_is_named(tmp_path):
    config = tiny(tmp_path, **EARLY | dict(finetune_steps=2))
    kill_before_weights(config)
    (index,) = tmp_path.glob("finetune/from-step-4/best/*.index")
    index.write_bytes(b"")
    with pytest.raises(CheckpointError, match="Delete .*from-step-4 to fine"):
        run(config)
