"""What files are predictions of: others under the same name are refused."""

import json
import os

import pytest

from meta_pseudo_labels.run.inference.sources import ArrayImages
from meta_pseudo_labels.run.stages import predict as run_module
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_folders import write


@pytest.mark.long
def test_other_predictions_under_the_same_name_are_refused(inferring):
    inferring().infer()
    changed = {
        "class_id None, now 3": dict(inference_class_id=3),
        "data test, now unlabeled": dict(inference_data="unlabeled"),
        "weights_digest": dict(inference_network="teacher"),
        "block 1024, now 7": dict(inference_block=7),
    }
    for words, settings in changed.items():
        with pytest.raises(ConfigError, match="is of other predictions") as e:
            inferring(**settings).infer()
        assert words in str(e.value)
    inferring(inference_class_id=3, inference_name="threes").infer()


@pytest.mark.long
def test_files_of_the_same_names_are_other_images(inferring, tmp_path):
    """As those of two cameras; a copy that keeps the times is the same."""
    for camera in ("a", "b", "c"):
        write(tmp_path / camera / "1.png", 9)
        os.utime(tmp_path / camera / "1.png", (1_000, 1_000.5))
    inferring(inference_dir=str(tmp_path / "a")).infer()
    assert not inferring(inference_dir=str(tmp_path / "b")).infer().is_new
    os.utime(tmp_path / "b" / "1.png", (1_000, 2_000))
    write(tmp_path / "c" / "1.png", 9, size=(100, 90))
    os.utime(tmp_path / "c" / "1.png", (1_000, 1_000))
    for camera in ("b", "c"):
        with pytest.raises(ConfigError, match="images_digest"):
            inferring(inference_dir=str(tmp_path / camera)).infer()


def test_of_two_that_began_at_once_one_is_refused(inferring, monkeypatch):
    """Neither found the other's settings; the last one's stay."""
    write_part = run_module.PredictionFiles.write_part

    def meets_another(self, block, table):
        write_part(self, block, table)
        with open(self._settings, "w") as file:
            json.dump({"weights_digest": "of another"}, file)

    monkeypatch.setattr(run_module.PredictionFiles, "write_part", meets_another)
    experiment = inferring()
    with pytest.raises(ConfigError, match="weights_digest of another, now"):
        experiment.infer()
    left = os.listdir(f"{experiment.output_dir}/inference")
    assert not [name for name in left if name.endswith((".csv", ".parquet"))]


def test_unreadable_facts_of_files_are_named(inferring):
    experiment = inferring()
    experiment.infer()
    path = f"{experiment.output_dir}/inference/predictions-of-00001.json"
    for text in ("{", "3"):
        with open(path, "w") as file:
            file.write(text)
        with pytest.raises(ConfigError, match="cannot be read as what its"):
            inferring().infer()


def test_a_finished_one_is_left_alone(inferring, monkeypatch):
    first = inferring().infer()
    monkeypatch.setattr(ArrayImages, "read", None)  # Nothing is read.
    again = inferring().infer()
    assert first.is_new and not again.is_new
    assert (again.csv, again.images) == (first.csv, 500)


def test_files_in_use_are_refused(inferring):
    experiment = inferring()
    parts = f"{experiment.output_dir}/inference/predictions-00000-of-00001"
    with run_module.locked(f"{parts}.parts"):
        with pytest.raises(
            ConfigError,
            match="is in use by process .* name another "
            "--inference_thread_index or --inference_name",
        ):
            inferring().infer()
