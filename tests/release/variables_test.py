"""The release's variables in our learners, and ours under its names."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.learners.build import build_model
from meta_pseudo_labels.release import (
    load_release_variables,
    save_release_checkpoint,
)
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.utils.checkpoint_files import CheckpointError
from tests.release.release_learners import (
    SMALL,
    SPEC,
    arrays,
    assert_same,
    learner,
    train,
    trained,
)


class TestNames:
    def test_of_every_recorded_variable(self, reference_dir):
        """Ours are the release's own, slots and averages with them."""
        for method in ("supervised", "uda", "mpl"):
            path = reference_dir / f"{method}_wrn28_1.npz"
            with np.load(path, allow_pickle=False) as trace:
                theirs = {n for n in trace.files if n.startswith("final/")}
            ours = learner(method=method, model_type="wrn-28-1")
            names = {f"final/{n}" for n in arrays(ours, "wrn-28-1")}
            if method == "mpl":  # Its slots were not recorded.
                names = {n for n in names if not n.endswith("/Momentum")}
                names.add("final/cross_entropy_old")  # Not kept here.
            assert names == theirs

    @pytest.mark.long
    def test_of_slots_by_optimizer(self):
        kernel = "model/wrn-10-1/head/dense/kernel"
        for optim_type, slots in (
            ("sgd", []),
            ("momentum", ["Momentum"]),
            ("rmsprop", ["RMSProp", "RMSProp_1"]),
            ("lars", ["LARSOptimizer"]),
        ):
            names = arrays(learner(method="uda", optim_type=optim_type))
            found = [n for n in names if n.startswith(f"{kernel}/")]
            assert found == [f"{kernel}/{slot}" for slot in slots]

    def test_of_two_networks(self):
        names = arrays(
            learner(teacher_model_type="wrn-16-1"), teacher_scope="wrn-16-1"
        )
        assert "teacher/wrn-16-1/block_6/conv_3x3_2/conv2d/kernel" in names
        assert "model/wrn-10-1/block_3/conv_3x3_2/conv2d/kernel" in names
        assert not [n for n in names if n.startswith("ema/teacher")]
        assert not [n for n in names if "seed" in n]

    def test_scope_of_the_large_network(self):
        assert models.release_scope("wrn-28-large") == "wrn-28-135"


class TestRoundTrip:
    @pytest.mark.fast("mpl")
    @pytest.mark.parametrize("method", ["supervised", "uda", "mpl"])
    def test_a_dict_carries_the_whole_state(self, method):
        source = trained(method=method)
        target = learner(method=method, seed=1)
        report = load_release_variables(target, arrays(source))
        assert_same(arrays(target), arrays(source))
        assert not report.missing + report.left_over + report.mismatched
        assert int(target.step) == int(target.optimizer.iterations) == 2

    @pytest.mark.long
    @pytest.mark.parametrize("optim_type", ["momentum", "rmsprop", "lars"])
    def test_a_checkpoint_carries_it_too(self, tmp_path, optim_type):
        # The feedback keeps nothing in slots; without it a step is soon traced.
        plain = optim_type == "momentum"
        settings = {} if plain else {"mpl_feedback": "off"}
        source = trained(optim_type=optim_type, **settings)
        path = tmp_path / "deep" / "ckpt-2"
        save_release_checkpoint(source, path, model_type="wrn-10-1")
        target = learner(seed=1, optim_type=optim_type, **settings)
        report = load_release_variables(target, path)
        assert_same(arrays(target), arrays(source))
        assert not report.missing + report.left_over
        assert int(target.teacher_optimizer.iterations) == 2

    @pytest.mark.long
    def test_training_goes_on_as_if_it_had_not_stopped(self, tmp_path):
        """No variable that matters is without a name."""
        settings = dict(dense_dropout_rate=0.0)  # Seeds are not carried.
        undisturbed = trained(4, **settings)
        path = tmp_path / "ckpt"
        save_release_checkpoint(
            trained(2, **settings), path, model_type="wrn-10-1"
        )
        target = learner(seed=1, **settings)
        load_release_variables(target, path)
        train(target, 2)
        assert_same(arrays(target), arrays(undisturbed))


class TestTF1:
    @pytest.mark.long
    def test_its_own_saver_reads_what_we_write(self, tmp_path):
        source = trained()
        path = str(tmp_path / "ckpt-2")
        names = save_release_checkpoint(source, path, model_type="wrn-10-1")
        values = arrays(source) | {"cross_entropy_old": np.float32(0)}
        assert set(names) == set(values)
        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            variables = {
                name: v1.get_variable(
                    name.replace("/", "."), value.shape, dtype=value.dtype
                )
                for name, value in values.items()
            }
            v1.train.Saver(variables).restore(session, path)
            for name, value in values.items():
                read = session.run(variables[name])
                np.testing.assert_array_equal(read, value, err_msg=name)

    def test_what_its_saver_writes_we_read(self, tmp_path):
        """Under its names, in its step-numbered files, with a global step."""
        values = arrays(trained())
        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            for name, value in values.items():
                with v1.variable_scope(os.path.dirname(name)):
                    v1.get_variable(
                        os.path.basename(name),
                        initializer=tf.constant(value),
                        use_resource=True,
                    )
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(tmp_path / "ckpt"), 2)
        target = learner(seed=1)
        # The folder stands for its latest checkpoint.
        report = load_release_variables(target, tmp_path)
        assert not report.missing + report.left_over
        assert_same(arrays(target), values)


