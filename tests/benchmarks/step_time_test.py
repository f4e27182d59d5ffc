"""The benchmarks of the step: what they compute, and that they run."""

import argparse
import json
import math
import os
import shutil

import keras
import numpy as np
import pytest

from benchmarks.fit_time import run as fit_time
from benchmarks.step_time import report, variants
from benchmarks.step_time import run as step_time
from benchmarks.step_time import torch_peer as step_time_torch
from tests.scripts import run_script

SIZES = argparse.Namespace(
    model="wrn-10-1", image_size=8, batch_size=4, unlabeled_ratio=3
)


def build_learner():
    keras.utils.set_random_seed(0)
    return variants.build_learner(SIZES, feedback="release")


class TestTorchStep:
    @pytest.mark.parametrize(
        "changes", variants.TORCH.values(), ids=variants.TORCH
    )
    def test_it_computes_our_losses(self, monkeypatch, changes):
        if changes.get("compiled") and not shutil.which("c++"):
            pytest.skip("torch.compile needs a C++ compiler; there is none.")
        # So that the consistency term weighs something from the second step on.
        monkeypatch.setitem(variants.RECIPE, "uda_ramp_steps", 2)
        monkeypatch.setitem(variants.RECIPE, "uda_threshold", 0.2)
        learner = build_learner()
        batch = variants.random_batch(SIZES)
        step = variants.whole_step(learner, batch)
        try:
            peer = step_time_torch.TorchStep(
                model=SIZES.model,
                learner=learner,
                batch=batch,
                threads=1,
                **changes,
                path=os.environ.get("MPL_TORCH"),
            )
        except ImportError:
            pytest.skip("PyTorch is absent; set MPL_TORCH to its folder.")
        with peer:
            for _ in range(4):
                logs, answer = step(), peer()
                for name, loss in answer["losses"].items():
                    np.testing.assert_allclose(
                        loss, logs[name], rtol=1e-4, atol=1e-6, err_msg=name
                    )
                    assert loss != 0
        trainable = {id(w) for w in learner.student.trainable_variables}
        squares = [
            np.sum(np.square(average))
            for average, weight in learner.student_ema._pairs(learner.student)
            if id(weight) in trainable
        ]
        norm = math.sqrt(sum(squares))
        np.testing.assert_allclose(answer["averages_norm"], norm, rtol=1e-5)

    def test_kernels_are_transposed_and_renamed(self):
        student = build_learner().student
        arrays = step_time_torch.weight_arrays(student, role="student")
        layer = student.get_layer("block_2.conv_3x3_1.conv2d")
        ours = layer.kernel.numpy()  # [height, width, inputs, filters]
        theirs = arrays["student/block_2.conv_3x3_1.conv2d.weight"]
        assert theirs.shape == (32, 16, 3, 3)
        assert theirs[5, 2, 0, 1] == ours[0, 1, 2, 5]
        assert arrays["student/head.dense.weight"].shape == (10, 64)
        assert "student/head.batch_norm.running_var" in arrays

    def test_it_refuses_another_network(self):
        with pytest.raises(ValueError, match="wide ResNets.*resnet-50"):
            step_time_torch.network_sizes("resnet-50")

    def test_other_losses_stop_the_benchmark(self):
        def peer():
            return {"losses": {"loss": 2.01}}

        step_time_torch.check_losses(lambda: {"loss": 2.01}, [peer])
        with pytest.raises(ValueError, match="the steps are not the same"):
            step_time_torch.check_losses(lambda: {"loss": 2.0}, [peer])


def test_a_step_without_feedback_is_as_much_work_as_its_parts():
    flops = variants.flops(SIZES)
    parts = sum(flops[name] for name in variants.PARTS)
    assert flops["off"] == flops["release"] == flops["PyTorch"] == parts
    # In forward passes of the labeled images: the teacher sees 1 + 2 * 3 times
    # as many, thrice as much with its gradient; the student 3 + 1; then 1.
    assert parts == (3 * 7 + 3 * 4 + 1) * flops["student forward"]
    assert flops["exact"] == (34 + 2 + 2 * 4) * flops["student forward"]
    assert flops["matmul"] == 2 * 2048**3


def test_ratios_are_taken_within_rounds():
    times = {name: np.array([1.0, 2.0, 30.0]) for name in variants.PARTS}
    times |= {name: np.array([3.0, 9.0, 90.0]) for name in variants.FEEDBACKS}
    times |= {"matmul": np.full(3, 2.0), "PyTorch": np.array([6.0, 9.0, 90.0])}
    summary = report.summarize(
        {"seconds": times, "cpu_seconds": times},
        flops=dict.fromkeys(times, 6e9),
        memory={"release": 1.5},
    )
    assert summary["ratio"]["release"] == 1.0  # Of 1, 1.5 and 1.
    assert summary["ratio_quartiles"]["off"] == [1.0, 1.25]
    assert summary["release_to_torch"] == {"PyTorch": 1.0}
    assert summary["cpu_ratio"] == summary["ratio"]
    assert summary["seconds"]["exact"] == 9.0
    # 2, 2/3 and 1/15 GFLOP/s beside 3 of the matmul.
    assert summary["gigaflops_per_second"]["exact"] == pytest.approx(2 / 3)
    assert summary["share_of_matmul"]["exact"] == pytest.approx(2 / 9)


