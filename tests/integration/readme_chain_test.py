"""From folders to an answer over HTTP, by the commands that two pages show."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile

import keras
import numpy as np
import pytest

from meta_pseudo_labels import models
from meta_pseudo_labels.data.streams.service.addresses import free_port

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"

FEW_STEPS = "--num_train_steps=4 --save_every=4"
STUDENTS_STEPS = (
    " --mpl_student_lr_wait_steps=1 --mpl_student_lr_warmup_steps=1"
    " --mpl_teacher_lr_warmup_steps=1 --finetune_steps=2"
)


def blocks(page):
    """What a page shows in blocks of shell, but for what it installs."""
    found = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    return [block for block in found if "pip install" not in block]


def replace_once(text, old, new):
    assert text.count(old) == 1
    return text.replace(old, new)


@pytest.fixture
def folder(data_dir, tmp_path):
    """Where photos/ is, and from where the commands are given."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed.")
    with tarfile.open(data_dir / "imagefolder.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "imagefolder").rename(tmp_path / "photos")
    return tmp_path


def answer_of(script, folder):
    """What the server says that a script starts, and all that it prints."""
    script = script.replace("8501", str(free_port(0)))
    process = subprocess.Popen(
        ["bash", "-e"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ
        | {
            "PATH": f"{pathlib.Path(sys.executable).parent}:"
            + os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        start_new_session=True,
    )
    try:
        # The server ends with the script, and gives the output free.
        output, errors = process.communicate(script + "\nkill $!\nwait\n", 900)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # As it should be.
    assert process.returncode == 0, errors[-3000:]
    start = output.index('{"predictions"')
    answer, _ = json.JSONDecoder().raw_decode(output, start)
    return answer, output + errors


def check(answer, folder):
    (prediction,) = answer["predictions"]
    names = sorted(path.name for path in (folder / "photos/test").iterdir())
    assert prediction["labels"] in names
    assert len(prediction["probabilities"]) == len(names)
    assert sum(prediction["probabilities"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.long
def test_photographs_become_a_service(folder):
    (script,) = [
        block
        for block in blocks(DOCS / "command_line.md")
        if "mpl serve" in block
    ]
    script = replace_once(
        script,
        '--output_dir=runs/photos"\n',
        f"--output_dir=runs/photos --model_type=mlp {FEW_STEPS}"
        f'{STUDENTS_STEPS}"\n',
    )
    check(answer_of(script, folder)[0], folder)


@pytest.mark.long
def test_the_tutorial_goes_from_weights_to_a_service(folder):
    script = "".join(blocks(DOCS / "tutorials" / "photos.md"))
    trained_elsewhere = models.build(
        "efficientnet-lite0", input_shape=(32, 32, 3), num_classes=7
    )
    trained_elsewhere.save_weights(folder / "made.weights.h5")
    script = replace_once(
        script,
        "--model_type=MobileNetV2 --student_weights=imagenet",
        "--model_type=efficientnet-lite0 --student_weights=made.weights.h5 "
        f"--image_size=32 --train_batch_size=4 {FEW_STEPS}",
    )
    script = replace_once(
        script,
        "--teacher_weights=imagenet",
        f"--teacher_weights=made.weights.h5 {STUDENTS_STEPS}",
    )
    answer, said = answer_of(script, folder)
    check(answer, folder)
    assert said.count("made.weights.h5") >= 6  # Of each network, once.
    for run in ("finetune", "uda", "mpl", "mpl_off"):
        weights = json.loads(
            (folder / "runs" / run / "weights.json").read_text()
        )
        assert set(weights) == (
            {"student", "teacher"} if "mpl" in run else {"student"}
        )
        evaluated = json.loads(
            (folder / "runs" / run / "eval.json").read_text()
        )
        assert "validation" in evaluated


@pytest.mark.long
def test_photographs_are_learned_in_python(folder, monkeypatch, capsys):
    *_, snippet = re.findall(
        r"```python\n(.*?)```", (DOCS / "keras.md").read_text(), re.DOTALL
    )
    shape = dict(include_top=False, input_shape=(96, 96, 3))
    made = keras.applications.MobileNetV2(weights=None, **shape)
    made.save_weights(folder / "made.weights.h5")
    snippet = replace_once(snippet, '"imagenet", ', '"made.weights.h5", ')
    snippet = replace_once(snippet, "batch_size=32", "batch_size=2")
    snippet = replace_once(snippet, "steps = 220", "steps = 3")
    snippet = replace_once(snippet, "backbone_steps=50", "backbone_steps=1")
    monkeypatch.chdir(folder)
    names = {}
    exec(snippet, names)
    weights, *_, accuracy = capsys.readouterr().out.splitlines()
    assert weights.startswith("260 of 262 variables read; the head is new")
    # The backbone was read, then trained; batch norm's averages were not.
    kernel, moments = (
        [
            model.get_layer(layer).get_weights()[place]
            for model in (made, names["student"])
        ]
        for layer, place in (("Conv1", 0), ("bn_Conv1", 2))
    )
    assert 0 < np.abs(kernel[0] - kernel[1]).max() < 0.01
    np.testing.assert_array_equal(*moments)
    test = names["photos"].test_labels
    assert round(float(accuracy) * len(test), 6).is_integer()
    assert keras.models.load_model("student.keras").output_shape == (
        None,
        10,
    )
