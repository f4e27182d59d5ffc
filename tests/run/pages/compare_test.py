"""Several runs on one page: groups, means, differences, what is missing."""

import re
import sys

import pytest

from meta_pseudo_labels.run import cli
from meta_pseudo_labels.run.pages import comparison
from meta_pseudo_labels.run.pages.compare import (
    comparison_lines,
    comparison_page,
    write_comparison,
)
from meta_pseudo_labels.run.pages.comparison import (
    IN_USE,
    comparison_of,
    conditions_of,
)
from meta_pseudo_labels.run.pages.run_files import RunFiles, runs_in
from tests.run.pages.synthetic import check, evaluated, logged, write

MPL = [0.8, 0.82, 0.84, 0.86, 0.88]
UDA = [0.79, 0.80, 0.81, 0.82, 0.83]  # Less 1, 2, 3, 4 and 5 points.


def run(folder, method, seed, accuracy=None, **settings):
    write(folder, "hparams.json", dict(method=method, seed=seed, **settings))
    logged(folder, [0.1 * (1 + seed), 0.5])
    if accuracy is not None:
        evaluated(folder, top_1=accuracy)
    return RunFiles(folder)


def page_of(runs):
    return check(comparison_page(comparison_of(runs)))


def lines_of(runs):
    return comparison_lines(comparison_of(runs))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [
        run(
            root / f"{method}_seed{seed}", method, seed, accuracy, ema_decay=0.5
        )
        for method, each in (("mpl", MPL), ("uda", UDA))
        for seed, accuracy in enumerate(each)
    ]


@pytest.fixture(scope="module")
def page(runs):
    return page_of(runs)


@pytest.mark.parametrize(
    "text",
    [
        "10 runs compared 2 groups",
        # Deviation 0.0316, t 2.776, by hand: 0.0316 * 2.776 / sqrt(5).
        "mpl 5 84.0 % ± 3.9",
        "uda 5 81.0 % ± 2.0",
        # Of -1 to -5: deviation 1.581, so 1.963 to either side.
        "uda 5 -3.00 -4.96 to -1.04 yes",
        "finetuned: each group minus mpl",
        "an interval needs three seeds whose accuracies differ.",
        "setting mpl uda method mpl uda Curves",
        "uda 2 200, not ended 81.0 % finetuned, at step 300 2 min 10 s",
    ],
)
def test_numbers_are_those_of_the_runs(page, text):
    assert text in page.text


def test_runs_that_differ_in_the_seed_alone_are_one_curve_with_a_band(page):
    bands = [a for a in page.all("polygon") if "band" in a["class"]]
    assert len(bands) == 2 * 2  # Of accuracy and of the training loss.
    spoken = page.spoken("Accuracy on validation or test")
    assert "mpl from 30 % at step 100 to 50 % at step 200" in spoken


def test_folder_and_stage_make_no_other_run(tmp_path):
    one = run(tmp_path / "one", "mpl", 0, output_dir="a", task_mode="eval")
    two = run(tmp_path / "two", "mpl", 1, output_dir="b", progress=False)
    (condition,) = conditions_of([one, two])
    assert condition.settings == {} and len(condition.runs) == 2
    text = page_of([one, two]).text
    assert "None but the seed" in text and "they differ in the seed" in text


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (dict(lr=1), dict(lr=1.0)),
        (dict(grad_bound=10**9), dict(grad_bound=1e9)),
        (dict(distribution="mirrored"), dict(distribution="multi_worker")),
        (dict(jit_compile=True, deterministic=True), dict(strict_data=True)),
        (dict(replicas_per_worker=2, steps_per_execution=5), dict()),
        (dict(data_dir="/here", eval_dir="a"), dict(data_dir="/there")),
    ],
)
def test_machines_and_ways_to_write_a_number_make_no_other_run(
    tmp_path, one, two
):
    runs = [
        run(tmp_path / str(seed), "mpl", seed, 0.5, **settings)
        for seed, settings in enumerate((one, two))
    ]
    (condition,) = conditions_of(runs)
    assert condition.settings == {}
    # The same with the settings of finetuning.
    runs = [
        run(tmp_path / str(seed), "mpl", seed, 0.5, finetune_lr=lr)
        for seed, lr in enumerate((1, 1.0))
    ]
    assert len(conditions_of(runs)) == 1


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (dict(lr=1), dict(lr=1.5)),
        (dict(use_augment=True), dict(use_augment=False)),
        (dict(callbacks="a:b"), dict()),
        (dict(labels_csv="a.csv"), dict(labels_csv="b.csv")),
    ],
)
def test_other_values_make_other_runs(tmp_path, one, two):
    runs = [
        run(tmp_path / str(seed), "mpl", seed, **settings)
        for seed, settings in enumerate((one, two))
    ]
    assert len(conditions_of(runs)) == 2