class TestReport:
    def test_what_is_missing_keeps_its_value(self):
        source = {
            name: value
            for name, value in arrays(trained()).items()
            if "teacher" not in name and "Momentum" not in name
        }
        target = learner(seed=1)
        before = arrays(target)
        report = load_release_variables(target, source | {"debug": 1.0})
        assert report.left_over == ("debug",)
        teacher = [n for n in before if n.startswith("teacher/")]
        assert set(teacher) < set(report.missing)
        after = arrays(target)
        for name in report.missing:
            np.testing.assert_array_equal(after[name], before[name])
        assert f"{len(report.matched)} variables read." in str(report)
        assert "Left over, 1: debug." in str(report)

    def test_averages_that_are_missing_start_at_the_weights(self):
        source = {
            name: value
            for name, value in arrays(trained()).items()
            if not name.startswith("ema/")
        }
        target = learner(seed=1)
        load_release_variables(target, source)
        loaded = arrays(target)
        for name in [n for n in loaded if n.startswith("ema/")]:
            np.testing.assert_array_equal(
                loaded[name], loaded[name.removeprefix("ema/")]
            )

    @pytest.mark.long
    def test_other_shapes_are_refused_and_nothing_changes(self):
        target = learner()
        before = arrays(target)
        other = dataclasses.replace(SPEC, num_classes=4, class_names=())
        source = arrays(learner(spec=other))
        with pytest.raises(CheckpointError) as caught:
            load_release_variables(target, source)
        message = str(caught.value)
        assert "head/dense/bias has shape [4], here [10]" in message
        assert "model_type" in message
        assert_same(arrays(target), before)

    @pytest.mark.long
    def test_other_shapes_can_be_left_out(self):
        other = dataclasses.replace(SPEC, num_classes=4, class_names=())
        source = arrays(learner(spec=other))
        target = learner(seed=1)
        bias = target.student.get_layer("head.dense").bias.numpy()
        report = load_release_variables(target, source, skip_mismatched=True)
        assert any("dense/bias" in name for name, _, _ in report.mismatched)
        kernel = "model/wrn-10-1/stem/conv2d/kernel"
        np.testing.assert_array_equal(arrays(target)[kernel], source[kernel])
        after = target.student.get_layer("head.dense").bias.numpy()
        np.testing.assert_array_equal(after, bias)

    def test_another_networks_are_refused(self):
        """A step in common is not enough: it would train on random weights."""
        target = learner()
        before = arrays(target)
        other = {"generator/w": np.zeros(3), "global_step": 300_000}
        with pytest.raises(CheckpointError) as caught:
            load_release_variables(target, other)
        assert "lacks 39 of 39 variables" in str(caught.value)
        assert "It has generator/w" in str(caught.value)
        assert_same(arrays(target), before)

    def test_half_a_student_is_refused(self):
        source = arrays(trained())
        del source["model/wrn-10-1/head/dense/bias"]
        with pytest.raises(CheckpointError, match="lacks 1 of .*head/dense/b"):
            load_release_variables(learner(), source)

    def test_two_students_are_refused(self):
        source = arrays(trained())
        source["model/resnet-50/head/dense/bias"] = np.zeros(10)
        with pytest.raises(CheckpointError, match="resnet-50, wrn-10-1"):
            load_release_variables(learner(), source)


class TestSources:
    def test_a_network_alone_takes_the_averages(self):
        source = arrays(trained())
        config = Config(**SMALL)
        student = build_model(config, SPEC, role="student")
        report = load_release_variables(student, source, prefix="ema/model")
        kernel = student.get_layer("stem.conv2d").kernel.numpy()
        np.testing.assert_array_equal(
            kernel, source["ema/model/wrn-10-1/stem/conv2d/kernel"]
        )
        assert len(report.matched) == len(
            [v for v in student.variables if "float" in v.dtype]
        )

    def test_steps_may_start_again(self):
        target = learner(seed=1)
        load_release_variables(
            target, arrays(trained()), restart_global_step=True
        )
        assert int(target.step) == int(target.optimizer.iterations) == 0

    def test_what_tf1_appends_to_names_is_ignored(self):
        source = arrays(trained())
        target = learner(seed=1)
        renamed = {f"{name}:0": value for name, value in source.items()}
        load_release_variables(target, renamed)
        assert_same(arrays(target), source)

    def test_a_path_without_a_checkpoint_is_named(self, tmp_path):
        with pytest.raises(CheckpointError, match="ckpt-7.index"):
            load_release_variables(learner(), tmp_path / "ckpt-7")
        with pytest.raises(CheckpointError, match="is not a TensorFlow check"):
            load_release_variables(learner(), tmp_path)

    def test_a_damaged_checkpoint_changes_nothing(self, tmp_path):
        path = tmp_path / "ckpt"
        save_release_checkpoint(trained(), path, model_type="wrn-10-1")
        data = tmp_path / "ckpt.data-00000-of-00001"
        data.write_bytes(data.read_bytes()[:1000])
        target = learner(seed=1)
        before = arrays(target)
        with pytest.raises(CheckpointError, match="damaged|cannot be read"):
            load_release_variables(target, path)
        assert_same(arrays(target), before)
