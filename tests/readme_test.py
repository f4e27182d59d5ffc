"""The README keeps its word: its Python runs as it stands."""

import ast
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners.feedback import ESTIMATORS

ROOT = pathlib.Path(__file__).resolve().parent.parent


def python_blocks(name):
    text = (ROOT / name).read_text()
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.long
def test_the_snippet_of_the_readme_learns_digits():
    (snippet,) = python_blocks("README.md")
    result = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    metrics = ast.literal_eval(result.stdout.strip().splitlines()[-1])
    assert metrics["accuracy"] > 0.7
    assert "Warning" not in result.stderr


def test_the_estimator_in_the_docs_works():
    (snippet,) = python_blocks("docs/feedback.md")
    keras.utils.set_random_seed(0)
    names = {}
    exec(snippet, names)
    learner = names["learner"]
    learner.log_every = 1
    learner.compile(keras.optimizers.SGD(30.0))  # So fast that it gets worse.
    views = tf.random.stateless_normal([6, 4], [0, 0])
    logs = learner.train_step(
        {
            "labeled": views[:2],
            "labels": tf.constant([0, 1]),
            "weak": views[2:],
            "strong": views[2:],
        }
    )
    assert all(np.isfinite(value) for value in logs.values())
    old, new = (
        logs[f"cross_entropy/student_on_l{name}"] for name in ("_old", "")
    )
    assert new > old and logs["mpl/feedback_grad_ratio"] > 0


def test_the_evaluation_in_the_docs_works(capsys):
    (snippet,) = python_blocks("docs/evaluation.md")
    exec(snippet, {})
    numbers, worst = capsys.readouterr().out.splitlines()
    assert all(0 <= float(number) <= 1 for number in numbers.split())
    assert worst in set("0123456789")


@pytest.mark.long
def test_the_finetuning_in_the_docs_works(capsys):
    (snippet,) = python_blocks("docs/finetuning.md")
    exec(snippet, {})
    found = ast.literal_eval(capsys.readouterr().out)
    assert 1 <= len(found) <= 4 and all(0 <= value <= 1 for value in found)


DOCS = [
    str(path.relative_to(ROOT))
    for path in (
        ROOT / "CONTRIBUTING.md",
        ROOT / "tpu" / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
]
MADE = {"reference/flags.md", "reference/run_files.md", "contributing.md"}
MADE |= {"changelog.md"}  # `make docs` makes these, and checks links to them.


def test_files_that_the_readme_names_exist():
    for name in ("README.md", *DOCS):
        folder = (ROOT / name).parent
        for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text()):
            there = (folder / link).resolve()
            made = str(there.relative_to(ROOT)).removeprefix("docs/") in MADE
            assert made or there.exists(), f"{name} links to {link}"


def test_the_readme_fits_on_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_the_tutorial_is_the_snippet_of_the_readme():
    (snippet,) = python_blocks("README.md")
    pieces = "\n".join(python_blocks("docs/tutorials/digits.md"))
    assert ast.dump(ast.parse(pieces)) == ast.dump(ast.parse(snippet))


def test_the_estimator_of_the_tutorial_has_the_right_sign(capsys, monkeypatch):
    monkeypatch.setattr(ESTIMATORS, "_found", dict(ESTIMATORS))
    function, by_hand = python_blocks("docs/tutorials/estimator.md")
    names = {}
    exec(function + by_hand, names)
    told = re.search(r"\[\[(.*)\]\]", by_hand.split("softmax - label")[1])[1]
    np.testing.assert_allclose(
        names["gradient"], [[float(x) for x in told.split(",")]], atol=5e-4
    )
    assert ESTIMATORS["thumbs"].labels == ("sampled", "hard")


def test_flagfiles_that_the_readme_names_exist():
    for flagfile in re.findall(
        r"flags/\w+\.flags", (ROOT / "README.md").read_text()
    ):
        assert (ROOT / flagfile).exists(), flagfile
