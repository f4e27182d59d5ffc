"""Labels of a fixed teacher: from the run that trained it to its student's."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.learners import PseudoLabels, ReducedMPL
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.teacher_labels import (
    load_teacher_labels,
    save_teacher_labels,
)
from meta_pseudo_labels.utils.settings import ConfigError
from tests.run.resume_test import train_and_kill
from tests.tiny_run import rows, tiny, weights


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The experiment of a trained run with its labels cached."""
    config = tiny(
        tmp_path_factory.mktemp("teacher") / "run",
        method="supervised",
        num_train_steps=2,
    )
    experiment = Experiment(config)
    experiment.train()
    experiment.cache_labels()
    return experiment


@pytest.fixture
def moved(teacher, tmp_path):
    """The teacher's folder, a copy that tests may change."""
    folder = tmp_path / "teacher"
    shutil.copytree(teacher.output_dir, folder)
    return folder


def student(folder, teacher_labels, **settings):
    settings = dict(method="mpl", mpl_label_temp=1.0) | settings
    return tiny(folder, teacher_labels=str(teacher_labels), **settings)


def test_they_are_what_the_exported_student_says(teacher):
    """Its average, in inference mode, on images that are not augmented."""
    images = teacher.data
    found = load_teacher_labels(
        student("elsewhere", teacher.output_dir), images
    )
    for part in ("labeled", "unlabeled"):
        pixels = getattr(images, f"{part}_images")
        inputs = data.normalize(
            pixels, mean=images.spec.mean, std=images.spec.std
        )
        want = tf.nn.softmax(teacher.learner(inputs))
        np.testing.assert_allclose(getattr(found, part), want, atol=1e-5)
    assert found.unlabeled.shape == (1257, 10)
    assert found.source["model_type"] == "mlp"


@pytest.mark.parametrize(
    "settings", [dict(inference_ckpt="best"), dict(inference_ckpt_ensemble="a")]
)
def test_they_are_of_one_checkpoint_which_inference_does_not_choose(
    teacher, settings
):
    config = dataclasses.replace(teacher.config, **settings)
    with pytest.raises(ConfigError, match="by --from_checkpoint"):
        Experiment(config).cache_labels()


def test_finetuning_makes_them_stale_and_changes_them(teacher, moved, tmp_path):
    config = student(tmp_path / "run", moved)
    before = load_teacher_labels(config, teacher.data)
    experiment = Experiment(
        dataclasses.replace(teacher.config, output_dir=str(moved))
    )
    experiment.finetune()
    for path in (moved, moved / "class_distributions.npz"):
        with pytest.raises(ConfigError, match="finetuned since its labels"):
            load_teacher_labels(
                dataclasses.replace(config, teacher_labels=str(path)),
                teacher.data,
            )
    experiment.cache_labels()
    after = load_teacher_labels(config, teacher.data)
    assert np.abs(after.unlabeled - before.unlabeled).max() > 1e-4
    assert after.source["weights"] != before.source["weights"]


@pytest.mark.fast("path")
@pytest.mark.parametrize("wanted", ["best", "path"])
def test_labels_of_an_earlier_checkpoint_are_stale_without_it(tmp_path, wanted):
    """The latest one stays as it was, and so does what was finetuned of it."""
    folder = tmp_path / "teacher"
    config = tiny(folder, method="supervised", finetune_steps=1)
    Experiment(config).train()
    (folder / "best").mkdir()
    for file in (folder / "checkpoints").glob("step-2.*"):
        shutil.copy(file, folder / "best")
    chosen = "best" if wanted == "best" else str(folder / "best" / "step-2")
    teacher = Experiment(dataclasses.replace(config, from_checkpoint=chosen))
    teacher.finetune()
    teacher.cache_labels()
    settings = student(tmp_path / "run", folder)
    load_teacher_labels(settings, teacher.data)
    again = dataclasses.replace(
        teacher.config, finetune_lr=0.5, allow_hparam_change=True
    )
    Experiment(again).finetune()
    with pytest.raises(ConfigError, match="finetuned since its labels"):
        load_teacher_labels(settings, teacher.data)


def test_a_file_alone_is_enough(teacher, moved, tmp_path):
    """Without the run there is nothing that it could be behind."""
    alone = tmp_path / "labels.npz"
    shutil.move(moved / "class_distributions.npz", alone)
    load_teacher_labels(student(tmp_path / "run", alone), teacher.data)
    with pytest.raises(ConfigError, match="There is no .*cache_labels"):
        load_teacher_labels(student(tmp_path / "run", moved), teacher.data)


