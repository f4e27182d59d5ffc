"""The simulated step time: by hand, against traced steps, and in the docs."""

import dataclasses
import json
import re
import subprocess
import sys
import types

import keras
import pytest

from benchmarks.common.documents import with_part
from benchmarks.scaling import measure, model, run, tables
from benchmarks.step_time import variants
from meta_pseudo_labels.learners.feedback import ESTIMATORS
from meta_pseudo_labels.models.batch_norm import BatchNorm
from tests.command_line import defined
from tests.scripts import ROOT, run_script

DOC = ROOT / "docs" / "scaling.md"

MACHINE = model.Machine(
    peak=1e12,
    utilization=0.5,
    bandwidth=1e9,
    launch=1e-5,
    hop=1e-6,
    memory_bandwidth=1e9,
    accesses=10,
    fixed=1e-3,
)
STEP = model.Step(
    batch_size=4,
    unlabeled_ratio=1,
    feedback="exact",
    forwards=10,
    layers=((1_000_000_000, 4, True), (500_000_000, 1, False)),
    channels=(16, 32),
    parameters=1000,
)


@pytest.mark.parametrize(
    ("chips", "steps"),
    # 1 x 1, 1 x 2, 2 x 2, 2 x 4, 32 x 32.
    [(1, 0), (2, 2), (4, 4), (8, 2 + 6), (1024, 4 * 31)],
)
def test_steps_around_the_rings(chips, steps):
    assert model.ring_steps(chips) == steps


def test_an_all_reduce_by_hand():
    assert MACHINE.all_reduce(1000, cores=1) == 0
    # On one chip nothing goes over a link.
    assert MACHINE.all_reduce(1000, cores=2) == pytest.approx(1e-5)
    # Four chips, four hops; each sends 1.5 times the bytes.
    seconds = MACHINE.all_reduce(1000, cores=8)
    assert seconds == pytest.approx(1e-5 + 4e-6 + 1.5e-6)


def test_one_core_waits_for_nobody():
    times = model.simulate(STEP, MACHINE, cores=1)
    # 10 passes of 4 images, 1.5 GFLOP each, at 0.5 TFLOP/s.
    assert times.compute == pytest.approx(0.12)
    assert times.gradients == times.batch_norm == 0
    # Ten times 4,000 bytes of weights.
    assert times.rest == pytest.approx(1e-3 + 4e-5)


def test_a_step_on_four_cores_by_hand():
    times = model.simulate(STEP, MACHINE, cores=4)
    assert (times.replicas, times.cores_per_replica) == (4, 1)
    assert times.compute == pytest.approx(0.03)
    # Two chips: two hops, and each sends what is summed once.
    assert times.gradients == pytest.approx(3 * (1.2e-5 + 4000 / 1e9))
    # Seven passes; 16 and 32 channels of two moments of 4 bytes.
    moments = 2.4e-5 + (128 + 256) / 1e9
    assert times.batch_norm == pytest.approx(7 * moments)


def test_more_cores_than_images_split_them_by_width():
    times = model.simulate(STEP, MACHINE, cores=8)
    assert (times.replicas, times.cores_per_replica) == (4, 2)
    # Half of the first layer's columns, all of the second layer.
    assert times.compute == pytest.approx(10 * (0.5e9 + 0.5e9) / 0.5e12)
    # One layer passes borders on, seven times.
    assert times.rest == pytest.approx(1e-3 + 4e-5 + 7 * 1.1e-5)
    with pytest.raises(ValueError, match="needs 32 cores a replica; 16"):
        model.simulate(STEP, MACHINE, cores=128)


@pytest.mark.parametrize(
    ("width", "cores", "expected"), [(8, 2, 2), (7, 2, 7 / 4), (2, 16, 2)]
)
def test_columns_are_whole(width, cores, expected):
    assert model.speedup(width, cores) == expected


def test_groups_of_replicas_cost_the_moving_averages_too():
    step = dataclasses.replace(
        STEP, batch_size=16, group_batch_size=4, channels=(16,)
    )
    times = model.simulate(step, MACHINE, cores=16)
    # 8 chips, 8 hops: 18 us. The teacher has 3 images a replica, the student 2:
    # groups of 2, so room for 8. One image a replica: groups of 4, room for 4.
    link = 2 * 7 / 8 * 128 / 1e9
    assert times.batch_norm == pytest.approx(
        9 * 1.8e-5 + (2 * 8 + 3 * 8 + 2 * 4 + 2) * link
    )


