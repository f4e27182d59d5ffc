"""Time and cost on TPUs: by hand, and as tpu/README.md shows them."""

import re

import keras
import pytest

from benchmarks.common.documents import with_part
from benchmarks.scaling import estimates, model, steps
from tests.scripts import ROOT

CIFAR, IMAGENET = "CIFAR-10 with 4,000", "ImageNet with a tenth"


@pytest.fixture
def printed(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["estimates.py"])
    estimates.main()
    return capsys.readouterr().out


@pytest.mark.long
def test_the_readme_shows_what_the_script_prints(printed):
    readme = (ROOT / "tpu" / "README.md").read_text()
    assert with_part(readme, estimates.PART, printed) == readme, (
        "Run: python -m benchmarks.scaling.estimates --write"
    )


def cells(text, title, slice_name):
    """The numbers in a slice's row of a run's table."""
    table = text[text.index(title) :]
    (line, *_) = re.findall(rf"^\| {slice_name} \|.*$", table, re.MULTILINE)
    numbers = [cell.strip().replace(",", "") for cell in line.split("|")[2:-1]]
    return [float(cell.split()[0]) for cell in numbers]


def test_rows_by_hand(printed):
    # A forward pass of WRN-28-2 is 437,979,648 operations (flops_test.py); a
    # step is 3 (1 + 14) + 3 * 8 + 1 + 2 + 2 * 8 = 88 of them for each labeled
    # image. A tenth of what 4 chips of 123 TFLOP/s can do: 49.2 TFLOP/s.
    step = 88 * 128 * 437_979_648 / 49.2e12
    hours = step * 300_000 / 3600
    chips, peak, ms, images, days, chip_hours, dollars, _ = cells(
        printed, CIFAR, "v3-8"
    )
    assert (chips, peak) == (4, 492)
    assert ms == pytest.approx(1e3 * step, abs=0.5)
    assert images == pytest.approx(128 * 8 / step, abs=0.5)
    assert days == pytest.approx(hours / 24, abs=0.005)
    assert chip_hours == dollars == pytest.approx(4 * hours, abs=0.5)


def test_bigger_slices_take_less_time_for_the_same_work(printed):
    small, large = (
        cells(printed, IMAGENET, name) for name in ("v3-8", "v3-32")
    )
    assert large[2] == pytest.approx(small[2] / 4, abs=1)  # ms
    assert large[5] == pytest.approx(small[5], abs=1)  # chip hours


def test_what_does_not_fit_is_marked(printed):
    table = printed[printed.index(IMAGENET) :]
    marked = re.findall(r"^\| (\S+) .*does not fit", table, re.MULTILINE)
    assert marked == ["v2-8", "v3-8", "v4-8", "v5litepod-8", "v3-32"]
    assert "does not fit" not in printed[: printed.index(IMAGENET)]


def test_price_and_utilization_are_inputs(printed):
    run = model.RUNS[0]
    report = estimates.run_report(run, utilization=0.2, price=2.5)
    assert "20% of the peak" in report and "2.50 dollars" in report
    before, after = (cells(t, CIFAR, "v2-8") for t in (printed, report))
    assert after[2] == pytest.approx(before[2] / 2, abs=1)
    assert after[6] == pytest.approx(2.5 * before[6] / 2, abs=2)


def test_activations_of_a_small_network():
    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(4, 3, padding="same"),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
    size = steps.activation_bytes(keras.Sequential(layers))
    assert size == 2 * (8 * 8 * 4 + 10)


def test_activations_of_a_step():
    # Of WRN-28-2, per image: nine outputs of each of three sizes, and two
    # shortcuts; twice two bytes. 8 + 15 images a labeled one are kept.
    outputs = 9 * 32 * 32 * 32 + 9 * 16 * 16 * 64 + 9 * 8 * 8 * 128 + 10
    _, step = steps.read_run("flags/cifar10_4000_mpl.flags")
    assert step.activations == 128 * 23 * 2 * outputs


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--utilization=1.5", "at most 1"),
        ("--utilization=0", "must be positive"),
        ("--dollars_per_chip_hour=-1", "must be positive"),
    ],
)
def test_refusals(argument, expected, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["estimates.py", argument])
    with pytest.raises(SystemExit):
        estimates.parse_arguments()
    assert expected in capsys.readouterr().err
