"""What tables make of the rows of control runs."""

from benchmarks.controls import suites as control_suites
from benchmarks.controls import tables as control_tables
from tests.benchmarks.controls.made_up import row

RUNS = control_suites.SUITES["digits"].runs
SAMPLED_OFF = control_suites.SAMPLED_OFF


def test_the_last_row_of_a_seed_counts_and_old_recipes_do_not():
    old = row("uda", seed=3, settings={"lr": 0.5})
    rows = [old, row("uda"), row("uda", seed=1), row("uda", accuracy=0.8)]
    (group,) = control_tables.by_run(rows).values()
    assert group == {0: rows[3], 1: rows[2]}


def test_the_text_has_means_deviations_and_differences():
    accuracies = {"mpl off": (0.90, 0.92, 0.94), "mpl exact": (0.9, 0.94, 0.98)}
    rows = [
        row(run, seed=seed, accuracy=accuracy)
        for run, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]
    text = control_tables.as_text(rows, runs=RUNS)
    # 90, 92, 94: mean 92, deviation 2. 90, 94, 98: 94 and 4; no teacher.
    assert "mpl off 3 50.00 +- 0.00 92.00 +- 2.00 11" in " ".join(text.split())
    # By seed 0, 2 and 4: mean 2, deviation 2, margin 4.302653 * 2 / sqrt(3).
    assert "mpl exact mpl off 3 +2.00 (-2.97 to +6.97)" in " ".join(
        text.split()
    )


def test_a_star_marks_differences_between_revisions():
    def text(revision, *, seed):
        rows = [
            row("mpl off", revision="a"),
            row("mpl off", seed=1, revision="b"),
            row("mpl exact", revision="a"),
            row("mpl exact", seed=seed, revision=revision),
        ]
        return control_tables.as_text(rows, runs=RUNS)

    mixed = text("c", seed=1)
    assert mixed.endswith("\n\n* rows of different revisions")
    assert "+0.00 *\n" in mixed
    # Seeds may differ, and so may a row without a partner.
    assert "*" not in text("b", seed=1) + text("c", seed=2)


def test_what_is_sure_of_one_column_vouches_for_none_in_another():
    """A gain with a p of 0.035 over MPL off, beside three that are sure.

    One of two compared with MPL off, it is doubtful; among all five it is not.
    """
    gains = [0.006, 0.002, 0.010, 0.001, 0.008]
    rows = []
    for seed, gain in enumerate(gains):
        swing = 0.01 * (-1) ** seed
        rows += [
            row("supervised", seed=seed, accuracy=0.5 + swing),
            row("mpl off", seed=seed, accuracy=0.9),
            row("mpl exact", seed=seed, accuracy=0.9 + gain),
            row("mpl release", seed=seed, accuracy=0.9 + swing / 2),
        ]
    groups = control_tables.by_run(rows)
    found = control_tables.differences(groups, runs=RUNS)
    clear = {(one.run, one.other): one.clear for one in found}
    assert [run for run, other in clear if other == "supervised"] == [
        *("mpl off", "mpl exact", "mpl release")
    ]
    assert all(clear[pair] for pair in clear if pair[1] == "supervised")
    assert not clear["mpl exact", "mpl off"]
    together = control_tables.discoveries([one.points for one in found])
    assert together[list(clear).index(("mpl exact", "mpl off"))]


def test_drawn_labels_have_a_control_of_their_own_where_it_was_measured():
    rows = [
        *(row("mpl off", seed=seed, accuracy=0.9) for seed in range(2)),
        *(row("mpl reinforce", seed=seed, accuracy=0.8) for seed in range(2)),
    ]
    sampled = [row(SAMPLED_OFF, seed=seed, accuracy=0.75) for seed in range(2)]
    for known, want in (
        (rows, {("mpl reinforce", "mpl off"): -10}),
        (
            rows + sampled,
            {
                ("mpl reinforce", SAMPLED_OFF): 5,
                (SAMPLED_OFF, "mpl off"): -15,
            },
        ),
    ):
        found = control_tables.differences(
            control_tables.by_run(known, RUNS), runs=RUNS
        )
        assert {
            (one.run, one.other): round(one.points.mean) for one in found
        } == want
