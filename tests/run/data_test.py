"""A run's images by its settings; that it goes on with the same labels."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from meta_pseudo_labels import data
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.data import load_data, training_batches
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.run.labeled_choice import (
    as_trained,
    check_choice_of_labels,
    save_choice_of_labels,
)
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_folders import run_settings, write, write_folders
from tests.tiny_run import tiny

VARIED = dict(
    known_classes=5, label_noise=0.2, num_validation=5, num_feedback=5
)


@pytest.fixture
def run(tmp_path):
    """A run's settings and images; its folder holds its labeled.json."""
    config = Config(output_dir=str(tmp_path))
    images = data.load("digits", num_labeled=40, seed=0)
    save_choice_of_labels(config, images)
    return config, images


def test_the_file_names_the_images_and_stays(run, tmp_path):
    config, images = run
    path = tmp_path / "labeled.json"
    content = path.read_text()
    assert json.loads(content)["indices"] == images.labeled_indices.tolist()
    check_choice_of_labels(config, images)
    assert path.read_text() == content
    assert [file.name for file in tmp_path.iterdir()] == ["labeled.json"]


def test_views_are_shifted_as_the_settings_say(tmp_path):
    settings = dict(
        output_dir=str(tmp_path),
        dataset="digits",
        method="supervised",
        train_batch_size=40,
    )
    images = data.load("digits", num_labeled=40, seed=0)
    spec = images.spec
    whole = data.normalize(images.labeled_images, mean=spec.mean, std=spec.std)
    whole = {image.tobytes() for image in whole.numpy()}
    for padding, same in ((0, True), (None, False)):
        config = Config(**settings, crop_padding=padding)
        batches = training_batches(config, images, start_step=0)
        labeled = next(iter(batches))["labeled"].numpy()
        assert ({image.tobytes() for image in labeled} == whole) == same


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"crop_padding": 0}, "--crop_padding=0"),
        ({"alternate_flips": True}, "--alternate_flips"),
        ({"label_sampling": "balanced"}, "--label_sampling=balanced"),
    ],
)
def test_what_images_in_files_do_not_have_is_refused(settings, flag):
    Config().check_images_in_files("mine")
    with pytest.raises(ConfigError, match=f"{flag} .*'mine' .* leave it out"):
        Config(**settings).check_images_in_files("mine")


def test_a_run_without_the_file_is_not_refused(run, tmp_path):
    """As one that was trained before there was such a file."""
    (tmp_path / "labeled.json").unlink()
    check_choice_of_labels(*run)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", ["labeled_indices", "labeled_labels"])
def test_other_images_are_refused(run, tmp_path, field):
    """Also other labels of the same numbers."""
    config, images = run
    path = tmp_path / "labeled.json"
    content = path.read_text()
    other = getattr(images, field).copy()
    other[0] += 1
    changed = dataclasses.replace(images, **{field: other})
    with pytest.raises(ConfigError, match="names other labeled images"):
        check_choice_of_labels(config, changed)
    assert path.read_text() == content


@pytest.mark.parametrize(
    "how", [dict(seed=1), dict(label_subset="runs/a/labeled.json")]
)
def test_the_same_images_chosen_in_another_way_go_on(run, how, caplog):
    """A file under another path, or a seed that draws nothing."""
    config, images = run
    again = dataclasses.replace(images, **how)
    check_choice_of_labels(config, again)
    as_trained(config, again)
    assert "names other labeled images" not in caplog.text


def brighter(images, part):
    """The images with one pixel of a part changed by one level."""
    changed = getattr(images, part).copy()
    changed[-1, 0, 0, 0] += 1
    return dataclasses.replace(images, **{part: changed})


@pytest.mark.parametrize("part", ["labeled_images", "unlabeled_images"])
def test_images_with_other_pixels_are_not_learned_from(run, part):
    config, images = run
    changed = brighter(images, part)
    with pytest.raises(ConfigError, match="written for images with other pix"):
        check_choice_of_labels(config, changed)
    check_choice_of_labels(config, changed, learns=False)


def test_one_image_less_is_noticed(run):
    config, images = run
    fewer = dataclasses.replace(
        images, unlabeled_images=images.unlabeled_images[1:]
    )
    with pytest.raises(ConfigError, match="written for images with other pix"):
        check_choice_of_labels(config, fewer)


def test_other_test_images_are_no_other_data(run):
    config, images = run
    check_choice_of_labels(config, brighter(images, "test_images"))


