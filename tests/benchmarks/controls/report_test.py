"""docs/results.md is what its script makes of the rows, and nothing else."""

import pytest
from PIL import Image

from benchmarks.controls import conditions, report
from benchmarks.controls import suites as control_suites
from tests.scripts import ROOT

NOTES = {
    name: f"Of {name}."
    for name in (
        "Results",
        "How to read",
        "digits",
        "cifar10",
        "Where feedback helps",
        "In bfloat16",
        "The paper's figures",
    )
}


def row(run, seed, accuracy, *, labels=40, **others):
    return {
        "run": run,
        "dataset": "digits",
        "labels": labels,
        "seed": seed,
        "steps": 3000,
        "model": "wrn-10-1",
        "settings": {"method": run.split()[0], "seed": seed},
        "accuracy": accuracy,
        "accuracy_finetuned": accuracy,
        "accuracy_teacher": None,
        "train_seconds": 1234.0,
        "date": "2026-11-21",
        "revision": "abc",
        "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"},
    } | others


def test_the_document_is_what_the_script_writes():
    text = report.report(
        report.read_rows(),
        report.read_notes(),
        low_precision=report.read_low_precision(),
        equal_time=report.read_equal_time(),
        recipe_parts=report.read_parts(),
        frozen=report.read_frozen_features(),
        frozen_own=report.read_frozen_features("_own"),
    )
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == text, (
        "Run python -m benchmarks.controls.report"
    )


def test_the_readme_has_the_table_of_the_rows():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.with_table(text, report.read_rows()) == text, (
        "Run python -m benchmarks.controls.report"
    )
    # And the marks are there: other rows make another text.
    assert report.with_table(text, []) != text


def test_the_table_of_the_readme():
    rows = [
        *(row("uda", seed, 0.9 + 0.02 * seed) for seed in range(2)),
        *(row("mpl exact", seed, 0.95 + 0.02 * seed) for seed in range(2)),
        row("uda", 0, 0.1, split="validation"),
    ]
    readme = "A\n<!-- results -->\nold\n<!-- end of results -->\nB"
    text = report.with_table(readme, rows)
    assert text.startswith("A\n<!-- results -->\n|  | student |")
    assert text.endswith("|\n<!-- end of results -->\nB") and "old" not in text
    assert "| UDA | 91.00 ± 1.41 | 91.00 ± 1.41 |  |  |  |\n" in text
    assert (
        "| MPL, feedback `exact` | 96.00 ± 1.41 | 96.00 ± 1.41 |  "
        "| +5.00 |  |\n"
    ) in text


def rows_behind(path):
    """The fingerprint of the rows that a figure was drawn from."""
    with Image.open(path) as image:
        return image.text["Rows"]


def test_its_figures_are_of_the_same_rows():
    rows = report.read_rows()
    for dataset in report.DATASETS:
        tables = report.tables_of(rows, dataset)
        for name in report.results_figures.FIGURES if tables else ():
            path = ROOT / "docs" / report.figure_name(dataset, name)
            assert rows_behind(path) == report.results_figures.fingerprint(
                tables
            ), f"{path.name}: run python -m benchmarks.controls.report"


def test_tables_differences_and_facts():
    rows = [
        row("mpl off", 0, 0.90),
        row("mpl off", 1, 0.92),
        row("mpl off", 2, 0.91, train_seconds=9e9),
        row("mpl exact", 0, 0.95, revision="def"),
        row("mpl exact", 1, 0.97),
        row("supervised", 0, 0.5, split="validation"),
    ]
    text = report.report(rows, NOTES)
    assert "Of digits." in text and "Of cifar10." not in text
    assert "| mpl off | 3 | 91.00 ± 1.00 | 91.00 ± 1.00 |  | 1,234 |" in text
    # +5 in both seeds: two are too few for an interval.
    assert r"| mpl exact | +5.00 \* |  |  |" in text
    # Seed 0 of the two is of different revisions.
    assert "\n\n\\* rows of different revisions.\n\n" in text
    assert "3,000 steps; machine not recorded;" in text
    assert "code at abc, def." in text
    # Images of the pool are told apart from the test set.
    assert "### 40 labels\n" in text and "### 40 labels, validation\n" in text
    assert text.endswith("## The paper's figures\n\nOf The paper's figures.\n")


