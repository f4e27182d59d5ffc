"""The input benchmark runs, at a size where its figures mean nothing."""

import json

import pytest

from tests.scripts import run_script


@pytest.mark.long
def test_input_pipeline(tmp_path):
    path = tmp_path / "out.json"
    result = run_script(
        "benchmarks.input.run",
        f"--json={path}",
        "--model=wrn-10-1",
        "--batch_size=8",
        "--step_batch_size=2",
        "--unlabeled_ratio=1",
        "--train_images=200",
        "--rounds=2",
        "--seconds=0.1",
        "--steps=2",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads(path.read_text())
    rates, ratio = report["images_per_second"], report["ratio"]
    ours = {
        "strong_view",
        "rand_augment",
        "training_batches",
        "imagenet",
        "bare_decode_and_crop",
    }
    peers = {"keras_cv", "keras", "torchvision"}
    assert ours | {"keras"} <= rates.keys() <= ours | peers
    assert all(rate > 0 for rate in rates.values())
    assert ratio.keys() == peers
    assert {n for n in peers if ratio[n] is None} == peers - rates.keys()
    # Each peer is there or said to be absent.
    notes = " ".join(report["notes"])
    assert all(name in rates or name in notes for name in peers)
    assert report["imagenet_over_bare"] > 0
    assert 0 < report["waiting"]["share"] < 1
    assert 0 < report["memory"]["pipeline_gib"] < report["memory"]["peak_gib"]
    for line in ("waiting for input:", "peak memory:"):
        assert line in result.stdout
