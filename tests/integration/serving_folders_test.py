"""From folders of photographs to answers over HTTP; a real model server."""

import base64
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data.images.listing import list_files
from meta_pseudo_labels.evaluation.evaluate import predict_logits
from meta_pseudo_labels.learners.build import build_model
from meta_pseudo_labels.run.stages.export import export_run
from tests.tiny_run import tiny

ROOT = pathlib.Path(__file__).parents[2]

# What asks the files' signature, without Keras; 100 files at a time.
ASKING = """
import sys, numpy as np
for name in ("keras", "tf_keras", "meta_pseudo_labels"):
    sys.modules[name] = None
import tensorflow as tf
signature = tf.saved_model.load(sys.argv[1]).signatures["serving_bytes"]
paths = open(sys.argv[2]).read().splitlines()
found = []
for first in range(0, len(paths), 100):
    files = [open(path, "rb").read() for path in paths[first : first + 100]]
    found.append(signature(encoded=tf.constant(files))["probabilities"])
np.save(sys.argv[3], np.concatenate(found))
"""


@pytest.fixture(scope="module")
def photos(data_dir, tmp_path_factory):
    """Their folder, as data of 24 x 24 pixels, and the exported model."""
    folder = tmp_path_factory.mktemp("photos")
    with tarfile.open(data_dir / "imagefolder.tar") as tar:
        tar.extractall(folder, filter="data")
    root = folder / "imagefolder"
    images = data.load(
        "folders",
        labeled_dir=str(root / "labeled"),
        eval_dir=str(root / "test"),
        image_size=24,
        num_labeled=None,
        seed=0,
    )
    config = tiny(folder / "run")
    student = build_model(config, images.spec, role="student")
    path = export_run(student, config, images, network="student", step=0)
    test = data.evaluation_dataset(
        images.test_images, images.test_labels, images.spec, batch_size=300
    )
    want = tf.nn.softmax(predict_logits(student, test)[0]).numpy()
    assert want.std(axis=0).max() > 0.05  # Images differ.
    names, _ = list_files(root / "test")
    return [root / "test" / name for name in names], path, want


@pytest.mark.long
def test_files_get_evaluations_probabilities(photos, tmp_path):
    """All 300 test images, in a process without Keras."""
    files, path, want = photos
    (tmp_path / "names").write_text("\n".join(map(str, files)))
    arguments = [path, tmp_path / "names", tmp_path / "found.npy"]
    subprocess.run(
        [sys.executable, "-c", ASKING, *map(str, arguments)],
        check=True,
        capture_output=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    found = np.load(tmp_path / "found.npy")
    assert found.shape == want.shape == (300, 10)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-5)


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@pytest.mark.long
def test_tensorflow_serving_takes_the_folder(photos):
    """Warm-up requests included, for which it ends where they are wrong."""
    program = shutil.which("tensorflow_model_server")
    if program is None:
        pytest.skip("tensorflow_model_server is not on PATH.")
    files, path, want = photos
    port, base = free_port(), pathlib.Path(path).parent
    server = subprocess.Popen(
        [
            program,
            f"--rest_api_port={port}",
            f"--port={free_port()}",
            "--model_name=model",
            f"--model_base_path={base.resolve()}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}/v1/models/model"
        _wait_until_available(address, server)
        instances = [b64(file.read_bytes()) for file in files[:50]]
        request = urllib.request.Request(
            f"{address}:predict",
            data=json.dumps(
                {"signature_name": "serving_bytes", "instances": instances}
            ).encode(),
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            rows = json.load(response)["predictions"]
    finally:
        server.terminate()
        server.wait(30)
    found = np.array([row["probabilities"] for row in rows])
    np.testing.assert_allclose(found, want[:50], rtol=0, atol=1e-5)


def _wait_until_available(address, server):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10) as response:
                (state,) = json.load(response)["model_version_status"]
                if state["state"] == "AVAILABLE":
                    return
        except urllib.error.URLError:
            pass
        time.sleep(0.2)
    pytest.fail("tensorflow_model_server did not take the model.")
