"""The measurement on features of a frozen network, on a few of our own."""

import dataclasses

import numpy as np
import pytest

from benchmarks.frozen_features import run, tables, trainer


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Images of which one feature tells the class, in all of their views."""
    labels = np.arange(60) % trainer.CLASSES
    plain = np.zeros([60, 1_280], np.float16)
    plain[np.arange(60), labels] = 1
    path = tmp_path_factory.mktemp("features") / "features.npz"
    rest = {}
    for name in ("validation", "test"):
        rest |= {name: plain, f"{name}_labels": labels}
    views = np.stack([plain] * 2)
    np.savez(path, plain=plain, weak=views, strong=views, labels=labels, **rest)
    return path


def test_labels_are_balanced_and_the_seed_s(features):
    labels = run.load(features, is_search=True)["labels"]
    chosen = trainer.labeled_choice(labels, 40, seed=3)
    assert np.bincount(labels[chosen]).tolist() == [4] * 10
    assert len(set(chosen)) == 40
    np.testing.assert_array_equal(trainer.labeled_choice(labels, 40, 3), chosen)
    assert set(trainer.labeled_choice(labels, 40, 4)) != set(chosen)


@pytest.mark.long
def test_a_seed_is_the_same_whatever_ran_before(features, tmp_path):
    arrays = run.load(features, is_search=False)
    settings = run.Settings(num_steps=20)
    train = trainer.Trainer("exact, consistency", settings)
    first, other, again = (train.measure(arrays, 20, s) for s in (0, 1, 0))
    for row in (first, other, again):
        row.pop("seconds")
    assert first == again
    assert first["judge"] == "test" and first["accuracy"] > 50


@pytest.mark.long
def test_rows_are_made_once_and_told_with_their_control(features, tmp_path):
    arrays = run.load(features, is_search=True)
    settings = run.Settings(num_steps=5)  # One of finetuning.
    path = tmp_path / "rows.jsonl"
    train = trainer.Trainer("supervised", settings)
    for _ in range(2):
        train.add_row(path, arrays, 10, 0)
    (row,) = trainer.read_rows(path)
    assert (row["judge"], row["settings"]) == (
        "validation",
        dataclasses.asdict(settings),
    )
    rows = [
        row
        | dict(method=f"{name}, consistency", seed=seed)
        | dict(accuracy_finetuned=value)
        for name, gain in (("off", 0), ("exact", 1.5))
        for seed, value in enumerate([50.0 + gain, 60.0 + gain])
    ]
    exact, off = run.table(rows).splitlines()
    assert "exact, consistency" in exact
    assert "56.50" in exact and "over off +1.50   (2 seeds)" in exact
    assert "55.00" in off and "over off" not in off


def test_settings_are_the_best_on_validation_whatever_the_feedback():
    def row(method, labels, rate, accuracy):
        settings = dataclasses.asdict(run.Settings(learning_rate=rate))
        return dict(
            method=method, labels=labels, settings=settings, accuracy=accuracy
        )

    rows = [
        row("uda", 10, 0.1, 50.0),
        row("uda", 10, 0.3, 49.0),
        row("off, consistency", 10, 0.1, 50.0),
        row("off, consistency", 10, 0.3, 51.0),
        row("exact, consistency", 10, 0.1, 55.0) | {"accuracy_finetuned": 48},
        row("exact, consistency", 10, 0.3, 30.0) | {"accuracy_finetuned": 52},
        row("off, labels alone", 10, 0.1, 90.0),
    ]
    for method, rate in (
        ("uda", 0.1),
        ("off, consistency", 0.3),
        ("exact, consistency", 0.3),
        ("exact, labels alone", 0.1),
    ):
        assert run.chosen(rows, method, 10).learning_rate == rate
    own = run.chosen(rows, "exact, consistency", 10, own=True)
    assert own.learning_rate == 0.3  # 52 after finetuning.
    rows[2]["accuracy"] = 52.0
    own = run.chosen(rows, "off, consistency", 10, own=True)
    assert own.learning_rate == 0.1
    assert run.chosen(rows, "off, consistency", 10).learning_rate == 0.3
    with pytest.raises(SystemExit, match="No search for 'uda' with 40"):
        run.chosen(rows, "uda", 40)


def row_of(method, seed, accuracy, steps=1_000):
    settings = dataclasses.asdict(run.Settings(num_steps=steps))
    machine = dict(
        cpu="a processor", cores=2, tensorflow="2", keras="3", date="today"
    )
    return dict(
        method=method,
        labels=40,
        seed=seed,
        settings=settings,
        accuracy=accuracy,
        seconds=seed + steps / 1_000,
        revision="abc",
        machine=machine,
    )


def test_a_method_has_one_row_at_its_own_setting():
    rows = [
        row_of("off, consistency", 1, 50.0),
        row_of("exact, consistency", 1, 61.0),
        row_of("look ahead 4, consistency", 1, 64.0),
        row_of("off, labels alone", 1, 40.0),
        row_of("supervised", 1, 45.0, steps=9_000),
    ]
    better = row_of("off, consistency", 1, 60.5)
    assert tables.at_own_settings(rows, [better]) == [better, rows[1]]
    text = "\n".join(tables.sections(rows, [better]))
    assert "features, each method at its own best setting" in text
    assert "| mpl exact, consistency | +11.00 |" in text
    assert "| mpl exact, consistency | -0.50 |" not in text
    assert "| mpl exact, consistency | +0.50 |" in text


def test_tables_pair_each_method_with_its_controls():
    row = row_of
    rows = [
        row("exact, consistency", 1, 0.0)
        | {"accuracy_finetuned": 61.0, "accuracy_teacher": 58.0},
        row("look ahead 4, consistency", 1, 64.0),
        row("off, consistency", 1, 60.5),
        row("off, labels alone", 1, 50.0),
        row("off, labels alone", 5, 50.0),
        row("supervised", 1, 40.0),
        row("supervised", 0, 44.0),
        row("uda", 2, 0.0),
        row("supervised", 1, 41.0, steps=9_000) | {"revision": "def"},
    ]
    heading, accuracies, differences, *rest = tables.sections(rows)
    assert heading == "### 40 labels, frozen features"
    assert accuracies.splitlines()[2:] == [
        "| supervised | 2 | 42.00 ± 2.83 |  | 1.5 |",
        "| supervised, 9,000 steps | 1 | 41.00 |  | 10.0 |",
        "| uda | 1 | 0.00 |  | 3.0 |",
        "| mpl off, labels alone | 2 | 50.00 ± 0.00 |  | 4.0 |",
        "| mpl off, consistency | 1 | 60.50 |  | 2.0 |",
        "| mpl exact, consistency | 1 | 61.00 | 58.00 | 2.0 |",
        "| mpl look ahead 4, consistency | 1 | 64.00 |  | 2.0 |",
    ]
    # UDA has no seed in common with any other, and so no column.
    assert [line.split(" | ") for line in differences.splitlines()] == [
        ["| points over", "`off`", "exact, consistency"]
        + ["supervised", "supervised, 9,000 steps |"],
        ["| ---"] + ["---"] * 3 + ["--- |"],
        ["| mpl off, labels alone", "", "", "+10.00 {1}", r"+9.00 {1} \* |"],
        ["| mpl off, consistency", "", "", "+20.50", r"+19.50 \* |"],
        ["| mpl exact, consistency", "+0.50", "", "+21.00", r"+20.00 \* |"],
        ["| mpl look ahead 4, consistency", "+3.50", "+3.00"]
        + ["+24.00", r"+23.00 \* |"],
    ]
    assert rest == [
        r"\* rows of different revisions.",
        "a processor, 2 cores; TensorFlow 2; Keras 3; today; code at abc, def.",
    ]


def test_tables_refuse_two_rows_of_one_seed():
    settings = dataclasses.asdict(run.Settings())
    row = dict(method="uda", labels=10, seed=0, settings=settings, accuracy=1.0)
    with pytest.raises(ValueError, match="Seed 0 .*uda.* is there twice"):
        tables.by_method([row, row])
