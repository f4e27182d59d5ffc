"""The main job from every source of images, cut down to two steps."""

import json
import sys
import tarfile

import numpy as np
import pytest

from meta_pseudo_labels.run.folder import LOOK_ALIKES, VIEWS
from tests.command_line import refusal_of
from tests.data.sources.tfds_any_test import image_feature, write_set
from tests.tiny_run import untimed

TINY = (
    "--method=mpl",
    "--model_type=mlp",
    "--num_train_steps=2",
    "--save_every=2",
    "--log_every=1",
    "--train_batch_size=4",
    "--eval_batch_size=500",
    "--uda_data=2",
    "--mpl_student_lr_wait_steps=0",
    "--mpl_student_lr_warmup_steps=1",
    "--mpl_teacher_lr_warmup_steps=1",
)


def trained(main, folder, *arguments):
    """Trains; the rows of metrics.jsonl and the content of labeled.json."""
    main(f"--output_dir={folder}", *TINY, *arguments)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = untimed(map(json.loads, lines))
    assert [row["step"] for row in rows] == [1, 2, 2]
    assert all(np.isfinite(v) for row in rows for v in row.values())
    assert 0 <= rows[-1]["eval/accuracy"] <= 1
    return rows, json.loads((folder / "labeled.json").read_text())


@pytest.fixture(scope="module")
def photos(data_dir, tmp_path_factory):
    """Real images in folders, and the flags that name them."""
    folder = tmp_path_factory.mktemp("photos")
    with tarfile.open(data_dir / "imagefolder.tar") as tar:
        tar.extractall(folder, filter="data")
    root = folder / "imagefolder"
    return root, (
        "--dataset=folders",
        f"--labeled_dir={root}/labeled",
        f"--unlabeled_dir={root}/unlabeled",
        f"--eval_dir={root}/test",
        "--image_size=16",
    )


@pytest.mark.long
def test_folders(main, photos, tmp_path):
    _, arguments = photos
    _, choice = trained(main, tmp_path, *arguments, "--num_labeled=0")
    assert len(choice["indices"]) == 200  # All of them.


@pytest.mark.long
def test_a_choice_of_labels_can_be_repeated(main, photos, tmp_path):
    _, arguments = photos
    first, choice = trained(
        main, tmp_path / "a", *arguments, "--num_labeled=30", "--seed=3"
    )
    again, same = trained(
        main,
        tmp_path / "b",
        *arguments,
        f"--label_subset={tmp_path}/a/labeled.json",
        "--seed=4",
    )
    assert same["indices"] == choice["indices"] and len(same["indices"]) == 30
    assert again[0] != first[0]  # But all else has the other seed.


def test_a_choice_of_other_images_is_refused(main, photos, tmp_path):
    _, arguments = photos
    path = tmp_path / "labeled.json"
    for source, numbers, words in (
        ("digits", [3], "names images of 'digits', not of 'folders'"),
        ("folders", [3, 200], "names image 200, which is not one of the 200"),
    ):
        path.write_text(json.dumps({"source": source, "indices": numbers}))
        message = refusal_of(
            main,
            f"--output_dir={tmp_path}/run",
            *TINY,
            *arguments,
            f"--label_subset={path}",
        )
        assert words in message
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_look_at_folders(main, photos, tmp_path, capsys):
    _, arguments = photos
    main(
        "--task_mode=inspect",
        f"--output_dir={tmp_path}",
        *arguments,
        "--num_labeled=30",
    )
    assert "30 labeled, 770 unlabeled, 300 test" in capsys.readouterr().out
    facts = json.loads((tmp_path / "data.json").read_text())
    assert [row["labeled"] for row in facts["classes"]] == [3] * 10
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data.json",
        "views.png",
    ]


@pytest.mark.long
def test_a_run_whose_data_changed_does_not_go_on(main, photos, tmp_path):
    _, arguments = photos
    trained(main, tmp_path, *arguments, "--num_labeled=30")
    path = tmp_path / "labeled.json"
    choice = json.loads(path.read_text())
    choice["indices"][0] += 1
    path.write_text(json.dumps(choice))
    message = refusal_of(
        main, f"--output_dir={tmp_path}", *TINY, *arguments, "--num_labeled=30"
    )
    assert "names other labeled images" in message