def test_a_supervised_step_by_hand():
    seconds = tables.supervised_seconds(STEP, MACHINE, images=8, cores=4)
    # Three passes of two images; see above for the all-reduces, of which there
    # are two for each batch norm; half of the weights' accesses.
    hops = 1.2e-5
    assert seconds == pytest.approx(
        3 * 2 * 1.5e9 / 0.5e12
        + (hops + 4e-6)
        + 2 * (2 * hops + 384e-9)
        + 1e-3
        + 2e-5
    )


def test_the_knee_is_before_the_first_bad_one():
    times = [
        types.SimpleNamespace(cores=cores, step=seconds)
        for cores, seconds in ((1, 8), (2, 4), (4, 4), (8, 3), (16, 1))
    ]
    assert tables.knee(times) == 4
    assert tables.efficiency(times[3], times[0]) == 8 / 24


def test_milliseconds_have_three_digits():
    words = [tables.milliseconds(x) for x in (12.3456, 0.0123, 0.00123)]
    assert words == ["12,346", "12.3", "1.23"]


def two_norms(settings, *, name, dtype):
    """A network of little more than two batch norms; tracing takes long."""
    size = settings.image_size
    layers = [keras.Input((size, size, 3)), keras.layers.Conv2D(8, 3)]
    layers += [BatchNorm(), keras.layers.ReLU(), keras.layers.Conv2D(4, 3)]
    layers += [BatchNorm(), keras.layers.Flatten(), keras.layers.Dense(10)]
    return keras.Sequential(layers, name=name)


@pytest.mark.long
@pytest.mark.parametrize(
    "feedback",
    [
        name
        if name == "release"
        else pytest.param(name, marks=pytest.mark.long)
        for name in ESTIMATORS
    ],
)
def test_the_model_counts_what_a_traced_step_sends(
    feedback, mirrored, monkeypatch
):
    strategy = mirrored(2)
    monkeypatch.setattr(variants, "build_model", two_norms)
    settings = types.SimpleNamespace(
        batch_size=2, unlabeled_ratio=1, image_size=8
    )
    with strategy.scope():
        learner = measure.build_learner(settings, feedback=feedback)
    sizes = measure.live_all_reduces(
        measure.step_function(learner, strategy), measure.random_batch(settings)
    )
    weights = sum(4 * w.shape.num_elements() for w in _weights(learner))
    norms = sum(w.path.endswith("gamma") for w in learner.student.weights)
    assert norms == 2
    step = dataclasses.replace(STEP, feedback=feedback)
    assert sizes.count(weights) == step.gradient_sums
    few = sum(size <= 24 for size in sizes)  # Logs and baselines.
    assert 2 <= few <= 3
    assert len(sizes) - few - step.gradient_sums == step.passes * norms


def _weights(learner):
    assert learner.teacher.count_params() == learner.student.count_params()
    return [w.value for w in learner.student.trainable_variables]


def test_the_docs_show_what_the_script_prints(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run.py"])
    run.main()
    shown = capsys.readouterr().out
    document = DOC.read_text()
    assert with_part(document, run.PART, shown) == document, (
        "Run: python -m benchmarks.scaling.run --write"
    )
    # As in tpu/README.md: four chips at 100 ms and 9,986 ms of arithmetic.
    rows = re.findall(r"^\| 8 \*? ?\| 8 x 1 \| \d+ \| (\S+) ", shown, re.M)
    assert rows == ["100", "9,986"]


def test_what_the_docs_name_exists():
    text = DOC.read_text()
    for link in re.findall(r"\]\(([^)#:]+)[)#]", text):
        assert (DOC.parent / link).exists(), link
    for recipe in re.findall(r"--recipe=(\w+)", text):
        assert (ROOT / f"flags/{recipe}.flags").exists(), recipe
    commands = re.findall(r"^ +mpl train(?:.*\\\n)*.*", text, re.M)
    assert len(commands) == 4
    known = {"recipe", *defined()}
    for flag in re.findall(r"--(\w+)", " ".join(commands)):
        assert flag in known or flag.removeprefix("no") in known, flag


@pytest.mark.long
def test_the_snippet_trains():
    (snippet,) = re.findall(
        r"```python\n(.*?)```", DOC.read_text(), flags=re.DOTALL
    )
    check = "\nassert learner.step.numpy() == 2\n"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet + check],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.long
def test_two_workers_are_measured(tmp_path):
    path = tmp_path / "scaling.json"
    result = run_script(
        "benchmarks.scaling.run", "--measure", "--rounds=1", f"--json={path}"
    )
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(path.read_text())
    tiny, large = found["steps"]
    # No batch norm: three of the size of a network, and two of logs.
    assert (tiny["model"], tiny["all_reduces"]) == ("mlp", 5)
    assert large["all_reduces"] > 49
    assert found["all_reduce"]["launch_ms"] > 0
    assert result.stdout == tables.measured_report(found)
