"""A folder as it comes, from the first look to an answer of the export."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from tests import awkward_folders
from tests.command_line import refusal_of
from tests.integration.sources_test import TINY


def flags_of(made, run):
    return (
        "--dataset=folders",
        "--num_labeled=0",
        *(f"--{name}={path}" for name, path in made.settings().items()),
        f"--image_size={awkward_folders.SIZE}",
        f"--output_dir={run}",
    )


@pytest.mark.long
@pytest.mark.parametrize("seed", [4, 11])
def test_all_stages_of_a_folder_as_it_comes(
    main, tmp_path, capfd, caplog, seed
):
    """Each says the same; warnings are errors, those of glyphs among them."""
    made = awkward_folders.make(tmp_path / "photos", seed)
    run, told = tmp_path / "run", {}
    settings = {
        "inspect": (),
        "train": TINY,
        "finetune": ("--finetune_steps=2", "--finetune_lr=0.1"),
        "eval": (),
        "export": (),
        "inference": (
            "--inference_data=folder",
            f"--inference_dir={made.root}/eval",
        ),
    }
    for stage, more in settings.items():
        main(*flags_of(made, run), *more, f"--task_mode={stage}")
        told[stage] = "".join(capfd.readouterr()) + caplog.text
        caplog.clear()
    usable = {
        part: len(made.images(part))
        for part in ("labeled", "unlabeled", "test")
    }
    counts = ", ".join(f"{n} {part}" for part, n in usable.items())
    assert f"images: {counts}" in told["inspect"]
    skipped = made.skipped()
    for stage, text in told.items():
        assert "Traceback" not in text, stage
        if skipped:
            assert ": skipped " in text, stage
        assert text.count("passed over 4 files or folders, hid") >= 3, stage
    found = json.loads((run / "data.json").read_text())
    assert [row["name"] for row in found["classes"]] == made.classes
    assert len(found["passed_over"]) == made.passed_over
    for name in ("views.png", "eval_confusion.png"):
        assert (run / name).stat().st_size > 1_000
    check_served(made, run / "saved_model" / "1")


def check_served(made, path):
    """The export tells of files of the test what it tells of their pixels."""
    signatures = tf.saved_model.load(str(path)).signatures
    images = made.images("test")
    want = signatures["serving_default"](images=tf.constant(images))
    files = [p.data for *_, p in made.test if p.image is not None]
    for number, data in enumerate(files):
        if data[:2] not in (b"\xff\xd8", b"\x89P"):
            continue
        found = signatures["serving_bytes"](encoded=tf.constant([data]))
        np.testing.assert_allclose(
            found["probabilities"][0],
            want["probabilities"][number],
            atol=0.02,  # Of a JPEG Pillow rounds some levels otherwise.
        )
        assert found["labels"][0].numpy().decode() in made.classes


def test_a_linked_test_image_stops_every_stage_that_learns(main, tmp_path):
    made = awkward_folders.make(tmp_path / "photos", 0)
    name = made.unlabeled[0][0]
    target = f"eval/{made.classes[0]}/linked"
    awkward_folders.link(made, f"unlabeled/{name}", target, hard=False)
    for stage in ("inspect", "train", "eval"):
        message = refusal_of(
            main,
            *flags_of(made, tmp_path / "run"),
            *(TINY if stage == "train" else ()),
            f"--task_mode={stage}",
        )
        if stage != "eval":  # Which finds no run first.
            assert "are one file, by a link, so that it would be" in message
        assert len(message.splitlines()) == 1
    assert not os.path.exists(tmp_path / "run" / "checkpoints")