@pytest.mark.long
def test_broken_files_are_skipped_and_named(
    main, data_dir, tmp_path, capsys, caplog
):
    with tarfile.open(data_dir / "imagefolder.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    root = tmp_path / "imagefolder"
    (root / "unlabeled" / "broken.jpg").write_bytes(b"no image")
    arguments = (
        "--dataset=folders",
        f"--labeled_dir={root}/labeled",
        f"--unlabeled_dir={root}/unlabeled",
        f"--eval_dir={root}/test",
        "--image_size=8",
        "--num_labeled=20",
    )
    trained(main, tmp_path / "run", *arguments)
    assert "In the data 1 file was skipped: broken.jpg." in (
        capsys.readouterr().out
    )
    assert "broken.jpg" in caplog.text
    message = refusal_of(
        main,
        f"--output_dir={tmp_path}/strict",
        *TINY,
        *arguments,
        "--strict_data",
    )
    assert "broken.jpg" in message
    assert not (tmp_path / "strict").exists()


@pytest.mark.long
def test_cifar10_of_tensorflow_datasets(main, data_dir, tmp_path):
    """The release's name for it; its labeled images are the first 4,000."""
    _, choice = trained(
        main,
        tmp_path,
        "--dataset_name=cifar10_4000_mpl",
        f"--data_dir={data_dir}/tfds",
        "--image_size=8",
    )
    assert choice["indices"] == list(range(4_000))


@pytest.mark.long
def test_cifar10_in_the_releases_files(main, tmp_path):
    """Records of one label byte, then 1,024 of each color."""
    rng = np.random.default_rng(0)
    for name, count in (("train.bin", 300), ("test_batch.bin", 60)):
        rows = rng.integers(0, 256, size=(count, 3_073), dtype=np.uint8)
        rows[:, 0] = np.arange(count) % 10
        rows.tofile(tmp_path / name)
    _, choice = trained(
        main,
        tmp_path / "run",
        "--dataset=cifar10",
        f"--data_dir={tmp_path}",
        "--num_labeled=40",
    )
    assert np.bincount(choice["labels"]).tolist() == [4] * 10
    main("--task_mode=eval", f"--output_dir={tmp_path}/run")
    accuracies = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert set(accuracies) >= {"student", "teacher"}
    assert all(0 <= share <= 1 for share in accuracies.values())


@pytest.mark.long
def test_imagenet_in_the_releases_files(main, data_dir, tmp_path, capsys):
    arguments = (
        "--dataset_name=imagenet_10_percent_mpl",
        f"--data_dir={data_dir}/imagenet_mini",
        "--image_size=16",
    )
    _, choice = trained(main, tmp_path, *arguments)
    assert choice["indices"] == list(range(8))
    main("--task_mode=inspect", f"--output_dir={tmp_path}/look", *arguments)
    printed = capsys.readouterr().out
    assert "8 labeled, 80 unlabeled, 20 test" in printed
    assert "the first 256 images of each part" in printed
    assert (tmp_path / "look" / "views.png").stat().st_size > 1_000


@pytest.mark.long
def test_any_set_of_tensorflow_datasets(main, tmp_path):
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    examples = [
        {
            "image": rng.integers(0, 256, size=(6, 6, 1), dtype=np.uint8),
            "label": number % 3,
        }
        for number in range(60)
    ]
    write_set(
        tmp_path,
        {
            "image": image_feature(),
            "label": tfds.features.ClassLabel(num_classes=3),
        },
        {"train": examples, "test": examples[:12]},
    )
    trained(
        main,
        tmp_path / "run",
        "--dataset=tfds:made",
        f"--data_dir={tmp_path}",
        "--num_labeled=12",
        "--image_size=8",
    )


@pytest.mark.long
def test_digits_with_the_policy_of_keras_cv(main, tmp_path):
    theirs, _ = trained(main, tmp_path / "a", "--augment_policy=keras_cv")
    ours, _ = trained(main, tmp_path / "b", "--augment_policy=release")
    name = "cross_entropy/teacher_on_u"
    assert theirs[1][name] != ours[1][name]


@pytest.mark.long
def test_a_look_at_the_data_leaves_a_sheet_and_deletes_nothing(
    main, tmp_path, capsys
):
    """A flagfile may ask for a reset, which is none of its business."""
    trained(main, tmp_path, "--num_labeled=40")
    main(
        "--task_mode=inspect", f"--output_dir={tmp_path}", "--reset_output_dir"
    )
    printed = capsys.readouterr().out
    assert "40 labeled, 1,257 unlabeled, 500 test" in printed
    facts = json.loads((tmp_path / "data.json").read_text())
    assert facts["counts"]["labeled"] == 40
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "checkpoints").is_dir()


@pytest.mark.long
def test_a_look_needs_no_figures_and_names_what_makes_no_views(
    main, tmp_path, monkeypatch, capsys
):
    look = "--task_mode=inspect", f"--output_dir={tmp_path}/run"
    message = refusal_of(
        main, *look, "--augment_policy=keras_cv", "--augment_magnitude=16"
    )
    assert "accepts 0 to 10" in message
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (tmp_path / "run").mkdir(exist_ok=True)
    earlier = [tmp_path / "run" / name for name in (VIEWS, LOOK_ALIKES)]
    for path in earlier:
        path.write_text("of an earlier look")
    main(*look)
    assert not any(path.exists() for path in earlier)
    printed = capsys.readouterr().out
    assert "40 labeled, 1,257 unlabeled" in printed and "Views" not in printed
    # What a look leaves does not keep a run from beginning afresh there.
    main(*TINY, "--reset_output_dir", f"--output_dir={tmp_path}/run")
    assert (tmp_path / "run" / "checkpoints").is_dir()


@pytest.mark.long
def test_a_wrong_number_of_classes_is_found_in_time(main, photos, tmp_path):
    _, arguments = photos
    message = refusal_of(
        main,
        f"--output_dir={tmp_path}/run",
        *TINY,
        *arguments,
        "--num_labeled=0",
        "--num_classes=7",
    )
    assert "--num_classes=7" in message and "10 classes" in message
    assert not (tmp_path / "run").exists()
