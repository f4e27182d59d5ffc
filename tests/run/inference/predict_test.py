"""Predictions: which rows, of which numbers, once each whatever happens."""

import csv
import json
import os
import signal

import numpy as np
import pytest
from pyarrow import parquet

from meta_pseudo_labels import data
from meta_pseudo_labels.evaluation.evaluate import predict_logits
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.inference.sources import ArrayImages
from meta_pseudo_labels.run.stages import predict as run_module
from meta_pseudo_labels.run.stopping import Interrupted
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_folders import write

DIGITS = [f"probability_{digit}" for digit in range(10)]


def softmax(logits):
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def columns(predictions):
    """The Parquet file as a dict of lists; the CSV file must say the same."""
    table = parquet.read_table(predictions.parquet).to_pydict()
    with open(predictions.csv, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == predictions.images
    for name, values in table.items():
        written = [row[name] for row in rows]
        if name.startswith("probability"):
            assert [v and np.float32(v) for v in written] == [
                "" if v is None else np.float32(v) for v in values
            ]
        else:
            assert written == ["" if v is None else str(v) for v in values]
    return table


def probabilities(table):
    return np.stack([table[name] for name in DIGITS], axis=-1)


def test_the_test_images_get_what_evaluation_says(inferring):
    experiment = inferring(inference_block=200)  # Two blocks, one not full.
    predictions = experiment.infer()
    assert (predictions.images, predictions.errors) == (500, 0)
    assert predictions.is_new
    table = columns(predictions)
    assert list(table) == [
        *("image", "class", "class_index", "probability", "error"),
        *DIGITS,
    ]
    assert table["image"] == [f"test/{i}" for i in range(500)]
    logits, _ = predict_logits(
        experiment.trained_learner(), experiment.test_dataset
    )
    want = softmax(logits)
    np.testing.assert_allclose(probabilities(table), want, atol=1e-6)
    assert table["class_index"] == logits.argmax(axis=-1).tolist()
    assert table["class"] == [str(i) for i in table["class_index"]]
    np.testing.assert_allclose(
        table["probability"], want.max(axis=-1), atol=1e-6
    )
    assert set(table["error"]) == {None}
    folder = os.path.dirname(predictions.csv)
    assert sorted(os.listdir(folder)) == [
        "predictions-00000-of-00001.csv",
        "predictions-00000-of-00001.parquet",
        "predictions-of-00001.json",
    ]


def test_shards_have_every_image_once(inferring):
    whole = columns(inferring(inference_name="whole").infer())
    found = {}
    for index in range(3):
        predictions = inferring(
            inference_num_threads=3, inference_thread_index=index
        ).infer()
        assert f"-{index:05d}-of-00003.csv" in predictions.csv
        table = columns(predictions)
        assert table["image"] == [f"test/{i}" for i in range(index, 500, 3)]
        found |= dict(zip(table["image"], probabilities(table), strict=True))
    assert len(found) == 500
    np.testing.assert_allclose(
        [found[name] for name in whole["image"]],
        probabilities(whole),
        atol=1e-6,
    )


def test_more_shards_than_images_leave_empty_files(inferring, tmp_path):
    write(tmp_path / "images" / "a.png", 9)
    predictions = inferring(
        inference_dir=str(tmp_path / "images"),
        inference_num_threads=2,
        inference_thread_index=1,
    ).infer()
    assert predictions.images == 0
    assert list(columns(predictions))[0] == "image"


def test_a_killed_one_goes_on(inferring, monkeypatch):
    """What it had is not done again, and is there once."""
    read, seen = ArrayImages.read, []

    def dies_at_third(self, numbers):
        seen.append(int(numbers[0]))
        if seen[:3] == [0, 100, 200]:
            raise RuntimeError("killed")
        return read(self, numbers)

    settings = dict(inference_block=100)
    whole = columns(inferring(inference_name="whole", **settings).infer())
    monkeypatch.setattr(ArrayImages, "read", dies_at_third)
    with pytest.raises(RuntimeError, match="killed"):
        inferring(**settings).infer()
    folder = f"{inferring().output_dir}/inference"
    parts = f"{folder}/predictions-00000-of-00001.parts"
    assert sorted(os.listdir(parts)) == ["00000000.parquet", "00000001.parquet"]
    # The machine may be lost while a part is written, or right after it.
    with open(f"{parts}/00000001.parquet", "wb"):
        pass
    with open(f"{parts}/00000002.parquet.part", "wb"):
        pass
    seen.clear()
    predictions = inferring(**settings).infer()
    assert seen == [100, 200, 300, 400]
    assert columns(predictions) == whole
    assert not os.path.exists(parts)


def test_a_signal_ends_it_after_a_block(inferring, monkeypatch):
    write_part = run_module.PredictionFiles.write_part

    def and_signal(self, block, table):
        write_part(self, block, table)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run_module.PredictionFiles, "write_part", and_signal)
    with pytest.raises(Interrupted, match="SIGTERM .* 200 of 500 images"):
        inferring(inference_block=200).infer()


