"""The progress bar, on a terminal of the tests' own."""

import fcntl
import functools
import io
import os
import struct
import sys
import termios
import types

import pytest
from absl import logging

from meta_pseudo_labels.run import progress
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.progress import Progress, on_terminal
from meta_pseudo_labels.run.progress_lines import ProgressLines
from tests.fit_by_hand import FitByHand


class Terminal(io.StringIO):
    """Remembers what was written, and shows what is to be seen."""

    def isatty(self):
        return True

    def screen(self):
        """The lines at the end; a carriage return writes over a line."""
        lines = []
        for text in self.getvalue().split("\n"):
            line = ""
            for part in text.split("\r"):
                line = part + line[len(part) :]
            lines.append(line.rstrip())
        return lines


@pytest.fixture
def terminal(monkeypatch):
    terminal = Terminal()
    # Not sys.stdout itself, which pytest sets anew before each test.
    system = types.SimpleNamespace(stdout=terminal)
    monkeypatch.setattr(progress, "sys", system)
    # Drawn at every step, not only every tenth of a second.
    eager = functools.partial(progress.tqdm, mininterval=0)
    monkeypatch.setattr(progress, "tqdm", eager)
    return terminal


def fit(*, steps, start=0):
    bar = Progress(steps, names={"loss/total": "loss", "no": "no"}, title="go")
    return FitByHand(bar, start=start)


def test_shows_step_rate_time_left_losses_and_accuracy(terminal):
    run = fit(steps=4).begin().steps(1)
    run.end_epoch(val_accuracy=0.87654).steps(1)
    (line,) = terminal.screen()
    assert line.startswith("go:  50%|") and " 2/4 [" in line
    assert "step/s, 00:00 left, accuracy=0.8765, loss=2]" in line
    assert "no=" not in line
    run.end()


def test_there_is_no_rate_before_the_first_step_is_over(terminal, monkeypatch):
    """It is traced first: that a step takes minutes is not what is to come."""
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    run = fit(steps=1_000).begin()
    assert "?" not in terminal.screen()[0]
    assert "0/1000 [starting]" in terminal.screen()[0]
    now[0] = 300.0
    run.steps(1)
    assert "1/1000 [starting, loss=1]" in terminal.screen()[0]
    now[0] = 301.0
    run.steps(1)
    assert "1.00step/s, 16:38 left" in terminal.screen()[0]
    assert "?" not in terminal.getvalue()
    run.end()


def shown_at(monkeypatch, rows, columns):
    """What three steps show on a terminal of this size."""
    main, side = os.openpty()
    size = struct.pack("HHHH", rows, columns, 0, 0)
    fcntl.ioctl(side, termios.TIOCSWINSZ, size)
    with open(side, "w") as stdout:
        # tqdm asks the real one, if it is that.
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stdout)
        run = FitByHand(*progress.progress(3, Config(), stage="train"))
        run.begin().steps(3).end()
        stdout.flush()
        text = ""
        while not text.endswith("\n") or "3/3" not in text.replace(" of ", "/"):
            text += os.read(main, 10_000).decode()
    os.close(main)
    return text


@pytest.mark.parametrize(
    ("rows", "columns"), [(0, 0), (0, 70), (20, 0), (20, 70), (1, 70), (2, 30)]
)
def test_a_terminal_without_a_size_gets_a_bar(monkeypatch, rows, columns):
    """A pty that nobody told one, as those of containers and of CI."""
    text = shown_at(monkeypatch, rows, columns)
    last = [line.rstrip() for line in text.split("\r") if line.rstrip()][-1]
    assert "train: 100%|" in last and "3/3 [" in last
    assert len(last) <= (columns or 80)


@pytest.mark.parametrize("columns", [1, 10, 29])
def test_a_terminal_too_narrow_for_a_bar_gets_lines(monkeypatch, columns):
    text = shown_at(monkeypatch, 20, columns)
    assert "train: step 0 of 3" in text and "step 3 of 3, ended" in text


def test_the_bar_of_a_finished_run_stays(terminal):
    fit(steps=3).begin().steps(3).end()
    line, after = terminal.screen()
    assert "go: 100%|" in line and " 3/3 [" in line and "loss=3" in line
    assert after == ""


def test_goes_on_where_the_run_was(terminal):
    """Its rate is that of the steps since, not of all steps."""
    run = fit(steps=10, start=6).begin()
    bar = run.callbacks[0].bar
    assert " 6/10 [" in terminal.screen()[0]
    run.steps(1)
    assert " 7/10 [" in terminal.screen()[0]
    assert (bar.format_dict["initial"], bar.format_dict["n"]) == (6, 7)
    assert "1/10" not in terminal.getvalue()
    run.end()


def test_a_skipped_step_is_no_progress(terminal):
    run = fit(steps=9).begin()
    for by in (4, 0, 3):
        run.step(by, **{"loss/total": float("nan")})
    assert " 7/9 [" in terminal.screen()[0]
    run.end()


def test_several_fits_share_one_bar_and_the_last_accuracy(terminal):
    run = fit(steps=4).begin().steps(1).end_epoch(val_accuracy=0.5).end()
    assert terminal.screen() == [""]
    run.begin().steps(3).end()
    line, after = terminal.screen()
    assert " 4/4 [" in line and "accuracy=0.5000," in line
    assert after == ""


def test_an_error_is_told_on_a_line_of_its_own(terminal):
    run = fit(steps=4).begin().steps(2)
    run.callbacks[0].close()
    run.callbacks[0].close()
    terminal.write("Error: no room")
    bar, error = terminal.screen()
    assert " 2/4 [" in bar
    assert error == "Error: no room"


def test_a_fit_after_one_that_failed(terminal):
    run = fit(steps=4).begin().steps(2)
    run.begin().steps(2).end()
    assert [" 4/4 [" in line for line in terminal.screen()][-2:] == [
        True,
        False,
    ]


def test_a_warning_does_not_tear_the_bar(terminal, monkeypatch):
    logger = logging.get_absl_logger()
    filters = list(logger.filters)
    run = fit(steps=4).begin().steps(1)
    monkeypatch.setattr(
        logger, "callHandlers", lambda record: terminal.write("W skipped\n")
    )
    logging.warning("skipped")
    run.steps(1)
    warning, bar = terminal.screen()
    assert warning == "W skipped"
    assert bar.startswith("go:  50%|")
    run.end()
    assert logger.filters == filters


@pytest.mark.parametrize("answer", [True, False])
def test_a_terminal_is_where_a_person_watches(monkeypatch, answer):
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: answer)
    assert on_terminal() is answer
    (shown,) = progress.progress(10, Config())
    assert isinstance(shown, Progress if answer else ProgressLines)
    (shown,) = progress.progress(10, Config(log_format="json"))
    assert isinstance(shown, ProgressLines)
    assert progress.progress(10, Config(progress=False)) == []


def test_every_stage_has_a_bar(terminal):
    for stage, name in [("train", "loss/total"), ("finetune", "loss")]:
        run = FitByHand(*progress.progress(1, Config(), stage=stage)).begin()
        run.step(**{name: 2.5})
        run.end()
        line = terminal.screen()[-2]
        assert line.startswith(f"{stage}: 100%|")
        assert "loss=2.5]" in line
