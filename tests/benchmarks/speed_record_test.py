"""The published recipe in PyTorch: its parts, by numbers worked by hand."""

import importlib
import os
import sys

import numpy as np
import pytest

from meta_pseudo_labels.data.image_data import ImageData
from meta_pseudo_labels.data.spec import DatasetSpec


@pytest.fixture(scope="module")
def torch():
    folder = os.environ.get("MPL_TORCH")
    if folder and folder not in sys.path:
        sys.path.append(folder)
    return pytest.importorskip(
        "torch", reason="PyTorch is absent; set MPL_TORCH to its folder."
    )


@pytest.fixture(scope="module")
def run(torch):
    return importlib.import_module("benchmarks.speed_record.run")


@pytest.fixture(scope="module")
def images(torch):
    return torch.rand(64, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def test_whitened_patches_have_unit_covariance(run, torch, images):
    network = run.SpeedNet(4, 10)
    network.whiten(images, epsilon=0.0)
    with torch.no_grad():
        outputs = network.whitening(images)
    first, second = outputs.permute(1, 0, 2, 3).reshape(2, 12, -1)
    torch.testing.assert_close(
        first @ first.T / first.shape[1], torch.eye(12), rtol=0, atol=1e-3
    )
    assert torch.equal(first, -second)


def test_convolutions_begin_as_identities(run, torch):
    stages = run.SpeedNet(32, 10).stages
    assert [stage.conv_1.in_channels for stage in stages] == [24, 32, 128]
    for stage in stages:
        for layer in (stage.conv_1, stage.conv_2):
            channels = layer.in_channels
            features = torch.rand(2, channels, 5, 5)
            passed = layer(features)[:, :channels]
            torch.testing.assert_close(passed, features, rtol=0, atol=1e-6)


def test_batch_norm_keeps_six_tenths_of_its_averages(run, torch):
    norm = run.SpeedNet(4, 10).stages[0].norm_1
    with torch.no_grad():
        norm(torch.full((2, 4, 3, 3), 5.0))
    torch.testing.assert_close(norm.running_mean, torch.full((4,), 2.0))


def test_views_of_a_test_image_are_weighed(run, torch):
    """A network that says what the left upper pixel is."""
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    logits = run._of_views(lambda x: x[:, :, 0, 0], image)
    # As it is, and moved by a pixel one way or the other, each mirrored too. An
    # edge is reflected: beyond pixel 0 lies 5, beyond the corner of 3 lies 6.
    wanted = 0.5 * (0 + 3) + 0.25 * (5 + 6) + 0.25 * (5 + 6)
    assert logits.item() == wanted


def test_rates_rise_and_fall(run):
    rates = [run.rate_at(step, 100) for step in (0, 23, 100)]
    np.testing.assert_allclose(rates, [0.2, 1, 0.07])
    np.testing.assert_allclose(run.rate_at(61.5, 100), 0.535)


def test_biases_learn_faster_and_decay_alike(run):
    network = run.SpeedNet(4, 10)
    biases, kernels = run.optimizer_of(network, run.Settings()).param_groups
    # 11.5 / (1024 * (1 + 1 / 0.15)), and 0.0153 / (1 + 1 / 0.15).
    np.testing.assert_allclose(kernels["lr"], 1.46484e-3, rtol=1e-5)
    np.testing.assert_allclose(biases["lr"], 64 * kernels["lr"])
    for group in (biases, kernels):
        np.testing.assert_allclose(
            group["lr"] * group["weight_decay"], 1.99565e-3, rtol=1e-5
        )
    # Of batch norm, two a stage.
    assert len(biases["params"]) == 6
    assert {weight.ndim for weight in biases["params"]} == {1}
    # Two convolutions a stage, the head, and what whitening adds.
    assert len(kernels["params"]) == 8
    assert any(weight is network.whitening.bias for weight in kernels["params"])


def test_every_image_is_moved_by_two_pixels_at_most(run, torch, images):
    moved = run.shift(images, generator=torch.Generator().manual_seed(1))
    padded = np.pad(
        images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect"
    )
    found = [
        [
            (row, column)
            for row in range(5)
            for column in range(5)
            if np.array_equal(
                window[:, row : row + 12, column : column + 12], view
            )
        ]
        for window, view in zip(padded, moved.numpy(), strict=True)
    ]
    assert all(len(places) == 1 for places in found)
    assert len({places[0] for places in found}) > 15


def test_chosen_images_are_mirrored(run, torch, images):
    views = run.mirror(images[:2], torch.tensor([True, False]))
    np.testing.assert_array_equal(views[0], images[0].flip(-1))
    np.testing.assert_array_equal(views[1], images[1])


def test_the_network_meets_its_averages(run, torch):
    layer = torch.nn.Linear(1, 1)
    layer.weight.data.fill_(1.0)
    average = run.LookAhead(layer)
    layer.weight.data.fill_(3.0)
    average.meet(0.75)
    assert layer.weight.item() == 1.5
    layer.weight.data.fill_(7.0)
    average.meet(1.0)
    assert layer.weight.item() == 1.5


def test_epochs_turn_images_round_and_averages_meet_every_fifth_step(
    run, torch, images, monkeypatch
):
    shown, decays = [], []

    def keep(views, *, generator):
        shown.append(views)
        return views

    monkeypatch.setattr(run, "shift", keep)
    monkeypatch.setattr(run.LookAhead, "meet", lambda _, x: decays.append(x))
    settings = run.Settings(width=2, epochs=3, batch_size=8)
    network = run.SpeedNet(2, 10)
    run.train(network, images, torch.zeros(64, dtype=torch.long), settings)
    turned = []
    for epoch in torch.cat(shown).reshape(3, 64, *images.shape[1:]):
        same, mirrored = (
            (epoch[:, None] == one[None]).flatten(2).all(2)
            for one in (images, images.flip(-1))
        )
        assert ((same | mirrored).sum(0) == 1).all()  # Each image once.
        turned.append(mirrored.any(0))
    assert 0 < turned[0].sum() < 64
    assert torch.equal(turned[1], ~turned[0])
    assert torch.equal(turned[2], turned[0])
    wanted = [0.95**5 * (step / 24) ** 3 for step in (5, 10, 15, 20)]
    assert decays == pytest.approx([*wanted, 1.0])


def test_it_learns_what_is_easy(run):
    random = np.random.RandomState(0)
    labels = np.arange(512, dtype=np.int32) % 2
    pixels = random.randint(0, 128, [512, 12, 12, 3])
    pixels[labels == 1, ..., 0] += 127
    row = run.measure(
        run.Settings(width=2, epochs=6, batch_size=32),
        ImageData(
            spec=DatasetSpec(
                name="colors",
                num_classes=2,
                image_size=12,
                mean=(0.5,) * 3,
                std=(0.25,) * 3,
                flip=True,
            ),
            labeled_images=pixels[:384].astype(np.uint8),
            labeled_labels=labels[:384],
            labeled_indices=np.arange(384),
            unlabeled_images=pixels[:0].astype(np.uint8),
            test_images=pixels[384:].astype(np.uint8),
            test_labels=labels[384:],
        ),
    )
    assert row["accuracy"] > 0.95
    assert row["accuracy_of_six_views"] > 0.95