@pytest.mark.parametrize("key", ["mean", "std"])
@pytest.mark.parametrize("learns", [True, False])
def test_another_normalisation_is_refused(run, key, learns):
    config, images = run
    first, *rest = getattr(images.spec, key)
    spec = dataclasses.replace(images.spec, **{key: (first + 1e-4, *rest)})
    changed = dataclasses.replace(images, spec=spec)
    with pytest.raises(ConfigError, match=f"The {key} by which the run in"):
        check_choice_of_labels(config, changed, learns=learns)
    # But not what another processor may make of a sum.
    spec = dataclasses.replace(images.spec, **{key: (first + 1e-9, *rest)})
    same = dataclasses.replace(images, spec=spec)
    check_choice_of_labels(config, same, learns=learns)


@pytest.mark.parametrize("learns", [True, False])
def test_other_names_of_classes_are_refused(run, learns):
    """A renamed folder gives all classes other numbers."""
    config, images = run
    *names, last = images.spec.class_names
    spec = dataclasses.replace(images.spec, class_names=(last, *names))
    changed = dataclasses.replace(images, spec=spec)
    with pytest.raises(ConfigError, match="classes 0, 1.* now are 9, 0, 1"):
        check_choice_of_labels(config, changed, learns=learns)


def test_a_file_of_old_tells_less(run, tmp_path):
    """It holds the choice alone, and gets the rest when the run goes on."""
    config, images = run
    path = tmp_path / "labeled.json"
    content = json.loads(path.read_text())
    old = {key: content[key] for key in data.labeled_choice(images)}
    facts = {"fingerprint", "class_names", "mean", "std"}
    assert content.keys() - old.keys() == facts
    path.write_text(json.dumps(old))
    check_choice_of_labels(config, brighter(images, "labeled_images"))
    save_choice_of_labels(config, images)
    assert json.loads(path.read_text()) == content


def test_test_images_that_chose_must_stay(tmp_path):
    """Accuracies on other ones could not be compared with those before."""
    config = Config(output_dir=str(tmp_path), best_on="test")
    images = data.load("digits", num_labeled=40, seed=0)
    save_choice_of_labels(config, images)
    check_choice_of_labels(config, images, trains=True)
    others = dataclasses.replace(
        images,
        test_images=images.test_images[:9],
        test_labels=images.test_labels[:9],
    )
    with pytest.raises(ConfigError, match="other test images.*--best_on=test"):
        check_choice_of_labels(config, others, trains=True)
    check_choice_of_labels(config, others)  # Finetuning judges by none.
    chosen_otherwise = dataclasses.replace(config, best_on="validation")
    check_choice_of_labels(chosen_otherwise, others, trains=True)


@pytest.mark.parametrize("text", ["", "{", "\0", "[]", "3"])
def test_a_file_that_cannot_be_read_is_named(run, tmp_path, text):
    config, images = run
    path = tmp_path / "labeled.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{path} cannot be read as"):
        check_choice_of_labels(config, images)
    assert path.read_text() == text


def test_settings_vary_the_problem():
    """Of 40 digits 20 are below five: 4 labels become wrong, 10 are kept."""
    images = load_data(Config(**VARIED))
    assert images.spec.num_classes == 5
    assert len(images.spec.class_names) == 5
    assert len(images.labeled_images) == 10
    assert len(images.validation_images) == len(images.feedback_images) == 5
    # 1,257 were unlabeled, 20 lost their label.
    assert len(images.unlabeled_images) == 1277
    assert len(images.test_images) == 250
    assert len(images.chosen.changes["wrong"]) == 4


def test_defaults_vary_nothing():
    images = load_data(Config())
    assert images.chosen is None
    assert images.feedback_images is images.validation_images is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(known_classes=11), "known_classes is 11; give 2 to 10"),
        (dict(label_noise=0.01), "label_noise is 0.01 of 40 labeled images"),
        (dict(num_feedback=31), "num_feedback is 31; of 40 labeled .* 1 to 30"),
        (
            dict(num_validation=20, num_feedback=11),
            "num_feedback is 11; of 20 labeled images 1 to 10",
        ),
    ],
)
def test_variants_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_data(Config(**settings))


def test_a_run_goes_on_with_the_same_splits(tmp_path):
    config = Config(output_dir=str(tmp_path), **VARIED)
    images = load_data(config)
    save_choice_of_labels(config, images)
    again = load_data(config)
    check_choice_of_labels(config, again)
    for name in ("labeled", "feedback", "validation"):
        for kind in ("images", "labels"):
            np.testing.assert_array_equal(
                getattr(again, f"{name}_{kind}"),
                getattr(images, f"{name}_{kind}"),
            )
    for change in (dict(num_feedback=4), dict(label_noise=0.4)):
        other = load_data(dataclasses.replace(config, **change))
        with pytest.raises(ConfigError, match="names other labeled images"):
            check_choice_of_labels(config, other)


