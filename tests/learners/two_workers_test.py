"""Two processes train as one device does, up to the order of sums."""

import subprocess
import sys

import numpy as np
import pytest

from tests.learners import two_workers
from tests.learners.replicas_test import assert_same, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Where two workers wrote how they trained all cases."""
    folder = tmp_path_factory.mktemp("two_workers")
    two_workers.train_all(folder, seconds=1200)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", two_workers.CASES)
def test_two_workers_are_as_good_as_one_device(name, trained):
    first, second = (
        two_workers.load(two_workers.path_of(trained, name, index))
        for index in range(2)
    )
    one = train(**two_workers.CASES[name])
    assert one[0][0].keys() == first[0][0].keys()
    assert_same(one, first)
    # Both apply the same sums, so nothing may come between them.
    assert first[0] == second[0]
    for a, b, c in zip(one[1], first[1], second[1], strict=True):
        np.testing.assert_array_equal(b.numpy(), c.numpy(), err_msg=a.path)


@pytest.fixture
def stand_ins(monkeypatch):
    """Replaces the workers by one program; gives the processes, once made."""
    processes = []

    def replace(program):
        def start(folder, flags, log):
            with log.open("w") as output:
                command = [sys.executable, "-c", program, *flags]
                processes.append(
                    subprocess.Popen(command, stdout=output, stderr=output)
                )
            return processes[-1]

        monkeypatch.setattr(two_workers, "_start", start)
        return processes

    return replace


def test_a_worker_that_fails_ends_the_other_and_is_quoted(stand_ins, tmp_path):
    processes = stand_ins(
        "import sys, time\n"
        "if sys.argv[-1] == '--worker_index=0': time.sleep(60)\n"
        "sys.exit('no such batch')"
    )
    with pytest.raises(RuntimeError, match="ended with") as caught:
        two_workers.train_all(tmp_path, seconds=60)
    assert "[None, 1]" in str(caught.value)
    assert "1.log:\nno such batch" in str(caught.value)
    assert processes[0].returncode == -9


def test_workers_that_wait_for_ever_are_ended(stand_ins, tmp_path):
    processes = stand_ins("import time; time.sleep(60)")
    with pytest.raises(RuntimeError, match="not within 0.2 s"):
        two_workers.train_all(tmp_path, seconds=0.2)
    assert [process.returncode for process in processes] == [-9, -9]
