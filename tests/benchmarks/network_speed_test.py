"""The ratios of networks' speeds."""

import json
import sys

import numpy as np
import pytest

from benchmarks.network_speed import activations, run


def test_ratios_are_those_of_a_round():
    seconds = {
        "fast": np.array([1.0, 2.0, 4.0]),  # A machine that slows down.
        "slow": np.array([4.0, 8.0, 16.0]),
    }
    report = run.summary(seconds, batch_size=8)
    assert report["images_per_second"] == {"fast": 4.0, "slow": 1.0}
    assert report["ratio"] == {"fast": 4.0, "slow": 1.0}
    assert report["ratio_quartiles"]["fast"] == [4.0, 4.0]


@pytest.mark.long
def test_a_table_of_tiny_networks(monkeypatch, capsys, tmp_path):
    names = ["speednet-1", "mlp"]
    numbers = ["--batch_size=2", "--image_size=9", "--rounds=2"]
    path = tmp_path / "report.json"
    monkeypatch.setattr(
        sys, "argv", ["run", *names, *numbers, f"--json={path}"]
    )
    run.main()
    table = capsys.readouterr().out
    assert "to mlp" in table
    assert all(f"\n{name} " in table for name in names)
    assert path.exists()


def test_activations_take_turns(monkeypatch, capsys, tmp_path):
    path = tmp_path / "report.json"
    numbers = ["--batch_size=1", "--rounds=2", "--bfloat16"]
    monkeypatch.setattr(
        sys, "argv", ["activations", *numbers, f"--json={path}"]
    )
    activations.main()
    report = json.loads(path.read_text())
    assert set(report["seconds"]) == set(activations.ACTIVATIONS)
    assert f"gelu of Keras: {report['ratio']:.2f}" in capsys.readouterr().out
