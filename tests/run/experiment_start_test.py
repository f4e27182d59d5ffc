"""Where a run starts: afresh, from its own checkpoint, or from another's."""

import dataclasses
import io
import json
import logging
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.release import (
    release_variables,
    save_release_checkpoint,
)
from meta_pseudo_labels.run import devices, experiment
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.run.stopping import Interrupted
from meta_pseudo_labels.utils.checkpoint_files import CheckpointError
from meta_pseudo_labels.utils.settings import ConfigError
from tests.faults import runs
from tests.tiny_folders import write_folders
from tests.tiny_run import rows, tiny, weights


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def steps(config):
    return [row["step"] for row in rows(config) if "eval/accuracy" not in row]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A run's learner after its last step, 4, and its checkpoints by kind."""
    folder = tmp_path_factory.mktemp("ended")
    run = Experiment(tiny(folder / "run"))
    run.train()
    path = str(folder / "ckpt-4")
    save_release_checkpoint(run.learner, path, model_type="mlp")
    own = f"{run.output_dir}/checkpoints"
    return run.learner, {"release": path, "own": own}


class TestLoadCheckpoint:
    @pytest.mark.long
    def test_of_our_own_goes_on_with_everything(self, ended, tmp_path):
        """Four steps more are what eight steps at once would have been."""
        longer = dict(num_train_steps=8)
        path = ended[1]["own"]
        config = tiny(tmp_path / "more", load_checkpoint=path, **longer)
        Experiment(config).train()
        assert steps(config) == [5, 6, 7, 8]
        # The same again, but from the run's own folder.
        resumed = tiny(tmp_path / "resumed", **longer)
        copy_checkpoints(path, resumed.output_dir)
        RunFolder(resumed.output_dir).save_settings(resumed)
        Experiment(resumed).train()
        assert_same_weights(weights(config), weights(resumed))

    @pytest.mark.parametrize("kind", ["release", "own"])
    def test_of_either_kind_gives_all_variables(self, tmp_path, ended, kind):
        learner, paths = ended
        run = Experiment(tiny(tmp_path / "run", load_checkpoint=paths[kind]))
        with pytest.raises(ConfigError, match="is of step 4, and --num_train"):
            run.train()
        assert not os.path.exists(run.output_dir)
        ours, theirs = (
            release_variables(x, scope="mlp") for x in (run.learner, learner)
        )
        assert len(theirs) > 30 and int(theirs["global_step"]) == 4
        for name, variable in theirs.items():
            np.testing.assert_array_equal(ours[name], variable, err_msg=name)

    @pytest.mark.fast("own")
    @pytest.mark.parametrize("kind", ["release", "own"])
    @pytest.mark.long
    def test_may_count_steps_from_0(self, tmp_path, ended, kind):
        learner, paths = ended
        config = tiny(
            tmp_path / "run",
            load_checkpoint=paths[kind],
            load_checkpoint_and_restart_global_step=True,
            num_train_steps=1,
        )
        run = Experiment(config)
        assert run.train()
        assert steps(config) == [1]
        # Step 0 waits, so the student is still the one that was loaded.
        for ours, theirs in zip(
            run.learner.student.get_weights(),
            learner.student.get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)

    @pytest.mark.long
    def test_the_runs_own_checkpoint_comes_first(self, ended, tmp_path):
        """As in the release: the given one is for the first start only."""
        source = tmp_path / "source"
        copy_checkpoints(ended[1]["own"], source)
        config = tiny(
            tmp_path / "run",
            load_checkpoint=f"{source}/checkpoints",
            num_train_steps=6,
        )
        Experiment(config).train()
        for path in (source / "checkpoints").iterdir():
            path.unlink()  # Needed no more.
        assert not Experiment(config).train()
        assert steps(config) == [5, 6]

    def test_a_missing_one_stops_the_run_before_it_begins(self, tmp_path):
        config = tiny(tmp_path / "run", load_checkpoint=str(tmp_path / "nope"))
        with pytest.raises(CheckpointError, match="nope.index"):
            Experiment(config).train()
        assert not os.path.exists(config.output_dir)

    def test_a_run_stands_for_its_latest_checkpoint(self, ended, tmp_path):
        """So does the name of one of the files that make it up."""
        folder = os.path.dirname(ended[1]["own"])
        for number, path in enumerate(
            (folder, f"{folder}/checkpoints/step-4.index")
        ):
            config = tiny(tmp_path / str(number), load_checkpoint=path)
            with pytest.raises(ConfigError, match="is of step 4, and --num_tr"):
                Experiment(config).train()

    def test_a_finished_one_ends_no_other_run(self, ended, tmp_path):
        """One that a reset would have deleted stays as it is, unfinished."""
        config = tiny(tmp_path / "run", num_train_steps=8)
        copy_checkpoints(ended[1]["own"], config.output_dir)
        (tmp_path / "run" / "hparams.json").write_text(config.to_json())
        before = files(tmp_path / "run")
        other = dataclasses.replace(
            config,
            num_train_steps=4,
            load_checkpoint=ended[1]["own"],
            reset_output_dir=True,
        )
        with pytest.raises(ConfigError, match="nothing would be learned"):
            Experiment(other).train()
        assert files(tmp_path / "run") == before

    def test_one_of_another_network_is_refused(self, ended, tmp_path):
        config = tiny(
            tmp_path / "run",
            load_checkpoint=ended[1]["own"],
            model_type="wrn-10-1",
        )
        with pytest.raises(CheckpointError, match="another model"):
            Experiment(config).train()


