"""The page of a run: of a whole one, and of those that lack this or that."""

import json

import pytest

from meta_pseudo_labels.run.pages.report import report_page, write_report
from meta_pseudo_labels.run.pages.run_files import (
    NOT_OF_THE_RUN,
    RunFiles,
    default_settings,
    interval,
)
from tests.run.pages.synthetic import (
    NAMES,
    PICTURE,
    check,
    evaluated,
    logged,
    whole_run,
    write,
)


def page_of(folder):
    return check(report_page(RunFiles(folder)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pets"
    return page_of(whole_run(folder, label_smoothing=0.375))


def test_the_result_comes_first(whole):
    assert whole.text.index("75.0 % of 4 images right") < 100
    assert "the finetuned student of step 300" in whole.text
    # Wilson's of 3 of 4, by hand: (3 + 1.9207) / 7.8415 -+ 0.3266.
    assert "95 % interval 30.1 % to 95.4 %" in whole.text


@pytest.mark.parametrize(
    "text",
    [
        "finetuned 75.0 % 30.1 % – 95.4 % – 0.733",
        "62.5 % 1,234",  # The student on validation images, and its speed.
        "total 0.6667",  # The last loss.
        "label_smoothing 0.375 0.0",
        "one class has 4 labeled images, another 40.",
        "pets: images of 8 x 9 pixels; 44 labeled, 1,234 unlabeled, 4 test.",
        "1 file skipped: broken.png",
        "3 labels were made wrong on purpose",
        "3 min 15 s",
        "2 min 10 s",
        "252 (median, in training)",
        "2026-11-29 12:01:00 UTC, 2026-11-29 12:03:00 UTC",
        "devices 1 abacus cores 7",
        "Diagnosis at step 300",
        "exact 0.5 – – -2870 -2743 ± 209 cosine – 0.307 ± 0.021 -0.25 – –",
        "saved_model/2: finetuned of step 300, 7,777 parameters",
        "cat 70 %, is <b>dog</b> & co dog/7.png",
        "mpl serve --saved_model=",
    ],
)
def test_numbers_are_those_of_the_files(whole, text):
    assert text in whole.text


def test_pictures_are_within_and_have_words(whole):
    mistakes = [a for a in whole.all("img") if a["src"] == PICTURE]
    assert mistakes[0]["alt"] == (
        f"dog/7.png: of class {NAMES[1]}, taken for cat"
    )
    (views,) = [a for a in whole.all("img") if a.get("class") == "sheet"]
    assert "weak and strong views" in views["alt"]
    assert whole.spoken("Accuracy on validation or test images") == (
        "Accuracy on validation or test images: eval accuracy from 25 % at "
        "step 100 to 75 % at step 300."
    )


def test_a_run_with_all_its_stages_has_nothing_left_but_to_be_used(whole):
    assert "Training has not ended" not in whole.text
    for word in ("mpl eval ", "mpl inspect ", "mpl diagnose ", "mpl export "):
        assert word not in whole.text
    assert "mpl finetune " in whole.text  # There are logs, but no weights.


@pytest.mark.parametrize(
    ("source", "weights", "is_told"),
    [
        ("latest", "from-step-300.weights.h5", False),
        ("latest", "from-step-200.weights.h5", True),
        ("best", "from-step-200.weights.h5", False),
        ("runs/b", "from-step-9-of-0123.weights.h5", False),
        ("best", "", True),
    ],
)
def test_a_student_is_finetuned_once(tmp_path, source, weights, is_told):
    whole_run(tmp_path, from_checkpoint=source)
    if weights:
        write(tmp_path, f"finetune/{weights}", "")
    assert ("mpl finetune " in page_of(tmp_path).text) == is_told


def test_a_folder_without_anything_has_a_page(tmp_path):
    page = page_of(tmp_path)
    for text in (
        "No accuracy yet",
        "No evaluation yet",
        "No step was logged yet",
        "The data was not inspected",
        "There is no hparams.json",
        "What it ran on was not recorded",
        "Training has not ended: step 0.",
        "mpl eval ",
    ):
        assert text in page.text


def test_a_killed_run_says_where_it_stands(tmp_path):
    write(tmp_path, "hparams.json", {"num_train_steps": 900, "method": "uda"})
    logged(tmp_path, [0.25, 0.5])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30')
    page = page_of(tmp_path)
    assert "Training has not ended: step 200 of 900." in page.text
    assert "run the command that started it once more" in page.text
    assert "50.0 % of images right: the student of step 200" in page.text
    assert "Feedback" not in page.text
    assert "mpl diagnose" not in page.text


def test_a_review_has_a_section(tmp_path):
    folder = whole_run(tmp_path / "run")
    assert "mpl review " in page_of(folder).text
    rows = {"labels.csv": 1234, "to_label.csv": 2, "copies.csv": 0}
    write(folder, "review/review.json", {"step": 300, "rows": rows})
    write(folder, "review/labels.png", "a picture")
    page = page_of(folder)
    assert "mpl review " not in page.text
    assert "labels.csv (1,234), to_label.csv (2)" in page.text.replace(
        " ,", ","
    )
    sheets = [a["alt"] for a in page.all("img") if a.get("class") == "sheet"]
    assert any("first rows of labels.csv" in alt for alt in sheets)
    assert not any("to_label.csv" in alt for alt in sheets)


def test_a_run_of_before_rows_had_times(tmp_path):
    write(tmp_path, "metrics.jsonl", '{"step": 5, "eval/accuracy": 0.5}\n')
    assert "training not known" in page_of(tmp_path).text


@pytest.mark.parametrize(
    "name",
    [
        *("eval_report.json", "data.json", "hparams.json"),
        *("diagnosis.json", "machine.json", "eval_mistakes.json"),
    ],
)
@pytest.mark.parametrize("torn", ['{"networks": {"stu', "[]", "\0"])
def test_a_torn_file_is_named_and_left_out(tmp_path, name, torn):
    folder = whole_run(tmp_path / "run")
    (folder / name).write_text(torn)
    assert f"{name} cannot be read, and is left out." in page_of(folder).text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("eval_report.json", {"networks": {"student": {"top_1": 0.5}}}),
        ("eval_report.json", {"networks": {"student": 0.5}, "step": 3}),
        ("eval_mistakes.json", {"student": [{"label": 0}]}),
        ("eval_mistakes.json", {"student": {}}),
        ("data.json", {"classes": [{"label": 0}]}),
        ("diagnosis.json", {"estimators": {"exact": {}}}),
        ("review.json", {"step": 300}),
    ],
)
def test_a_file_that_lacks_a_part_is_named_and_left_out(
    tmp_path, name, content
):
    folder = whole_run(tmp_path / "run")
    where = f"review/{name}" if name == "review.json" else name
    write(folder, where, content)
    assert f"{where} cannot be read, and is left out." in page_of(folder).text