@pytest.mark.long
def test_batches_with_feedback_go_on_from_a_step():
    config = Config(train_batch_size=8, uda_data=1, **VARIED)
    whole = training_batches(config, load_data(config), start_step=0)
    tail = training_batches(config, load_data(config), start_step=2)
    *_, want = whole.take(3).as_numpy_iterator()
    (got,) = tail.take(1).as_numpy_iterator()
    assert got["feedback"].shape == (8, 8, 8, 3)
    assert got.keys() == want.keys()
    for key in want:
        np.testing.assert_array_equal(got[key], want[key], err_msg=key)


def test_validation_images_are_ready(tmp_path):
    config = Config(output_dir=str(tmp_path), **VARIED, eval_batch_size=3)
    dataset = Experiment(config).validation_dataset
    labels = [y for _, ys in dataset.as_numpy_iterator() for y in ys]
    assert labels == load_data(config).validation_labels.tolist()
    plain = dataclasses.replace(config, num_validation=0)
    assert Experiment(plain).validation_dataset is None


@pytest.mark.parametrize(
    "change",
    [
        dict(mean="x"),
        dict(std=[[1], [2, 3]]),
        dict(mean=[1, 2]),
        dict(mean={"a": 1}),
        dict(std=10**400),
        dict(class_names=3),
        dict(class_names=[["a"], {}]),
        dict(class_names=[1, 2]),
        dict(fingerprint=[1]),
        dict(names=[1]),
        dict(indices={"a": 1}),
        dict(indices=10**30),
    ],
    ids=str,
)
def test_facts_of_other_types_are_refused(run, tmp_path, change):
    path = tmp_path / "labeled.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError) as caught:
        check_choice_of_labels(*run)
    assert "train in another --output_dir" in str(caught.value)


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "null", "3", "{"])
def test_a_choice_that_is_none_is_refused(run, tmp_path, content):
    (tmp_path / "labeled.json").write_text(content)
    with pytest.raises(ConfigError, match="cannot be read as the run's choice"):
        check_choice_of_labels(*run)
    with pytest.raises(ValueError, match="no labeled indices"):
        data.load(
            "digits",
            num_labeled=40,
            seed=0,
            label_subset=str(tmp_path / "labeled.json"),
        )


@pytest.mark.long
def test_balanced_classes_weigh_alike_in_what_is_learned(tmp_path):
    """Also the labels of a held-out split, by the same weights."""
    config = Config(
        class_weight="balanced",
        train_batch_size=8,
        num_labeled=400,
        num_feedback=20,
        output_dir=str(tmp_path),
    )
    images = load_data(config)
    labels = np.where(images.labeled_labels < 9, 0, 1)  # 9 to 1, or so.
    images = dataclasses.replace(images, labeled_labels=labels)
    batch = next(
        training_batches(config, images, start_step=0).as_numpy_iterator()
    )
    counts = np.bincount(labels)
    weights = len(labels) / (2 * counts)
    assert weights[1] > 4 > 1 > weights[0]
    np.testing.assert_allclose(
        batch["sample_weight"], weights[batch["labels"]], rtol=1e-6
    )
    assert batch["feedback_sample_weight"].shape == (
        batch["feedback_labels"].shape
    )
    plain = dataclasses.replace(config, class_weight=None)
    batch = next(
        training_batches(plain, images, start_step=0).as_numpy_iterator()
    )
    assert not any(key.endswith("sample_weight") for key in batch)


def test_balanced_sampling_reaches_training_batches():
    config = Config(
        method="supervised",
        label_sampling="balanced",
        train_batch_size=8,
        num_labeled=100,
    )
    images = load_data(config)
    images = dataclasses.replace(
        images, labeled_labels=np.where(images.labeled_labels < 9, 0, 1)
    )
    batches = training_batches(config, images, start_step=0)
    batch = next(batches.as_numpy_iterator())
    assert sorted(batch["labels"]) == [0] * 4 + [1] * 4


@pytest.mark.parametrize("flag", ["label_sampling", "class_weight"])
def test_balance_needs_labels_that_are_known(flag):
    config = Config(**{flag: "balanced"})
    in_files = data.ShardedData(
        spec=data.DATASETS["imagenet2012"],
        labeled_images=[None],
        unlabeled_images=[],
        test_images=[],
    )
    with pytest.raises(ConfigError, match=f"--{flag}=balanced needs to know"):
        load_data(config, in_files)


def test_uneven_classes_are_made_up_for_once():
    with pytest.raises(ConfigError, match="each compensate for uneven cla"):
        Config(label_sampling="balanced", class_weight="balanced")