@pytest.fixture
def finished(ended, tmp_path):
    """A folder with a run that has ended; it may be changed."""
    folder = os.path.dirname(ended[1]["own"])
    return shutil.copytree(folder, tmp_path / "finished")


@pytest.fixture(scope="class")
def replaced(ended, tmp_path_factory):
    """A run that took another's place: `Experiment`, and what it logged."""
    folder = tmp_path_factory.mktemp("replaced") / "run"
    shutil.copytree(os.path.dirname(ended[1]["own"]), folder)
    (folder / "note.txt").write_text("mine")
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    again = Experiment(tiny(folder, uda_weight=2.0, reset_output_dir=True))
    assert again.train()
    logging.getLogger().removeHandler(handler)
    return again, said.getvalue()


class TestReset:
    @pytest.mark.long
    def test_begins_again_under_other_settings(self, ended, replaced):
        folder = pathlib.Path(replaced[0].output_dir)
        assert steps(replaced[0].config) == [1, 2, 3, 4]
        assert (folder / "note.txt").read_text() == "mine"
        before = json.loads(
            pathlib.Path(ended[1]["own"]).with_name("hparams.json").read_text()
        )
        assert RunFolder(folder).settings()["uda_weight"] == 2.0
        assert before["uda_weight"] != 2.0

    def test_leaves_a_run_alone_that_cannot_be_replaced(self, finished):
        """Bad labels and checkpoints are found before anything is deleted."""
        before = files(finished)
        for settings, error in (
            (dict(num_labeled=41), ConfigError),
            (dict(load_checkpoint=f"{finished}-nope"), CheckpointError),
        ):
            config = tiny(finished, reset_output_dir=True, **settings)
            with pytest.raises(error):
                Experiment(config).train()
            assert files(finished) == before

    def test_happens_once(self, replaced):
        """Training again with the same object does not undo the first."""
        before = files(replaced[0].output_dir)
        assert not replaced[0].train()
        assert files(replaced[0].output_dir) == before

    def test_is_not_remembered(self, replaced):
        """A later stage still refuses what is not its run."""
        folder = replaced[0].output_dir
        assert not RunFolder(folder).settings()["reset_output_dir"]
        for settings in (dict(seed=7), dict(reset_output_dir=True, seed=7)):
            settings |= dict(uda_weight=2.0, task_mode="finetune")
            with pytest.raises(ConfigError, match="seed was 0, is now 7"):
                Experiment(tiny(folder, **settings))

    def test_does_not_delete_what_it_is_to_load(self, finished):
        before = files(finished)
        config = tiny(
            finished, reset_output_dir=True, load_checkpoint=str(finished)
        )
        with pytest.raises(ConfigError, match="name another --output_dir"):
            Experiment(config).train()
        assert files(finished) == before

    def test_says_what_it_deletes(self, replaced):
        assert "with step-4" in replaced[1]
        assert "--noreset_output_dir" in replaced[1]

    def test_spares_a_folder_of_others(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("years")
        with pytest.raises(ConfigError, match="nothing was deleted"):
            Experiment(tiny(tmp_path, reset_output_dir=True)).train()
        assert (tmp_path / "thesis.tex").read_text() == "years"


class TestOtherSettings:
    @pytest.mark.long
    @pytest.mark.parametrize(
        "settings",
        [
            # Not mpl: a processor computes bfloat16 very slowly.
            dict(method="uda", use_bfloat16=True, model_type="wrn-10-1"),
            dict(method="supervised", use_augment=True, num_labeled=0),
            dict(optim_type="rmsprop", image_size=12),
            dict(optim_type="lars", mpl_feedback="reinforce"),
            pytest.param(
                dict(
                    method="supervised",
                    model_type="efficientnet-bs",
                    stochastic_depth_drop_rate=0.5,
                ),
                marks=pytest.mark.long,
            ),
        ],
    )
    def test_reach_the_run(self, tmp_path, settings):
        config = tiny(tmp_path, num_train_steps=2, **settings)
        experiment = Experiment(config)
        experiment.train()
        assert all(
            np.isfinite(value) for row in rows(config) for value in row.values()
        )
        learner, data = experiment.learner, experiment.data
        bfloat16 = settings.get("use_bfloat16", False)
        assert ("bfloat16" in learner.student.layers[1].compute_dtype) is (
            bfloat16
        )
        assert learner.student.trainable_variables[0].dtype == "float32"
        assert data.spec.image_size == settings.get("image_size", 8)
        labels = 1297 if "num_labeled" in settings else 40
        assert len(data.labeled_labels) == labels


def copy_checkpoints(folder, to):
    source = pathlib.Path(folder)
    target = pathlib.Path(to) / "checkpoints"
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def files(folder):
    """Every file below a folder, with its content."""
    return {
        str(path): path.read_bytes()
        for path in pathlib.Path(folder).rglob("*")
        if path.is_file()
    }


def test_devices_are_set_up_before_the_data_are_read(tmp_path, monkeypatch):
    """Reading folders runs TensorFlow, after which its devices are fixed."""
    order = []

    def note(name):
        function = getattr(experiment, name)

        def noted(*given):
            order.append(name)
            return function(*given)

        monkeypatch.setattr(experiment, name, noted)

    note("training_strategy")
    note("load_data")
    Experiment(tiny(tmp_path / "run")).train()
    assert order == ["training_strategy", "load_data"]


@pytest.mark.long
def test_replicas_share_the_processor_for_folders_too(tmp_path):
    write_folders(tmp_path)
    process = runs.start(
        tmp_path / "run",
        *("--dataset=folders", "--image_size=8", "--num_validation=0"),
        *(f"--labeled_dir={tmp_path}/labeled", "--num_labeled=0"),
        *(f"--unlabeled_dir={tmp_path}/unlabeled", "--train_batch_size=4"),
        *("--model_type=mlp", "--num_train_steps=10", "--log_every=10"),
        *("--distribution=mirrored", "--replicas_per_worker=2"),
    )
    assert process.wait(timeout=300) == 0, runs.said(tmp_path / "run")
    assert "2 CPU replicas" in runs.said(tmp_path / "run")


def test_a_worker_lost_before_any_step_is_told_of_like_one_lost_later(
    tmp_path, monkeypatch
):
    def lose(*given, **settings):
        raise tf.errors.UnavailableError(None, None, "no partner")

    monkeypatch.setattr(devices, "is_multi_worker", lambda strategy: True)
    monkeypatch.setattr(experiment, "build_learner", lose)
    with pytest.raises(Interrupted, match="The workers lost one another"):
        Experiment(tiny(tmp_path / "run")).devices()
