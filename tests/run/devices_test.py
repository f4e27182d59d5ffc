"""What a worker says whose partners went: why, and what to start again."""

import signal

import pytest
import tensorflow as tf

from meta_pseudo_labels.distribute import strategies
from meta_pseudo_labels.run import devices
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.stopping import Interrupted

LOST = tf.errors.UnavailableError(None, None, "no partner")


def ended(monkeypatch, signals, *, workers):
    """What comes of a lost partner, within training and around it."""
    monkeypatch.setattr(devices, "is_multi_worker", lambda _: workers > 1)
    config = Config(output_dir="runs/two")
    with pytest.raises((Interrupted, tf.errors.OpError)) as raised:
        with devices.reports_lost_workers(None, config):
            with devices.reports_lost_workers(None, config, signals):
                raise LOST
    return raised.value


def test_one_that_was_told_to_end_blames_no_other(monkeypatch):
    """All get the signal; the first to hear of it leaves the others' step."""
    found = ended(monkeypatch, [signal.SIGTERM], workers=2)
    assert isinstance(found, Interrupted)
    assert str(found).startswith("SIGTERM ended this worker, as another one")
    assert "checkpoint in runs/two." in str(found)


def test_one_that_was_not_says_that_they_lost_one_another(monkeypatch):
    found = ended(monkeypatch, [], workers=2)
    assert isinstance(found, Interrupted)
    assert str(found).startswith("The workers lost one another")
    assert "checkpoint in runs/two." in str(found)


@pytest.mark.parametrize("signals", [[], [signal.SIGTERM]])
def test_one_alone_has_lost_something_else(monkeypatch, signals):
    assert ended(monkeypatch, signals, workers=1) is LOST


def test_one_process_is_not_several_workers():
    assert not strategies.is_multi_worker(tf.distribute.get_strategy())
