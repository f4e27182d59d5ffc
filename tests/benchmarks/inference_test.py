"""The benchmark of inference: its arithmetic, and that its ways agree."""

import argparse

import numpy as np
import pytest

from benchmarks.inference import run as inference


def test_ratios_are_taken_within_a_round():
    seconds = {inference.BARE: [1.0, 2.0, 4.0]}
    seconds |= {way: [2.0, 2.0, 2.0] for way in inference.WAYS}
    cpu = {inference.BARE: [2.0, 4.0, 2.0]}
    cpu |= {way: [3.0, 3.0, 3.0] for way in inference.WAYS}
    report = inference.summary(seconds, cpu, images=8)
    assert report["images_per_second"][inference.BARE] == 4
    for way in inference.WAYS:
        assert report["ratio"][way] == 1
        assert report["ratio_quartiles"][way] == [0.75, 1.5]
        assert report["cpu_ratio"][way] == 1.5


def test_all_ways_see_the_same_pictures(tmp_path):
    settings = argparse.Namespace(
        images=6, batch_size=4, block=5, rounds=1, model="mlp"
    )
    inference.write_pictures(tmp_path, settings.images)
    ways = inference.build_ways(settings, tmp_path)
    assert list(ways) == [inference.BARE, *inference.WAYS]
    bare, evaluated, *inferred = (way() for way in ways.values())
    assert np.ptp(bare, axis=0).min() > 0  # The pictures differ.
    for logits in inferred:
        np.testing.assert_allclose(logits, bare, rtol=1e-5, atol=1e-6)
    right = np.mean(bare.argmax(-1) == 0)  # The labels are zeros.
    assert evaluated.top_1 == pytest.approx(right)
    seconds, cpu_seconds = inference.measure(ways, settings.rounds)
    assert all(len(own) == 1 and own[0] > 0 for own in seconds.values())
    assert set(cpu_seconds) == set(seconds)