def test_differences_are_bold_where_there_are_seeds_enough():
    accuracies = (0.90, 0.92, 0.91, 0.93, 0.94)
    rows = [
        row(run, seed, accuracy + gain + 0.001 * seed * (gain > 0))
        for run, gain in (("mpl off", 0), ("mpl exact", 0.05))
        for seed, accuracy in enumerate(accuracies)
    ]
    text = report.report(rows, NOTES)
    assert "| mpl exact | **+5.20 (+5.00 to +5.40)** |" in text
    text = report.report(rows[1:], NOTES)  # Four seeds in common of five.
    assert "| mpl exact | +5.25 (+5.04 to +5.46) {4} |" in text


def test_bfloat16_stands_beside_float32():
    rows = [row("uda", seed, 0.90) for seed in range(3)]
    low = [row("uda", seed, 0.91 + 0.01 * seed) for seed in range(2)]
    text = report.report(rows, NOTES, low_precision=low)
    assert "\n\n## In bfloat16\n\nOf In bfloat16.\n\n" in text
    assert "| uda | 2 | 90.00 ± 0.00 | 91.50 ± 0.71 | +1.50" in text
    assert "bfloat16" not in report.report(rows, NOTES)


def test_runs_of_equal_time_have_a_section_of_their_own():
    """Though UDA of another suite has the same name, data and labels."""
    shared = dict(dataset="cifar10", labels=250)
    rows = [row("uda", 0, 0.25, **shared)]
    own = [
        row("supervised", 0, 0.50, **shared),
        row("uda", 0, 0.75, **shared),
        row("uda", 1, 0.75, steps=300, train_cpu_seconds=70.0, **shared),
    ]
    heading = report.EQUAL_TIME["pretrained"]
    notes = NOTES | {heading: "Of the pretrained."}
    text = report.report(rows, notes, equal_time={"pretrained": own})
    before, section = text.split(f"\n\n## {heading}\n\nOf the pretrained.\n\n")
    assert "| uda | 1 | 25.00 |" in before and "75.00" not in before
    costs = "seconds | of the processor | steps"
    assert costs in section and costs not in before
    assert "| supervised | 1 | 50.00 | 50.00 |  | 1,234 |  | 3,000 |" in section
    accuracy = "75.00 ± 0.00"
    costs = "1,234 | 70 | 300 or 3,000"
    assert f"| uda | 2 | {accuracy} | {accuracy} |  | {costs} |" in section
    assert "| uda | 1 | 25.00 |" not in section
    assert "| uda |  |  | +25.00 {1} |" in section
    assert heading not in report.report(rows, NOTES, equal_time={"fast": []})
    suites = {
        name
        for name, suite in control_suites.SUITES.items()
        if suite.equal_time
    }
    assert report.EQUAL_TIME.keys() == suites


def test_conditions_are_compared_with_their_own_control():
    rows = [
        row("mpl off", 0, 0.90, labels=20),
        row("mpl exact", 0, 0.92, labels=20),
        row("mpl exact, weight 20", 0, 0.97, labels=20),
        row("mpl off, 10 labels", 0, 0.50, labels=10),
        row("mpl exact, 10 labels", 0, 0.60, labels=10, labels_learned=9),
    ]
    text = report.report(rows, NOTES)
    lines = text.splitlines()
    assert "different revisions" not in text
    assert "| none | exact | 1 | 20 | 92.00 | +2.00 |" in lines
    assert "| weight 20 | exact | 1 | 20 | 97.00 | +7.00 |" in lines
    assert "| 10 labels | off | 1 | 10 | 50.00 |  |" in lines
    assert "| 10 labels | exact | 1 | 9 | 60.00 | +10.00 |" in lines


