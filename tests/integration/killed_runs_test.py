"""Runs as processes: killed, stopped, followed, and without room to write.

All are the same short run, and end as the one that nothing happened to.
"""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import pytest

from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.stages import follow
from tests.command_line import parse, refusal_of
from tests.faults import runs
from tests.faults.comparison import newest_step, problems
from tests.faults.kill_resume import (
    COMMON,
    Job,
    kill_and_resume,
    run_kills,
)
from tests.tiny_run import untimed

# Batch norm in the teacher alone, where no derivative is derived again, which
# takes seconds to trace; dropout in both, averages.
SHORT = (
    *COMMON,
    "--model_type=mlp",
    "--teacher_model_type=wrn-10-1",
    "--num_train_steps=30",
    "--max_to_keep=100",
)
# What TensorFlow and its libraries say as they start, with no way to stop it.
_STARTUP = re.compile(r"WARNING: All log messages before absl|[IWE]\d{4} ")


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A run that nothing happens to, and what this process saw beside it."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    job = Job(SHORT, folder)
    process = job.start(folder)

    def pause(seconds):
        time.sleep(0.1)
        assert not process.poll(), runs.said(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow, "time", types.SimpleNamespace(sleep=pause))
        follow.wait_for_run(str(folder))
        rows = list(_experiment(folder).follow(forever=True))
    assert process.wait(timeout=300) == 0
    job.take_time()
    return job, rows


def _experiment(folder):
    return Experiment(
        parse(
            "--task_mode=eval_forever",
            f"--output_dir={folder}",
            "--nodeterministic",  # This process is to stay as it is.
        )
    )


def _rows(path):
    return untimed(map(json.loads, path.read_text().splitlines()))


@pytest.mark.long
def test_a_process_beside_training_evaluates_each_checkpoint_once(followed):
    job, rows = followed
    folder = job.undisturbed
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 25, 30]
    assert _rows(folder / "evals" / "metrics.jsonl") == rows
    # Training evaluated the same networks, on the images it held out.
    logged = {
        row["step"]: row["eval/accuracy"]
        for row in _rows(folder / "metrics.jsonl")
        if "eval/accuracy" in row
    }
    assert {row["step"]: row["eval/validation/student"] for row in rows} == (
        pytest.approx(logged, abs=1e-6)
    )
    # By these images it names the best, too.
    best = max(rows, key=lambda row: row["eval/validation/student"])
    assert json.loads((folder / "acc").read_text()) == {
        "images": "validation",
        "step": 30,
        "accuracy": rows[-1]["eval/validation/student"],
        "best_step": best["step"],
        "best_accuracy": best["eval/validation/student"],
    }


@pytest.mark.long
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2))]
)
def test_a_run_that_is_killed_ends_as_if_undisturbed(followed, tmp_path, seed):
    job, _ = followed
    choose = random.Random(seed)
    result = kill_and_resume(job, tmp_path / "killed", choose)
    assert result["identical"], result


@pytest.mark.long
def test_a_run_is_kept_from_a_second_process_and_stopped_by_sigterm(
    followed, tmp_path, main
):
    job, _ = followed
    folder = tmp_path / "run"
    first = job.start(folder)
    runs.wait_for_step(folder, 5, process=first)
    first.send_signal(signal.SIGSTOP)
    # Once all of its threads stand still, what changes the second changes.
    os.waitpid(first.pid, os.WUNTRACED)
    before = _files(folder)
    message = refusal_of(
        main,
        *runs.SETTINGS,
        *SHORT,
        "--nodeterministic",
        f"--output_dir={folder}",
    )
    assert f"{folder} is in use by process {first.pid} on " in message
    assert _files(folder) == before

    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGCONT)
    assert first.wait(timeout=300) == 75
    line = _said(folder)[-1]
    assert re.match(r"SIGTERM ended training at step \d+\. The same com", line)
    assert not (folder / "done").exists() and not (folder / "lock").exists()
    assert job.start(folder).wait(timeout=300) == 0
    assert problems(folder, job.undisturbed) == []


