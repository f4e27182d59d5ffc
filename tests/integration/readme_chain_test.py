"""The commands of docs/command_line.md, from folders to an answer over HTTP."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile

import pytest

from meta_pseudo_labels.data.streams.service.addresses import free_port

ROOT = pathlib.Path(__file__).parents[2]

CUT_DOWN = (
    "--model_type=mlp",
    "--num_train_steps=4",
    "--save_every=4",
    "--mpl_student_lr_wait_steps=1",
    "--mpl_student_lr_warmup_steps=1",
    "--mpl_teacher_lr_warmup_steps=1",
    "--finetune_steps=2",
)


def commands():
    """The block of shell that serves what it trains."""
    blocks = re.findall(
        r"```bash\n(.*?)```",
        (ROOT / "docs" / "command_line.md").read_text(),
        re.DOTALL,
    )
    (block,) = [block for block in blocks if "serve.py" in block]
    return block


@pytest.mark.long
def test_photographs_become_a_service(data_dir, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed.")
    with tarfile.open(data_dir / "imagefolder.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "imagefolder").rename(tmp_path / "photos")
    for name in ("main.py", "serve.py", "flags"):
        (tmp_path / name).symlink_to(ROOT / name)
    script = commands()
    cut_down = "--output_dir=runs/photos " + " ".join(CUT_DOWN) + '"\n'
    assert script.count('--output_dir=runs/photos"\n') == 1
    script = script.replace('--output_dir=runs/photos"\n', cut_down)
    script = script.replace("8501", str(free_port(0)))

    process = subprocess.Popen(
        ["bash", "-e"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
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
        output, errors = process.communicate(script + "\nkill $!\nwait\n", 400)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # As it should be.
    assert process.returncode == 0, errors[-3000:]
    start = output.index('{"predictions"')
    answer, _ = json.JSONDecoder().raw_decode(output, start)
    (prediction,) = answer["predictions"]
    names = sorted(path.name for path in (tmp_path / "photos/test").iterdir())
    assert prediction["labels"] in names
    assert len(prediction["probabilities"]) == len(names)
    assert sum(prediction["probabilities"]) == pytest.approx(1, abs=1e-5)