@pytest.mark.parametrize(
    "picture", ["https://example.org/a.png", "file:///a.png", "javascript:a", 3]
)
def test_a_picture_that_is_not_in_the_file_is_left_out(tmp_path, picture):
    folder = whole_run(tmp_path / "run")
    found = json.loads((folder / "eval_mistakes.json").read_text())
    for (mistake,) in found.values():
        mistake["picture"] = picture
    write(folder, "eval_mistakes.json", found)
    page = page_of(folder)
    assert "Left out: the picture is not in the file." in page.text
    assert PICTURE not in {image["src"] for image in page.all("img")}
    assert all(i["src"].startswith("data:image/") for i in page.all("img"))


def test_an_evaluation_of_another_step_is_told_of(tmp_path):
    folder = whole_run(tmp_path / "run")
    write(folder, "checkpoints/step-400.index", "")
    text = page_of(folder).text
    assert "The evaluation is of step 300, the latest checkpoint of" in text


def test_of_many_classes_the_pairs_that_are_confused_most_are_listed(tmp_path):
    evaluated(tmp_path)
    run = RunFiles(tmp_path)
    found = run.evaluation["networks"]["student"]
    found["confusion"] = [[0] * 31 for _ in range(31)]
    found["confusion"][3][4], found["confusion"][9][8] = 2, 5
    found["classes"] = [{"class": f"kind {k}"} for k in range(31)]
    page = check(report_page(run))
    assert "taken for images kind 9 kind 8 5 kind 3 kind 4 2" in page.text


def test_writes_the_page_into_the_run(tmp_path):
    path = write_report(tmp_path)
    assert path == str(tmp_path / "report.html")
    check((tmp_path / "report.html").read_text())


def test_wilsons_interval_of_all_and_of_none():
    assert interval(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_what_is_left_out_of_the_settings_is_some():
    """One that was renamed would be shown again, and make runs differ."""
    assert set(NOT_OF_THE_RUN) <= default_settings().keys()


@pytest.mark.parametrize("top_1", [0.25, 0.5, 0.75])
def test_a_result_stands_beside_guessing(tmp_path, top_1):
    folder = whole_run(tmp_path / "run")
    evaluated(folder, top_1=top_1)
    (folder / "views.png").unlink()
    text = page_of(folder).text
    assert "predicting the largest class would be right on 50.0 %." in text
    assert ("no better than guessing" in text) is (top_1 <= 0.5)
    assert "There is no views.png" in text and "[figures]" in text
