"""The benchmark of serving: its requests, and that it runs."""

import json

import numpy as np
import pytest

from benchmarks.serving import run as serving
from meta_pseudo_labels.export.serving.models import Input
from meta_pseudo_labels.export.serving.protocol import parse_request
from tests.scripts import run_script

pytest.importorskip("aiohttp")


def test_both_requests_show_one_image():
    signatures = {
        "serving_default": {
            "images": Input(np.dtype("uint8"), (None, None, None, 3))
        },
        "serving_bytes": {"encoded": Input(np.dtype(object), (None,))},
    }
    found = [
        parse_request(body, signatures, max_batch=1)
        for body in serving.bodies(12).values()
    ]
    assert [name for name, _, _ in found] == list(signatures)
    assert found[0][1]["images"].shape == (1, 12, 12, 3)
    assert found[1][1]["encoded"][0].startswith(b"\xff\xd8\xff")


@pytest.mark.long
def test_it_times_a_small_network(tmp_path):
    path = tmp_path / "serving.json"
    result = run_script(
        "benchmarks.serving.run",
        "--model=mlp",
        "--image_size=8",
        "--seconds=1",
        f"--json={path}",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    rows = json.loads(path.read_text())["rows"]
    assert [row["clients"] for row in rows] == [1, 8, 64] * 2
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["images_per_second"] > 0 and row["refused"] == 0
