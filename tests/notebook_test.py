"""examples/quickstart.ipynb: sound, without outputs, and it runs."""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

PATH = pathlib.Path(__file__).parents[1] / "examples" / "quickstart.ipynb"
NOTEBOOK = json.loads(PATH.read_text(encoding="utf-8"))


def code():
    """The cells of code, a list of texts."""
    return [
        "".join(cell["source"])
        for cell in NOTEBOOK["cells"]
        if cell["cell_type"] == "code"
    ]


def test_it_is_a_notebook_without_outputs():
    assert NOTEBOOK["nbformat"] == 4 and NOTEBOOK["nbformat_minor"] >= 5
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids) > 8
    for cell in NOTEBOOK["cells"]:
        assert all(isinstance(line, str) for line in cell["source"])
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_its_code_is_python():
    for cell in code():
        ast.parse(cell)  # No magics: it runs as a script too.


def test_it_installs_only_what_is_missing(monkeypatch, tmp_path):
    first = code()[0]
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda args, **_: ran.append(args))
    exec(first, {})
    assert ran == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="Upload the wheel"):
        exec(first, {})
    wheel = tmp_path / "meta_pseudo_labels-0.1.0-py3-none-any.whl"
    wheel.touch()
    exec(first, {})
    assert ran == [[sys.executable, "-m", "pip", "install", wheel.name]]


@pytest.mark.long
def test_it_runs(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(code())],
        cwd=tmp_path,
        env=os.environ
        | {
            "MPLBACKEND": "Agg",
            "PYTHONPATH": str(PATH.parents[1]),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = re.search(r"^MPL: (0\.\d+)$", result.stdout, re.MULTILINE)
    assert 0.75 < float(found[1]) < 1
    exported = re.search(r"right on (\d+\.\d)% of", result.stdout)
    assert float(exported[1]) == pytest.approx(100 * float(found[1]), abs=0.3)
