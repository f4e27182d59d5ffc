"""Variants of the problem, from the command line to the results."""

import json

import pytest

from tests import tiny_folders
from tests.integration.main_test import TINY

VARIED = (
    "--known_classes=5",
    "--label_noise=0.2",
    "--num_validation=5",
    "--num_feedback=5",
)


@pytest.mark.long
def test_a_run_on_fewer_classes_and_labels(tmp_path, main, capsys):
    """Every later stage finds the problem in the run's own settings."""
    folder = f"--output_dir={tmp_path}"
    main(folder, *TINY, *VARIED)
    chosen = json.loads((tmp_path / "labeled.json").read_text())
    for task in ("finetune", "inspect", "eval", "export"):
        main(folder, f"--task_mode={task}")
    output = capsys.readouterr().out
    assert (
        "images: 10 labeled, 5 feedback, 5 validation, 1,277 unlabeled, 250 "
        "test" in output
    )
    assert "4 labels were made wrong" in output
    # 40 labels were chosen; 20 of them are of the first five classes.
    assert len(chosen["indices"]) == 40
    assert sum(label < 5 for label in chosen["labels"]) == 20
    assert len(chosen["wrong"]) == 4
    assert len({*chosen["feedback"], *chosen["validation"]}) == 10
    assert json.loads((tmp_path / "labeled.json").read_text()) == chosen
    accuracies = json.loads((tmp_path / "eval.json").read_text())
    networks = ["student", "student_raw", "teacher", "finetuned"]
    assert list(accuracies) == [*networks, "validation"]
    assert list(accuracies["validation"]) == networks
    printed = [line.split() for line in output.splitlines()]
    for network in networks:
        # Five classes have no top-5.
        row = next(row for row in printed if row[:1] == [network])
        _, test, _, _, validation, _ = row
        assert test == f"{accuracies[network]:.4f}"
        assert validation == f"{accuracies['validation'][network]:.4f}"
    assert "Best on the 5 validation images: " in output


@pytest.mark.long
def test_other_images_do_not_change_the_run(tmp_path, main, capsys):
    """Its settings and its own results stay; those of others stand apart."""
    folder = f"--output_dir={tmp_path}/run"
    main(folder, *TINY, "--method=supervised", "--known_classes=5")
    main(folder, "--task_mode=eval")
    kept = {
        name: (tmp_path / "run" / name).read_text()
        for name in ("hparams.json", "eval.json", "eval_report.json")
    }
    for name in ("0", "4"):
        tiny_folders.write(tmp_path / "new" / name / "a.png", 10)
    others = (
        folder,
        "--task_mode=eval",
        "--eval_dataset=folders",
        f"--eval_dir={tmp_path}/new",
    )
    capsys.readouterr()
    main(*others)
    assert f"On the images in {tmp_path}/new (2), step 4:" in (
        capsys.readouterr().out
    )
    (place,) = (tmp_path / "run/eval_sources").glob("folders_new-*")
    report = json.loads((place / "eval_report.json").read_text())
    assert report["networks"]["student"]["images"] == 2
    for name, content in kept.items():
        assert (tmp_path / "run" / name).read_text() == content
    tiny_folders.write(tmp_path / "new" / "5" / "a.png", 10)
    with pytest.raises(SystemExit, match="has the class '5', which the net"):
        main(*others)