@pytest.mark.parametrize(
    ("change", "groups"),
    [
        ({}, 1),
        ({"mean": [0.5, 0.5, 0.25]}, 2),
        ({"class_names": ["cat", "cow"]}, 2),
        ({"labels": [0, 1, 0]}, 2),
        ({"mean": None}, 2),
        ({"labels": 3}, 2),
    ],
)
def test_folders_are_told_apart_by_their_images(tmp_path, change, groups):
    """They may have been elsewhere on another machine."""
    choice = {
        "class_names": ["cat", "dog"],
        "labels": [0, 1],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
    }
    runs = [
        run(
            tmp_path / str(seed),
            "mpl",
            seed,
            dataset="folders",
            labeled_dir=f"/{seed}/labeled",
            unlabeled_dir=f"/{seed}/unlabeled",
        )
        for seed in (0, 1)
    ]
    write(tmp_path / "0", "labeled.json", choice)
    # Another seed, another choice.
    other = choice | {"labels": [1, 1], "indices": [3, 4]} | change
    write(tmp_path / "1", "labeled.json", other)
    found = conditions_of(runs)
    assert len(found) == groups
    want = {0: "/0/labeled"} if groups > 1 else {}
    assert found[0].settings.get("labeled_dir") == want.get(0)


def test_runs_of_the_same_folders_name_are_told_apart(tmp_path):
    """By as much of their paths as it takes, like a/mpl and b/mpl."""
    for seed, name in enumerate(("a/x/mpl", "b/x/mpl", "b/uda")):
        run(tmp_path / name, name.split("/")[-1], seed, lr=0.1 + seed)
    folders = [tmp_path / name for name in ("a/x/mpl", "b/x/mpl", "b/uda")]
    runs = runs_in(folders)
    assert [one.name for one in runs] == ["a/x/mpl", "b/x/mpl", "uda"]
    assert [one.name for one in conditions_of(runs)] == [
        *("a/x/mpl", "b/x/mpl", "uda")
    ]
    write(tmp_path, "b/x/mpl/checkpoints/step-900.index", "")
    evaluated(tmp_path / "b/x/mpl")
    (doubt,) = comparison_of(runs_in(folders)).doubts
    assert doubt.endswith(": b/x/mpl (step 300 of 900).")


