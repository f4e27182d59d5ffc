"""Variants of the problem, from the command line to the results."""

import json

from tests.integration.main_test import TINY

VARIED = (
    "--known_classes=5",
    "--label_noise=0.2",
    "--num_validation=5",
    "--num_feedback=5",
)


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
    for network in networks:
        test, validation = accuracies[network], accuracies["validation"]
        assert (
            f"{network:12s} {test:.4f}  validation {validation[network]:.4f}\n"
        ) in output