@pytest.fixture(scope="module")
def sure(teacher, tmp_path_factory):
    """The file of a second teacher, which is certain of class 3."""
    path = tmp_path_factory.mktemp("sure") / "sure.npz"
    images = teacher.data
    rows = np.eye(10, dtype="float32")[[3]]
    sure = data.ClassDistributions(
        labeled=np.repeat(rows, len(images.labeled_images), axis=0),
        unlabeled=np.repeat(rows, len(images.unlabeled_images), axis=0),
        source={"model_type": "oracle"},
    )
    data.save_class_distributions(sure, path, data=images)
    return path


def test_several_teachers_say_what_they_say_on_average(teacher, sure, tmp_path):
    found, again, alone, other = (
        load_teacher_labels(student(tmp_path / "run", path), teacher.data)
        for path in (
            f"{teacher.output_dir}, {sure}",
            f"{sure},{teacher.output_dir}",
            *(teacher.output_dir, sure),
        )
    )
    for part in ("labeled", "unlabeled"):
        want = (getattr(alone, part) + np.eye(10)[3]) / 2  # By hand.
        np.testing.assert_allclose(getattr(found, part), want, atol=1e-7)
        assert getattr(found, part).dtype == np.float32
    sources = found.source["mean_of"]
    assert alone.source in sources and other.source in sources
    assert len(sources) == 2
    assert found.digest == again.digest not in (alone.digest, other.digest)


def test_means_are_of_different_teachers_of_the_same_images():
    def of(*rows):
        rows = np.array(rows, "float32")
        return data.ClassDistributions(labeled=rows, unlabeled=rows)

    parts = of([0.1, 0.9]), of([0.7, 0.3]), of([0.3, 0.7])
    orders = [parts, parts[::-1], parts[1:] + parts[:1]]
    means = [data.mean_distributions(order) for order in orders]
    assert len({mean.digest for mean in means}) == 1
    np.testing.assert_allclose(means[0].labeled, [[11 / 30, 19 / 30]])
    for several, message in (
        ((), "at least one"),
        ((parts[0], of([0.1, 0.9])), "predict the same for every image"),
        ((parts[0], of([0.1, 0.9], [1, 0])), "got the shapes .*1, 2.*2, 2"),
    ):
        with pytest.raises(ValueError, match=message):
            data.mean_distributions(several)


def test_a_student_of_several_goes_on_with_them_only(teacher, sure, tmp_path):
    def going_on(paths, **settings):
        return Experiment(student(tmp_path / "run", paths, **settings)).train()

    both = f"{teacher.output_dir},{sure}"
    assert going_on(both, num_train_steps=1)
    longer = dict(num_train_steps=2, allow_hparam_change=True)
    with pytest.raises(ConfigError, match="has other labels than when"):
        going_on(teacher.output_dir, **longer)
    assert going_on(f"{sure},{teacher.output_dir}", **longer)


def test_a_finished_student_is_not_taken_for_one_of_other_teachers(
    teacher, sure, moved, tmp_path
):
    def train(path):
        config = student(tmp_path / "run", path, num_train_steps=1)
        return Experiment(config).train()

    assert train(moved)
    with pytest.raises(ConfigError, match="has other labels than when"):
        train(f"{moved},{sure}")
    assert not train(moved)  # It was trained already.
    # Whatever became of its teacher.
    (moved / "class_distributions.npz").unlink()
    assert not train(moved)
    shutil.rmtree(moved)
    assert not train(moved)