def test_parts_of_a_recipe_are_compared_with_the_whole():
    facts = dict(labels=4000, dataset="cifar10")
    rows = [
        row("mpl off", 0, 0.60, **facts),
        row("mpl exact", 0, 0.62, **facts),
        row("mpl off, no wait", 0, 0.50, **facts),
        row("mpl exact, no wait", 0, 0.55, **facts),
        row("mpl exact, weight 5", 0, 0.63, **facts),
    ]
    notes = NOTES | {report.PARTS: "Of the parts."}
    text = report.report([], notes, recipe_parts=rows)
    _, section = text.split(f"## {report.PARTS}\n\nOf the parts.\n\n")
    lines = [line.split(" | ", maxsplit=4) for line in section.splitlines()]
    columns = "student | finetuned | points over off | over the whole recipe |"
    assert ["| part changed", "feedback", "n", "labels", columns] in lines
    for part, feedback, figures in (
        ("none", "off", "60.00 | 60.00 |  |  |"),
        ("none", "exact", "62.00 | 62.00 | +2.00 |  |"),
        ("no wait", "off", "50.00 | 50.00 |  | -10.00 |"),
        ("no wait", "exact", "55.00 | 55.00 | +5.00 | -7.00 |"),
        ("weight 5", "exact", "63.00 | 63.00 | +3.00 | +1.00 |"),
    ):
        assert [f"| {part}", feedback, "1", "4000", figures] in lines
    assert report.PARTS not in report.report([], NOTES)


def test_conditions_leave_out_rows_with_another_number_of_labels():
    rows = [
        row("mpl off", 0, 0.90, labels=20),
        row("mpl exact, weight 20", 0, 0.97, labels=20),
        row("mpl off, 10 labels", 0, 0.50, labels=10),
        row(
            *("mpl exact, 10 labels", 0, 0.60),
            **dict(labels=10, labels_learned=9, revision="def"),
        ),
    ]
    section = conditions.section(rows)
    # The star of a table of conditions.
    assert r"| 10 labels | exact | 1 | 9 | 60.00 | +10.00 \* |" in section[1]
    assert section[2] == r"\* rows of different revisions."
    # Rows that chose among conditions are no results of the data set.
    chosen = [one | {"split": "validation"} for one in rows]
    assert report.tables_of(rows + chosen, "digits").keys() == {(20, "test")}
    # Were they taken in, they would be the last of their seed, and count.
    others = [
        row("mpl off", 0, 0.10, labels=40),
        row("mpl exact, weight 20", 0, 0.20, labels=40),
        row("mpl exact, weight 20", 1, 0.30, labels=10),
        row("mpl off, 10 labels", 0, 0.40, labels=20),
    ]
    assert conditions.section(rows + others) == section


def test_a_note_that_is_missing_is_named():
    with pytest.raises(KeyError, match="digits"):
        report.report([row("uda", 0, 0.9)], {"Results": "", "How to read": ""})


def test_figures_are_drawn(tmp_path):
    rows = [
        row(run, seed, 0.9 + 0.01 * seed)
        for run in ("mpl off", "mpl exact")
        for seed in range(2)
    ] + [row("uda", 0, 0.9, labels=20)]  # A single run, without a control.
    tables = report.tables_of(rows, "digits")
    assert list(tables) == [(20, "test"), (40, "test")]
    for name, draw in report.results_figures.FIGURES.items():
        path = tmp_path / f"{name}.png"
        draw(tables, path, runs=control_suites.SUITES["digits"].runs)
        assert path.stat().st_size > 5_000
        assert rows_behind(path) == report.results_figures.fingerprint(tables)
    # Another accuracy is another figure.
    rows[0]["accuracy_finetuned"] = 0.8
    changed = report.tables_of(rows, "digits")
    assert rows_behind(path) != report.results_figures.fingerprint(changed)