def test_logits_that_are_not_finite_predict_nothing(inferring, monkeypatch):
    whole = columns(inferring(inference_name="whole").infer())

    def broken(network, dataset):
        logits, labels = predict_logits(network, dataset)
        logits[[3, 7], 2] = np.nan, np.inf
        return logits, labels

    monkeypatch.setattr(run_module, "predict_logits", broken)
    predictions = inferring().infer()
    assert (predictions.images, predictions.errors) == (500, 2)
    for name, values in columns(predictions).items():
        said = name in ("image", "error")
        for image, (got, want) in enumerate(
            zip(values, whole[name], strict=True)
        ):
            if image not in (3, 7) or name == "image":
                assert got == want
            else:
                assert got == (run_module.NOT_FINITE if said else None)


def test_one_class_has_one_column_and_every_image_a_row(inferring):
    whole = columns(inferring(inference_name="whole").infer())
    table = columns(inferring(inference_class_id=3).infer())
    assert list(table) == [
        *("image", "class", "class_index", "probability", "error"),
        "probability_3",
    ]
    for name, values in table.items():
        assert values == whole[name]
    with pytest.raises(ConfigError, match="class_id=10, but 'digits' has 10"):
        inferring(inference_class_id=10).infer()


def test_an_ensemble_has_the_mean_of_the_probabilities(inferring):
    folder = inferring().output_dir
    paths = [f"{folder}/checkpoints/step-{step}" for step in (2, 4)]
    single = [
        probabilities(
            columns(inferring(inference_ckpt=path, inference_name=n).infer())
        )
        for path, n in zip(paths, "ab", strict=True)
    ]
    assert np.abs(single[0] - single[1]).max() > 1e-4
    together = inferring(inference_ckpt_ensemble=f"{paths[0]}, latest")
    found = probabilities(columns(together.infer()))
    np.testing.assert_allclose(found, (single[0] + single[1]) / 2, atol=1e-7)
    facts = f"{folder}/inference/predictions-of-00001.json"
    with open(facts) as file:
        assert json.load(file)["networks"] == 2


def test_bad_images_have_a_reason_in_place_of_a_prediction(inferring, tmp_path):
    """Gray images of 8 x 8 pixels are shown as they are."""
    folder = tmp_path / "images"
    write(folder / "b.png", 200)
    write(folder / "a" / "c.png", 40)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "a" / "text.png").write_text("no image, but text")
    (folder / ".hidden").write_text("")
    settings = dict(inference_dir=str(folder), inference_block=3)
    experiment = inferring(**settings)
    predictions = experiment.infer()
    assert (predictions.images, predictions.errors) == (4, 2)
    table = columns(predictions)
    assert table["image"] == ["a/c.png", "a/text.png", "b.png", "empty.jpg"]
    assert table["error"][1].startswith("not one of JPEG, PNG")
    assert table["error"][3] == "empty file"
    assert table["error"][0] is table["error"][2] is None
    for name in ("class", "class_index", "probability", *DIGITS):
        assert [v is None for v in table[name]] == [False, True, False, True]
    shades = np.uint8([40, 200])[:, None, None, None]
    spec = experiment.data.spec
    shown = data.normalize(
        np.broadcast_to(shades, [2, 8, 8, 3]), mean=spec.mean, std=spec.std
    )
    logits = experiment.trained_learner()(shown, training=False).numpy()
    np.testing.assert_allclose(
        probabilities(table)[[0, 2]].astype(np.float32),
        softmax(logits),
        atol=1e-6,
    )
    with pytest.raises(ConfigError, match="a/text.png in .*is not a usable"):
        inferring(strict_data=True, inference_name="s", **settings).infer()


def test_the_run_s_other_parts(inferring):
    """There are no validation images here."""
    predictions = inferring(
        inference_data="unlabeled", inference_class_id=0
    ).infer()
    assert predictions.images == 1257
    with pytest.raises(ConfigError, match="'digits' has no validation images"):
        inferring(inference_data="validation").infer()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            dict(inference_data="train"),
            "use one of test, validation, labeled, unlabeled, folder, records, "
            "or tfds:<name>",
        ),
        (dict(inference_data="tfds:"), "is unknown"),
        (dict(inference_data="folder"), "needs --inference_dir"),
        (dict(inference_dir="/absent"), "dir=/absent does not exist"),
        (
            dict(inference_data="records", inference_dir="/absent/x-*"),
            "does not exist",
        ),
        (
            dict(inference_data="test", inference_dir="."),
            "--inference_dir=. would not be read",
        ),
        (
            dict(inference_thread_index=1),
            "must be below --inference_num_threads=1",
        ),
        (dict(inference_num_threads=0), "is too small; at least 1"),
        (dict(inference_name="../x"), "no folders"),
        (dict(inference_network="ema"), "use one of: student, teacher, fine"),
        (
            dict(inference_ckpt="a", inference_ckpt_ensemble="a,b"),
            "are both given",
        ),
        (dict(inference_ckpt_ensemble="a,,b"), "names an empty path"),
    ],
)
def test_settings_that_do_not_fit_are_refused(inferring, settings, words):
    with pytest.raises(ConfigError) as caught:
        inferring(**settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_must_be_there(tmp_path, trained):
    config = trained.config
    settings = dict(task_mode="inference", output_dir=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="does not exist: train there first"):
        Experiment(run_module.dataclasses.replace(config, **settings)).infer()
    assert not list(tmp_path.iterdir())