def test_steps_of_a_teacher_are_compared_with_those_of_uda():
    names = (*variants.PARTS, *variants.FEEDBACKS, "matmul")
    times = dict.fromkeys(names, np.ones(3)) | {
        "UDA": np.array([1.0, 2.0, 4.0]),
        "waiting": np.array([1.0, 2.5, 4.0]),
        "UDA, weak views apart": np.array([0.5, 1.0, 3.0]),
    }
    summary = report.summarize(
        {"seconds": times, "cpu_seconds": times},
        flops=dict.fromkeys(times, 6e9),
        memory={},
    )
    want = {"waiting": 1.0, "UDA, weak views apart": 0.5}
    assert summary["to_uda"] == summary["cpu_to_uda"] == want
    assert summary["to_uda_quartiles"]["waiting"] == [1.0, 1.125]
    assert summary["bars"]["waiting to UDA"] == 1.03
    # In passes of the labeled images: 3 * 7, and 3 * (1 + 3) and 3 forward.
    flops = variants.flops(SIZES)
    assert flops["waiting"] == flops["UDA"]
    assert flops["UDA, weak views apart"] * 21 == flops["UDA"] * 15


def test_bfloat16_is_compared_with_the_same_in_float32():
    """And ours in bfloat16 with PyTorch's in bfloat16."""
    names = (*variants.PARTS, *variants.FEEDBACKS, "matmul")
    times = dict.fromkeys(names, np.full(3, 4.0)) | {
        "release, bfloat16": np.array([1.0, 2.0, 4.0]),
        "exact, bfloat16": np.full(3, 3.0),
        "PyTorch": np.full(3, 5.0),
        "PyTorch, bfloat16": np.full(3, 2.5),
    }
    summary = report.summarize(
        {"seconds": times, "cpu_seconds": times},
        flops=dict.fromkeys(times, 6e9),
        memory={},
    )
    want = {"release, bfloat16": 0.5, "exact, bfloat16": 0.75}
    assert summary["to_float32"] == summary["cpu_to_float32"] == want
    assert summary["release_to_torch"] == {
        "PyTorch": 0.8,
        "PyTorch, bfloat16": 0.8,
    }
    assert summary["bars"]["bfloat16 to float32"] == 0.55
    flops = variants.flops(SIZES)
    assert flops["exact, bfloat16"] == flops["exact"]


def test_fit_is_compared_with_the_bare_loop_of_its_round():
    seconds = {"bare loop": np.array([1.0, 4.0]), "fit": np.array([2.0, 4.0])}
    summary = fit_time.summarize(seconds, steps=10)
    assert summary["ratio"] == {"bare loop": 1.0, "fit": 1.5}
    assert summary["seconds_a_step"] == {"bare loop": 0.25, "fit": 0.3}


def test_warm_up_rounds_do_not_count():
    calls = iter(range(100))

    def run():
        return {"seconds": next(calls), "cpu_seconds": 0}

    times = step_time.time_in_rounds({"only": run}, rounds=3, warmup=2)
    assert times["seconds"]["only"].tolist() == [2, 3, 4]


@pytest.mark.long
def test_step_time_runs(tmp_path):
    path = tmp_path / "out.json"
    result = run_script(
        "benchmarks.step_time.run",
        f"--json={path}",
        "--model=wrn-10-1",
        "--batch_size=2",
        "--image_size=8",
        "--rounds=3",
        "--threads=1",
        "--bfloat16",
        "--teacher",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    summary = json.loads(path.read_text())
    assert set(summary["to_float32"]) == set(variants.BFLOAT16)
    assert set(summary["ratio"]) == set(variants.FEEDBACKS)
    assert all(ratio > 0 for ratio in summary["ratio"].values())
    assert set(summary["bars"]) - set(variants.FEEDBACKS) == {
        "release to PyTorch",
        "bfloat16 to float32",
        "waiting to UDA",
    }
    assert 0 < summary["share_of_matmul"]["release"]


@pytest.mark.long
def test_a_process_reports_its_peak():
    result = run_script(
        "benchmarks.step_time.run",
        "--part=off",
        "--model=wrn-10-1",
        "--batch_size=2",
        "--image_size=8",
        "--threads=1",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    peaks = json.loads(result.stdout.splitlines()[-1])
    assert 0 < peaks["imports"] < peaks["off"] < 16


@pytest.mark.long
def test_fit_time_runs(tmp_path):
    path = tmp_path / "out.json"
    result = run_script(
        "benchmarks.fit_time.run",
        f"--json={path}",
        "--model=wrn-10-1",
        "--batch_size=2",
        "--image_size=8",
        "--rounds=2",
        "--steps=2",
        "--tiny_steps=100",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    summary = json.loads(path.read_text())
    assert set(summary["large"]["ratio"]) == {
        "bare loop",
        "fit",
        "fit, callbacks",
    }
    assert "fit, 100 a call" in summary["tiny"]["seconds_a_step"]


@pytest.mark.long
def test_a_profile_lists_operations(tmp_path):
    result = run_script(
        "benchmarks.step_time.profiling",
        f"--folder={tmp_path}",
        "--model=wrn-10-1",
        "--batch_size=2",
        "--image_size=8",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "Conv2DBackpropFilter" in result.stdout
