"""Lines of progress, in a log file, by a clock that the tests set."""

import json

import pytest

from meta_pseudo_labels.run import progress, progress_lines
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.progress_lines import (
    ProgressLines,
    ProgressReport,
    duration,
)
from tests.fit_by_hand import FitByHand, clock_by_hand


@pytest.fixture
def clock(monkeypatch):
    return clock_by_hand(monkeypatch, progress_lines)


class Fit(FitByHand):
    """`fit` whose steps take some seconds each, but for the first."""

    def __init__(self, clock, *, total, start=0, as_json=False, seconds=30):
        report = ProgressReport(
            "go", total, unit="step", seconds=seconds, as_json=as_json
        )
        names = {"loss/total": "loss", "no": "no"}
        super().__init__(ProgressLines(report, names=names), start=start)
        self.clock = clock

    def take(self, count, *, seconds):
        for _ in range(count):
            self.clock.now += seconds
            self.steps(1)
        return self


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_a_run_of_lines(clock, capsys):
    run = Fit(clock, total=2_000).begin()
    assert lines(capsys) == [
        "go: step 0 of 2,000, compiling the first step takes 10 to 60 seconds"
    ]
    # The first step is compiled, which says nothing of those that follow.
    run.take(1, seconds=100).take(9, seconds=0.5)
    assert lines(capsys) == []
    run.take(1, seconds=0.5)
    first = "go: step 11 of 2,000, 2 steps/s, 16 min 34 s left, loss 11"
    assert lines(capsys) == [first]
    run.take(59, seconds=0.5)
    assert lines(capsys) == []
    run.take(1, seconds=0.5)
    assert lines(capsys) == [
        "go: step 71 of 2,000, 2 steps/s, 16 min 4 s left, loss 71"
    ]
    run.end_epoch(val_accuracy=0.87654, val_loss=0.5)
    assert lines(capsys) == [
        "go: step 71 of 2,000, evaluated, accuracy 0.8765, loss 0.5"
    ]
    run.end(stopped=False).begin()  # Where the batch grows, `fit` comes again.
    assert lines(capsys) == ["go: step 71 of 2,000"]
    run.end()
    assert lines(capsys) == ["go: step 71 of 2,000, ended after 2 min 15 s"]


def test_json_is_an_object_a_line(clock, capsys):
    run = Fit(clock, total=100, start=40, as_json=True).begin()
    run.take(11, seconds=2).end_epoch(val_accuracy=0.5).end()
    start, told, evaluated, end = map(json.loads, lines(capsys))
    for row in (start, told, evaluated, end):
        assert row.pop("time").endswith("+00:00")
        assert (row.pop("stage"), row.pop("steps")) == ("go", 100)
    assert (start["event"], start["step"]) == ("started", 40)
    assert told == dict(
        event="progress",
        step=51,
        steps_per_second=0.5,
        seconds_left=98.0,
        loss=51.0,
    )
    assert evaluated == dict(event="evaluated", step=51, accuracy=0.5)
    assert end == dict(event="ended", step=51, seconds=22.0)


def test_what_json_has_no_word_for_is_null(clock, capsys):
    run = Fit(clock, total=100, as_json=True, seconds=0).begin()
    run.step(**{"loss/total": 1.0})
    clock.now += 1
    run.step(**{"loss/total": float("nan")})
    assert json.loads(lines(capsys)[-1])["loss"] is None
    run.end_epoch(val_loss=float("-inf"))
    assert json.loads(lines(capsys)[-1])["loss"] is None


def test_skipped_steps_promise_no_rate(clock, capsys):
    run = Fit(clock, total=100, seconds=1).begin()
    for _ in range(3):
        clock.now += 2
        run.step(0, **{"loss/total": float("nan")})
    assert lines(capsys)[1:] == ["go: step 0 of 100, loss nan"] * 2


def test_images_are_counted_alike(clock, capsys):
    config = Config(log_format="json")
    with progress.counted("inference", 90, 30, config, unit="image") as count:
        for _ in range(2):
            clock.now += 60
            count(30)
    start, told, end = map(json.loads, lines(capsys))
    assert (start["image"], end["image"], end["images"]) == (30, 90, 90)
    assert told["images_per_second"] == 0.5
    with progress.counted("x", 1, 0, Config(progress=False), unit="y") as count:
        count(1)
    assert lines(capsys) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (12_000, "3 h 20 min"),
        (4_000_000, "1,111 h 6 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("as_json", [False, True])
def test_an_evaluation_says_on_what_it_was(clock, capsys, as_json):
    run = Fit(clock, total=40, as_json=as_json)
    run.callbacks[0].judge = ("validation", 1234)
    run.begin().end_epoch(val_accuracy=0.075, val_loss=2.5)
    line = lines(capsys)[-1]
    if as_json:
        found = json.loads(line)
        assert (found["accuracy"], found["loss"]) == (0.075, 2.5)
        assert (found["on"], found["images"]) == ("validation", 1234)
    else:
        assert line == (
            "go: step 0 of 40, evaluated, validation accuracy 0.075, loss 2.5, "
            "1,234 images"
        )


@pytest.mark.parametrize("again", [None, "batches grow"])
def test_a_later_fit_compiles_nothing_unless_told(clock, capsys, again):
    """Of a run that goes on within an epoch there are two."""
    run = Fit(clock, total=40)
    run.callbacks[0].again = again
    for _ in range(3):
        run.begin().end()
    told = ["compiling" in line for line in lines(capsys)[::2]]
    assert told == [True, False, False]
    run.begin()
    assert lines(capsys)[-1].endswith(again or "step 0 of 40")
