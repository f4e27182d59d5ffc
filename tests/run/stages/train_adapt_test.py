"""A run adapts its networks once, before the first step."""

import numpy as np
import pytest

from meta_pseudo_labels import data, models
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.data import adaptation_images
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.stages.train import peak_rates
from tests.tiny_run import tiny


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)

    def pictures(count):
        return random.integers(256, size=(count, 9, 9, 3)).astype(np.uint8)

    labels = np.arange(8) % 2
    return data.from_arrays(
        pictures(8),
        labels,
        pictures(16),
        test_images=pictures(8),
        test_labels=labels,
    )


def kernels(learner):
    networks = (learner.student, learner.teacher)
    return [net.get_layer("whitening").kernel.numpy() for net in networks]


@pytest.mark.long
def test_both_networks_and_the_average_are_adapted_and_stay_so(
    images, tmp_path, monkeypatch
):
    first = dict(model_type="speednet-1", num_train_steps=2)
    learned = Experiment(tiny(tmp_path, **first), data=images)
    learned.train()
    twin = models.build("speednet-1", input_shape=(9, 9, 3), num_classes=2)
    models.adapt(twin, adaptation_images(images))
    wanted = twin.get_layer("whitening").kernel.numpy()
    for kernel in kernels(learned.learner):
        np.testing.assert_array_equal(kernel, wanted)
    student = learned.learner.finished_student()
    average = student.get_layer("whitening").kernel
    np.testing.assert_allclose(average, wanted, rtol=1e-6)

    monkeypatch.setattr(models, "adapt", None)  # Whoever calls it fails.
    again = Experiment(
        tiny(
            tmp_path,
            **first | dict(num_train_steps=4, allow_hparam_change=True),
        ),
        data=images,
    )
    assert again.train()
    for kernel in kernels(again.learner):
        np.testing.assert_array_equal(kernel, wanted)
    assert again.finetune()
    tuned = again.finetuned_student(again.trained_learner())
    np.testing.assert_allclose(
        tuned.get_layer("whitening").kernel, wanted, rtol=1e-6
    )


def test_the_images_are_spread_over_labeled_and_unlabeled(images):
    found = adaptation_images(images, count=9)
    every_image = np.concatenate(
        [images.labeled_images, images.unlabeled_images]
    )
    spec = images.spec
    wanted = data.normalize(
        every_image[[0, 2, 5, 8, 11, 14, 17, 20, 23]],
        mean=spec.mean,
        std=spec.std,
    )
    np.testing.assert_array_equal(found, wanted)
    assert len(adaptation_images(images)) == 24


def test_rates_are_told_as_they_are_at_the_batch():
    supervised = Config(method="supervised", lr=1e-3, train_batch_size=16)
    assert peak_rates(supervised) == (
        "Peak learning rate at a batch of 16: 6.25e-05 (0.001 per 256 images)"
    )
    config = Config(
        method="mpl",
        mpl_student_lr=0.1,
        mpl_teacher_lr=0.5,
        train_batch_size=64,
    )
    assert peak_rates(config).endswith(
        "student 0.025 (0.1 per 256 images), teacher 0.125 (0.5 per 256 images)"
    )