def _files(folder):
    """Every file below a folder, with its content."""
    paths = filter(pathlib.Path.is_file, folder.rglob("*"))
    return {path: path.read_bytes() for path in paths}


def _said(folder):
    """What runs in a folder said, without TensorFlow's start."""
    lines = runs.said(folder).splitlines()
    return [line for line in lines if not _STARTUP.match(line)]


def test_a_damaged_latest_checkpoint_costs_the_steps_since_the_one_before(
    tmp_path, main, caplog, capsys
):
    folder = tmp_path / "run"
    command = (
        f"--output_dir={folder}",
        "--method=supervised",
        "--model_type=mlp",
        "--num_train_steps=4",
        "--save_every=2",
        "--log_every=1",
        "--train_batch_size=4",
    )
    main(*command)
    weights = runs.final_weights(folder)
    log = _rows(folder / "metrics.jsonl")
    data = folder / "checkpoints" / "step-4.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    main(*command)
    assert "step-4 cannot be read" in caplog.text
    assert capsys.readouterr().out.count(f"Trained: {folder}") == 2
    assert _rows(folder / "metrics.jsonl") == log
    assert runs.final_weights(folder).keys() == weights.keys()
    for name, value in runs.final_weights(folder).items():
        assert runs.same_bits(value, weights[name]), name


def test_a_folder_that_cannot_be_made_is_named(main):
    """Not even by the administrator, who may write everywhere else."""
    if not os.path.isdir("/proc/self"):
        pytest.skip("There is no /proc here.")
    message = refusal_of(main, "--model_type=mlp", "--output_dir=/proc/run")
    assert "/proc" in message and "ame another --output_dir" in message


def _own_mounts():
    """How to run a command with mounts of its own; skips where one cannot."""
    command = ["unshare", "--map-root-user", "--mount"]
    if not shutil.which("unshare"):
        pytest.skip("There is no unshare here.")
    attempt = subprocess.run(
        [*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
    )
    if attempt.returncode:
        pytest.skip(f"No mounts of one's own: {attempt.stderr.strip()}")
    return command


@pytest.mark.long
def test_a_full_disk_ends_a_run_until_there_is_room(followed, tmp_path):
    """A disk of its own, which three runs of the same command find full,
    still full, and made larger."""
    job, _ = followed
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    size = sum(path.stat().st_size for path in job.undisturbed.rglob("*-5.*"))
    script = """
    disk=$1 kept=$2 size=$3; shift 3
    mount -t tmpfs -o size=$size tmpfs "$disk" || exit 99
    for run in full again room; do
        [ $run = room ] && mount -o remount,size=1g "$disk"
        "$@" >"$kept.$run.out" 2>"$kept.$run.err"
        echo $? >"$kept.$run.status"
        cp -r "$disk/run" "$kept.$run"
    done
    """
    command = [sys.executable, "main.py", *runs.SETTINGS, *job.flags]
    room = str(int(2.6 * size))  # For two checkpoints.
    subprocess.run(
        [*_own_mounts(), "sh", "-c", script, "sh", disk, kept, room]
        + [*command, f"--output_dir={disk}/run"],
        cwd=runs.ROOT,
        check=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    for run in ("full", "again"):
        assert _end(kept, run)[0] == 1
        (line,) = _end(kept, run)[1]
        assert line.startswith("Error: ") and "no room" in line, line
    steps = newest_step(f"{kept}.full/checkpoints")
    assert steps in (5, 10, 15)
    assert newest_step(f"{kept}.again/checkpoints") >= steps
    status, errors = _end(kept, "room")
    assert (status, errors) == (0, [])
    assert problems(f"{kept}.room", job.undisturbed) == []


def _end(kept, run):
    """Exit status and lines on stderr, without those of TensorFlow."""
    status = int(pathlib.Path(f"{kept}.{run}.status").read_text())
    lines = pathlib.Path(f"{kept}.{run}.err").read_text().splitlines()
    return status, [line for line in lines if not _STARTUP.match(line)]


@pytest.mark.long
def test_kills_of_every_method_leave_no_trace(tmp_path):
    result = run_kills(tmp_path, kills=20, seed=0)
    assert result["identical"] == result["kills"] == 20, result