@pytest.mark.parametrize(
    ("names", "titles"),
    [
        (["0/mpl", "1/mpl", "0/uda", "1/uda"], ["mpl", "uda"]),
        (
            ["a/mpl_seed0", "a/mpl_seed1", "b/mpl_seed0", "b/mpl_seed1"],
            ["a/mpl", "b/mpl"],
        ),
        (["a/0", "a/1", "b/0", "b/1"], ["a", "b"]),
    ],
)
def test_groups_are_named_by_what_their_paths_share(tmp_path, names, titles):
    for place, name in enumerate(names):
        run(tmp_path / name, "mpl", place, lr=0.1 + place // 2)
    found = conditions_of(runs_in([tmp_path / name for name in names]))
    assert [condition.name for condition in found] == titles


def test_groups_of_the_same_folders_name_have_different_names(tmp_path):
    found = conditions_of(
        [
            run(tmp_path / str(k) / "digits", "mpl", 0, ema_decay=decay)
            for k, decay in enumerate([0.0, 0.5, 0.9])
        ]
    )
    assert len({condition.name for condition in found}) == 3


def test_few_seeds_are_no_discovery(runs):
    text = page_of(runs[:2] + runs[5:7]).text
    assert "too few seeds" in text


@pytest.mark.parametrize(
    ("noted", "want"),
    [
        ({"mine": {"0": "a" * 64}}, "mine (aaaaaaaa), other"),
        (
            {"mine": {"0": "not known", "200": "b" * 64}, "gone": {"0": "c"}},
            "mine (not known, then bbbbbbbb from step 200), other",
        ),
        ({"gone": {"0": "a" * 64}, "other": {}}, "mine, other"),
        ({"mine": ["a" * 64], "other": None}, "mine, other"),
        (None, "mine, other"),
    ],
)
def test_plug_ins_are_named_with_their_source_where_it_is_known(
    tmp_path, noted, want
):
    found = run(tmp_path, "mpl", 0, plugins="mine,other")
    if noted:
        write(tmp_path, "plugins.json", noted)
    assert found.setting("plugins") == want


def test_runs_of_different_sources_are_not_put_together(tmp_path):
    runs = []
    sources = ("a" * 64, "a" * 64, "b" * 64, None)
    for seed, source in enumerate(sources):
        folder = tmp_path / str(seed)
        runs.append(run(folder, "mpl", seed, plugins="mine"))
        if source:
            write(folder, "plugins.json", {"mine": {"0": source}})
    groups = conditions_of(runs)
    assert [len(group.runs) for group in groups] == [2, 1, 1]
    assert [group.settings for group in groups] == [
        {"plugins": "mine (aaaaaaaa)"},
        {"plugins": "mine (bbbbbbbb)"},
        {"plugins": "mine"},
    ]
    # Plug-ins that a run no longer names are no matter of it.
    for one in runs[:2]:
        write(
            tmp_path / one.name,
            "plugins.json",
            {"mine": {"0": "a" * 64}, f"gone{one.name}": {"0": "c" * 64}},
        )
    runs = [RunFiles(one.folder) for one in runs[:2]]
    assert len(conditions_of(runs)) == 1


def test_equal_seeds_count_once(tmp_path):
    runs = [
        run(tmp_path / name, "mpl", 3, accuracy)
        for name, accuracy in (("a", 0.5), ("b", 0.7))
    ]
    (condition,) = conditions_of(runs)
    assert condition.by_seed("student") == {3: pytest.approx(0.6)}


def test_networks_are_compared_only_where_all_groups_have_them(tmp_path):
    """One was evaluated, the other one not: what training saw is left."""
    runs = [
        run(tmp_path / "a", "mpl", 0, 0.9),
        run(tmp_path / "b", "uda", 0),
    ]
    page = page_of(runs)
    assert "last in training: each group minus a" in page.text
    assert "b 1 – – 50.0 %" in page.text


def test_each_group_is_compared_by_the_network_that_it_would_use(tmp_path):
    """MPL was finetuned; nobody finetunes what learned from true labels."""
    runs = [
        run(tmp_path / "mpl", "mpl", 0, 0.9),
        run(tmp_path / "uda", "uda", 0, 0.8),
    ]
    networks = runs[1].evaluation["networks"]
    del networks["finetuned"]
    assert set(networks) == {"student"}
    runs[0].evaluation["networks"]["student"]["top_1"] = 0.1
    text = page_of(runs).text
    assert "finetuned, else student: each group minus mpl" in text
    student = networks["student"]["top_1"]
    assert f"uda 1 {100 * (student - 0.9):+.2f}" in text
    assert f"On {runs[0].evaluation['images']}." in text


def test_a_group_that_was_finetuned_in_part_is_compared_by_its_students(
    tmp_path,
):
    group = [run(tmp_path / str(k), "mpl", k, 0.9) for k in range(3)]
    for one, student in zip(group, (0.1, 0.2, 0.3), strict=True):
        one.evaluation["networks"]["student"]["top_1"] = student
    (condition,) = conditions_of(group)
    assert set(condition.by_seed(IN_USE).values()) == {0.9}
    del group[1].evaluation["networks"]["finetuned"]
    assert condition.by_seed(IN_USE) == {0: 0.1, 1: 0.2, 2: 0.3}


def finetuned_in_part(root, method, finetuned, **settings):
    """Three seeds; `mpl finetune` saves its steps with those of the run."""
    runs = []
    for seed in range(3):
        done = seed in finetuned
        own = settings if done else {}
        one = run(
            root / f"{method}_seed{seed}",
            method,
            seed,
            0.9 if done else 0.8,
            **{"finetune_steps": 1000 if done else None} | own,
        )
        networks = one.evaluation["networks"]
        networks["student"] = networks["student"] | {"top_1": 0.1 * seed}
        if not done:
            del networks["finetuned"]
        runs.append(one)
    return runs


def test_finetuning_one_seed_makes_no_other_group(tmp_path):
    runs = finetuned_in_part(
        tmp_path, "mpl", [1], finetune_lr=0.5, export_onnx=True
    )
    (condition,) = conditions_of(runs)
    assert [one.name for one in condition.runs] == [one.name for one in runs]
    assert condition.by_seed(IN_USE) == {
        seed: pytest.approx(0.1 * seed) for seed in range(3)
    }


def test_other_finetunings_are_other_groups(tmp_path):
    runs = finetuned_in_part(tmp_path / "a", "mpl", [0, 1, 2], finetune_lr=0.5)
    runs += finetuned_in_part(tmp_path / "b", "mpl", [0, 1, 2], finetune_lr=0.1)
    found = conditions_of(runs)
    assert [group.settings for group in found] == [
        {"finetune_lr": 0.5},
        {"finetune_lr": 0.1},
    ]
    # It is not known to which one a further run will belong.
    (late,) = finetuned_in_part(tmp_path / "c", "mpl", [])[:1]
    assert [len(group.runs) for group in conditions_of([*runs, late])] == [
        3,
        3,
        1,
    ]


def test_a_group_that_is_finetuned_in_part_is_not_represented_by_that_part(
    tmp_path,
):
    runs = finetuned_in_part(tmp_path, "mpl", [1])
    runs += finetuned_in_part(tmp_path, "uda", [0, 1, 2])
    assert lines_of(runs)[:3] == [
        "Accuracy, finetuned, else student; differences from mpl:",
        "  mpl   3 seeds  10.00 %",
        "  uda   3 seeds  90.00 %  +80.00 (+55.16 to +104.84), "
        "too few seeds to tell",
    ]


def test_runs_that_have_nothing_yet_still_have_a_page(tmp_path):
    for name in ("a", "b"):
        write(tmp_path, f"{name}/hparams.json", {"method": name})
    runs = [RunFiles(tmp_path / name) for name in ("a", "b")]
    text = page_of(runs).text
    for words in ("No run has an accuracy yet", "No step was logged yet"):
        assert words in text
    assert "no other group has a seed and a network in common" in text


def test_evaluations_of_different_images_are_told_of(tmp_path):
    runs = [run(tmp_path / name, name, 0, 0.5) for name in ("a", "b")]
    runs[1].evaluation["images"] = "other images"
    assert "of different images: other images; the" in (page_of(runs).text)


def test_other_images_of_one_name_are_told_of(tmp_path):
    runs = [run(tmp_path / name, name, 0, 0.5) for name in ("a", "b", "c")]
    for one, digest in zip(runs, ("1", None, "1"), strict=True):
        one.evaluation["images_digest"] = digest
    assert comparison_of(runs).doubts == []
    runs[2].evaluation["images_digest"] = "2"
    (doubt,) = comparison_of(runs).doubts
    assert doubt == (
        "The evaluations are of different images, all called the test images "
        "of pets."
    )
    assert doubt in page_of(runs).text and doubt in lines_of(runs)


def test_evaluations_of_an_earlier_step_are_told_of(tmp_path):
    runs = [run(tmp_path / name, name, 0, 0.5) for name in ("a", "b")]
    write(tmp_path, "b/checkpoints/step-900.index", "")
    assert comparison_of(runs).doubts == [
        "Evaluated at an earlier step than that of the latest checkpoint: "
        "b (step 300 of 900)."
    ]


def test_validation_and_test_accuracies_are_not_compared_silently(tmp_path):
    runs = [
        run(tmp_path / "a", "mpl", 0, num_validation=50),
        run(tmp_path / "b", "uda", 0),
        run(tmp_path / "c", "uda", 1, num_validation=50, best_on="test"),
    ]
    assert comparison_of(runs[1:]).doubts == []
    assert comparison_of(runs).doubts == [
        "Training was judged by different images: validation a; test b, c."
    ]
    runs[0] = run(tmp_path / "a", "mpl", 0, eval_dir="new")
    assert comparison_of(runs).doubts == [
        "Training was judged by different images: test (new) a; test b, c."
    ]


def test_the_command_takes_folders(runs, tmp_path, monkeypatch, capsys):
    output = tmp_path / "page.html"
    folders = [str(run.folder) for run in runs]
    monkeypatch.setattr(
        sys, "argv", ["mpl", "compare", *folders, f"--output={output}"]
    )
    cli.main()
    assert capsys.readouterr().out.splitlines() == [
        "Accuracy, finetuned; differences from mpl:",
        "  mpl   5 seeds  84.00 %",
        "  uda   5 seeds  81.00 %  -3.00 (-4.96 to -1.04), holds",
        f"10 of 10 runs have not ended: {', '.join(run.name for run in runs)}.",
        f"Compared: {output}",
    ]
    check(output.read_text())


def test_the_page_may_be_at_home(runs, tmp_path, monkeypatch, capsys):
    """Shells leave the ~ in --output=~/page.html to the program."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folders = [str(run.folder) for run in runs[:2]]
    monkeypatch.setattr(
        sys, "argv", ["mpl", "compare", *folders, "--output=~/page.html"]
    )
    cli.main()
    assert f"Compared: {tmp_path}/page.html" in capsys.readouterr().out
    check((tmp_path / "page.html").read_text())


def test_two_seeds_have_no_interval(tmp_path):
    """Two equal differences would have one of width 0."""
    runs = [
        run(tmp_path / f"{method}_seed{seed}", method, seed, accuracy)
        for method, accuracies in (
            ("off", (0.874, 0.928)),
            ("exact", (0.868, 0.922)),
        )
        for seed, accuracy in enumerate(accuracies)
    ]
    assert lines_of(runs)[2] == (
        "  exact   2 seeds  89.50 %  -0.60, too few seeds to tell"
    )
    text = page_of(runs).text
    assert "exact 2 -0.60 – too few seeds" in text
    assert "off 2 90.1 % " in text and "90.1 % ±" not in text


def seeds_of(root, method, accuracies):
    """A run for each seed, which are counted from 0."""
    return [
        run(root / f"{method}_seed{seed}", method, seed, accuracy)
        for seed, accuracy in enumerate(accuracies)
    ]


@pytest.mark.parametrize(
    ("less", "told", "in_table"),
    [
        ([0.25] * 4, "too few seeds to tell", "too few seeds"),
        ([0.25] * 5, "all equal: cannot tell", "all equal: cannot tell"),
        ([0.0] * 5, "all equal: cannot tell", "all equal: cannot tell"),
        ([0.2, -0.1, 0.1, -0.2, 0.01], "does not hold", "no"),
        ([0.2, 0.21, 0.22, 0.23, 0.24], "holds", "yes"),
    ],
)
def test_the_words_for_a_difference_say_what_can_be_told(
    tmp_path, less, told, in_table
):
    accuracies = [0.5 for _ in less]
    runs = seeds_of(tmp_path, "mpl", accuracies)
    runs += seeds_of(tmp_path, "uda", [0.5 - each for each in less])
    assert lines_of(runs)[2].endswith(f", {told}")
    row = rf"uda {len(less)} \S+ (–|\S+ to \S+) {in_table} "
    assert re.search(row, page_of(runs).text)


def test_a_group_without_a_seed_of_the_first_is_said_to_have_none(tmp_path):
    runs = seeds_of(tmp_path, "mpl", [0.5, 0.6])
    runs += seeds_of(tmp_path, "uda", [0.4, 0.5])
    runs.append(run(tmp_path / "late", "fixmatch", 7, 0.3))
    lines = lines_of(runs)
    assert lines[3] == "  late   1 seed   30.00 %  no seed in common with mpl"
    text = page_of(runs).text
    assert "late 0 – – no seed in common" in text
    text = page_of([*runs[:2], runs[-1]]).text
    assert "None: no other group has a seed" in text


def test_the_terminal_tells_what_makes_its_numbers_doubtful(tmp_path):
    runs = [run(tmp_path / name, name, 0, 0.5) for name in ("a", "b", "c")]
    for one in runs[:2]:
        write(tmp_path, f"{one.name}/done", "300 steps\n")
    runs[1].evaluation["images"] = "other images"
    write(tmp_path, "c/eval_report.json", "{")
    assert lines_of(runs)[-3:] == [
        "The evaluations are of different images: other images; "
        "the test images of pets.",
        f"{tmp_path / 'c'}: eval_report.json cannot be read, and is left out.",
        "1 of 3 runs has not ended: c.",
    ]
    write(tmp_path, "c/done", "300 steps\n")
    evaluated(tmp_path / "c")
    runs = [RunFiles(one.folder) for one in runs]
    assert len(lines_of(runs)) == 4


def test_doubts_are_told_where_nothing_can_be_compared_too(tmp_path):
    for name in ("a", "b"):
        write(tmp_path, f"{name}/hparams.json", {"method": name})
    assert lines_of([RunFiles(tmp_path / name) for name in "ab"])[1:] == [
        "2 of 2 runs have not ended: a, b."
    ]


def test_page_and_terminal_take_one_result(runs, tmp_path, monkeypatch):
    """Runs are put together, and their differences taken, once."""
    calls = []

    def counted(name):
        function = getattr(comparison, name)
        monkeypatch.setattr(
            comparison, name, lambda *a: calls.append(name) or function(*a)
        )

    for name in ("conditions_of", "_measures", "_compared", "_differences"):
        counted(name)
    folders = [run.folder for run in runs]
    write_comparison(folders, tmp_path / "page.html")
    assert calls == ["conditions_of", "_measures", "_compared", "_differences"]


def test_what_was_not_evaluated_is_compared_by_its_log_and_told_how(tmp_path):
    runs = [run(tmp_path / name, name, 0) for name in ("a", "b")]
    lines = lines_of(runs)
    assert lines[0] == "Accuracy, last in training; differences from a:"
    assert lines[1] == "Run mpl eval on every run to compare test accuracy."
    assert "run mpl eval on every run to compare test" in page_of(runs).text


def test_nothing_evaluated_is_one_line(tmp_path):
    for name in ("a", "b"):
        write(tmp_path, f"{name}/hparams.json", {"method": name})
        write(tmp_path, f"{name}/done", "300 steps\n")
    (line,) = lines_of([RunFiles(tmp_path / name) for name in "ab"])
    assert "mpl eval" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: RUN"),
        (["{run}"], "1 run is not enough to compare"),
        (["{run}", "{run}/../mpl_seed0"], "1 run is not enough to compare"),
        (["{run}", "nowhere"], "nowhere holds no run"),
        (["{run}", "{run}", "--outptu=x"], "--outptu=x"),
        (
            ["{run}", "{other}", "--output=no/where.html"],
            "Error: no/where.html: No such file",
        ),
        (["{run}", "{other}", "--output={run}"], "Error: {run}: Is a dir"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    runs, monkeypatch, arguments, words
):
    names = dict(run=str(runs[0].folder), other=str(runs[1].folder))
    arguments = [argument.format(**names) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["mpl", "compare", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert str(caught.value).startswith("Error: ")
    assert words.format(**names) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torn_settings_file_is_no_run(runs, tmp_path):
    write(tmp_path, "hparams.json", '{"meth')
    with pytest.raises(ValueError, match="holds no run"):
        write_comparison([str(runs[0].folder), tmp_path], tmp_path / "x.html")


@pytest.mark.parametrize(
    "names, title",
    [
        (("mpl_seed0", "mpl_seed1"), "mpl"),
        (("mpl-s1", "mpl-s12"), "mpl"),
        (("digits-0", "digits-1"), "digits"),
        (("mpl-250labels-0", "mpl-250labels-1"), "mpl-250labels"),
        (("cifar10-0", "cifar10-1"), "cifar10"),
        (("seed_0", "seed_1"), "runs"),
        (("alone",), "alone"),
    ],
)
def test_a_group_is_called_by_the_words_in_common(names, title, tmp_path):
    (condition,) = conditions_of(
        [
            run(tmp_path / "runs" / name, "mpl", seed)
            for seed, name in enumerate(names)
        ]
    )
    assert condition.name == title


def test_a_setting_that_was_not_there_yet_had_its_default(tmp_path):
    runs = [
        run(tmp_path / name, "mpl", seed, **settings)
        for seed, (name, settings) in enumerate(
            dict(
                a={}, b=dict(image_fit="crop"), c=dict(image_fit="pad")
            ).items()
        )
    ]
    groups = conditions_of(runs)
    assert [[run.name for run in g.runs] for g in groups] == [["a", "b"], ["c"]]
    assert [g.settings for g in groups] == [
        {"image_fit": "crop"},
        {"image_fit": "pad"},
    ]