def test_each_of_several_teachers_is_checked(teacher, sure, moved, tmp_path):
    def load(*paths):
        config = student(tmp_path / "run", ",".join(map(str, paths)))
        return load_teacher_labels(config, teacher.data)

    load(sure, moved)
    for paths, message in (
        ((sure, tmp_path / "absent"), "There is no .*absent"),
        ((sure, tmp_path / "run" / "x.npz"), "x.npz is in --output_dir"),
        ((teacher.output_dir, moved), "name each once"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(*paths)
    with pytest.raises(ConfigError, match="an empty path.*single commas"):
        student(tmp_path / "run", f"{sure},")
    Experiment(
        dataclasses.replace(teacher.config, output_dir=str(moved))
    ).finetune()
    with pytest.raises(ConfigError, match="finetuned since its labels"):
        load(sure, moved)


def test_other_labeled_images_are_refused(teacher, tmp_path):
    """Before anything is written."""
    config = student(tmp_path / "run", teacher.output_dir, seed=1)
    with pytest.raises(ConfigError, match="was made for other data"):
        Experiment(config).train()
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_in_the_run_s_own_folder_is_refused(teacher):
    """Which --reset_output_dir would delete with it."""
    for path in (teacher.output_dir, f"{teacher.output_dir}/labels.npz"):
        config = student(teacher.output_dir, path, reset_output_dir=True)
        with pytest.raises(ConfigError, match="is in --output_dir: the teach"):
            Experiment(config).train()
    assert weights(teacher.config)


def test_a_run_goes_on_with_its_labels_only(teacher, tmp_path):
    config = student(tmp_path, teacher.output_dir)
    found = load_teacher_labels(config, teacher.data)  # It has not begun.
    save_teacher_labels(config, found)
    load_teacher_labels(config, teacher.data)
    content = json.loads((tmp_path / "teacher_labels.json").read_text())
    assert content == {"digest": found.digest, "source": found.source}
    other = dataclasses.replace(found, unlabeled=found.unlabeled[::-1])
    save_teacher_labels(config, other)
    with pytest.raises(ConfigError, match="has other labels than when"):
        load_teacher_labels(config, teacher.data)
    load_teacher_labels(config, teacher.data, fresh=True)
    (tmp_path / "teacher_labels.json").write_text("{}")
    with pytest.raises(
        ConfigError, match="cannot be read as the teacher labels"
    ):
        load_teacher_labels(config, teacher.data)


def test_runs_without_a_teacher_have_no_such_file(tmp_path):
    config = tiny(tmp_path, method="supervised")
    assert load_teacher_labels(config, None) is None
    save_teacher_labels(config, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_killed_reduced_run_goes_on_bit_for_bit(
    teacher, moved, tmp_path, monkeypatch
):
    """Also after its teacher has moved."""
    whole = student(tmp_path / "whole", teacher.output_dir)
    Experiment(whole).train()
    killed = student(tmp_path / "killed", teacher.output_dir)
    train_and_kill(killed, monkeypatch)
    experiment = Experiment(
        dataclasses.replace(killed, teacher_labels=str(moved))
    )
    assert experiment.train()
    assert isinstance(experiment.learner, ReducedMPL)
    want, got = weights(whole), weights(killed)
    assert want.keys() == got.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.long
def test_finetuning_the_teacher_does_not_lock_a_run_out(
    teacher, moved, tmp_path, monkeypatch
):
    """It goes on with what it began with; another may not begin with that."""
    config = student(tmp_path / "run", moved)
    train_and_kill(config, monkeypatch)
    Experiment(
        dataclasses.replace(teacher.config, output_dir=str(moved))
    ).finetune()
    other = dataclasses.replace(config, output_dir=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="finetuned since its labels"):
        Experiment(other).train()
    assert Experiment(config).train()
    with pytest.raises(ConfigError, match="finetuned since its labels"):
        load_teacher_labels(config, teacher.data, fresh=True)


@pytest.mark.long
def test_a_reduced_teacher_is_not_evaluated(teacher, tmp_path):
    """Nor needed after training."""
    config = student(tmp_path / "run", teacher.output_dir, num_train_steps=1)
    Experiment(config).train()
    assert "cross_entropy/student_on_l_old" in rows(config)[0]  # It is heard.
    gone = str(tmp_path / "gone")
    later = Experiment(
        dataclasses.replace(config, teacher_labels=gone, task_mode="eval")
    )
    later.finetune()
    assert list(later.evaluate()) == ["student", "student_raw", "finetuned"]
    later.export()


def test_the_control_learns_from_them(teacher, tmp_path):
    config = student(
        tmp_path / "run",
        teacher.output_dir,
        method="pseudo_labels",
        mpl_pseudo_labels="soft",
        mpl_label_temp=0.5,
        num_train_steps=1,
    )
    experiment = Experiment(config)
    experiment.train()
    learner = experiment.learner
    assert isinstance(learner, PseudoLabels)
    assert (learner.label_kind, learner.label_temperature) == ("soft", 0.5)
    assert rows(config)[0]["pseudo_labels/cross_entropy"] > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            dict(method="pseudo_labels", teacher_labels=None),
            "needs --teacher_labels=<folder of the run.*mpl cache_labels "
            "--output_dir=<that folder>",
        ),
        (dict(method="uda"), "--method=uda has no teacher"),
        (dict(method="supervised"), "--method=supervised has no teacher"),
        (
            dict(teacher_model_type="wrn-28-2"),
            "--teacher_model_type=wrn-28-2: with --teacher_labels the teacher",
        ),
        (dict(teacher_model_type="mlp-1-128"), "a small perceptron"),
        (
            dict(method="pseudo_labels", mpl_pseudo_labels="firm"),
            "--mpl_pseudo_labels=firm is unknown",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        tiny(tmp_path, **dict(method="mpl", teacher_labels="x") | settings)


def test_all_kinds_of_labels_suit_the_control(tmp_path):
    """Which feedback goes with them is not asked."""
    for kind in ("hard", "soft", "sampled"):
        student(tmp_path, "x", method="pseudo_labels", mpl_pseudo_labels=kind)