@pytest.fixture
def folders(tmp_path):
    """A run on files, six of them labeled; it has not been trained."""
    write_folders(tmp_path)
    config = Config(
        output_dir=str(tmp_path / "run"),
        **run_settings(tmp_path),
        num_labeled=0,
    )
    images = load_data(config)
    (tmp_path / "run").mkdir()
    save_choice_of_labels(config, images)
    RunFolder(config.output_dir).save_settings(config)
    return config, images, tmp_path / "labeled"


def change(labeled, what):
    if what == "no longer":
        (labeled / "bee" / "1.png").unlink()
    else:
        write(labeled / "bee" / "2.png", 19)
    return load_count(labeled)


def load_count(labeled):
    return len(list(labeled.rglob("*.png")))


@pytest.mark.parametrize(
    ("what", "name"), [("no longer", "1.png"), ("not before", "2.png")]
)
@pytest.mark.parametrize("is_old", [False, True])
def test_the_file_that_is_gone_or_new_is_named(folders, what, name, is_old):
    config, _, labeled = folders
    path = labeled.parent / "run" / "labeled.json"
    if is_old:
        content = json.loads(path.read_text())
        assert len(content.pop("names")) == 6
        path.write_text(json.dumps(content))
    count = change(labeled, what)
    told = f"({count} for 6; {what} "
    with pytest.raises(ConfigError) as error:
        check_choice_of_labels(config, load_data(config))
    if is_old:
        assert f"({count} for 6):" in str(error.value)
    else:
        assert told in str(error.value) and name in str(error.value)


def test_a_new_copy_of_a_labeled_picture_hides_no_file_that_is_gone(folders):
    config, _, labeled = folders
    first = min(labeled.rglob("*.png"))
    shutil.copy(first, labeled.parent / "unlabeled" / "copy.png")
    (labeled / "bee" / "1.png").unlink()
    with pytest.raises(ConfigError, match=r"no longer .*bee/1\.png"):
        check_choice_of_labels(config, load_data(config))


@pytest.mark.parametrize("what", ["no longer", "not before", None])
def test_a_look_goes_on_with_what_is_there(folders, what, caplog):
    """Normalized as the networks learned it."""
    config, before, labeled = folders
    if what:
        change(labeled, what)
    seen = Experiment(dataclasses.replace(config, task_mode="review")).data
    assert (seen.spec.mean, seen.spec.std) == (
        before.spec.mean,
        before.spec.std,
    )
    assert len(seen.labeled_images) == load_count(labeled)
    told = [line for line in caplog.messages if "other labeled images" in line]
    assert len(told) == (what is not None)
    assert all(what in line and " for 6; " in line for line in told)


def test_a_look_needs_the_same_classes(folders):
    config, _, labeled = folders
    (labeled / "ant").rename(labeled / "dog")
    look = dataclasses.replace(config, task_mode="review")
    with pytest.raises(ConfigError, match="has the classes ant, bee, cow, but"):
        _ = Experiment(look).data


@pytest.mark.parametrize("task_mode", ["train", "eval"])
def test_it_says_that_it_goes_on_where_it_does(folders, task_mode, caplog):
    config, _, labeled = folders
    changed = dataclasses.replace(
        config, task_mode=task_mode, lr=0.3, allow_hparam_change=True
    )
    _ = Experiment(changed).data
    (told,) = [m for m in caplog.messages if "lr was" in m]
    assert told.endswith("It goes on with the new ones.")
    caplog.clear()
    change(labeled, "no longer")
    with pytest.raises(ConfigError, match="5 for 6; no longer"):
        _ = Experiment(changed).data
    assert not [m for m in caplog.messages if "goes on" in m]


def test_a_run_keeps_the_choice_that_it_had_from_another(tmp_path):
    """Its later commands do not need that one any more."""
    other, path = tiny(tmp_path / "a", seed=3), tmp_path / "a" / "labeled.json"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    save_choice_of_labels(other, load_data(other))
    settings = dict(label_subset=str(path))
    config = tiny(tmp_path / "b", **settings)
    images = load_data(config)
    save_choice_of_labels(config, images)
    path.unlink()
    config = tiny(tmp_path / "b", task_mode="eval", **settings)
    again = load_data(config)
    np.testing.assert_array_equal(again.labeled_indices, images.labeled_indices)
    check_choice_of_labels(config, again)
    for folder, reset in (("b", True), ("c", False)):
        with pytest.raises(ConfigError, match="labeled.json is not a file"):
            tiny(tmp_path / folder, reset_output_dir=reset, **settings)
