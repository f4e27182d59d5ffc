"""Names, shapes and counts of all the release's networks."""

import json
import math

import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from tests.models.helpers import variables_by_release_name

# What the release calls the outcome of some layers.
LAYERS = {
    "stem/conv2d/Conv2D": "stem.conv2d",
    "head/IdentityN": "head.swish",
    "head/dense/bias_add": "head.dense",
}
# Those of which the reference lists the variables.
LISTED = (
    "wrn-28-2/cifar10",
    "resnet-50/imagenet",
    "efficientnet-b0/imagenet",
    "efficientnet-b0/cifar10",
)
NETWORKS = (
    *LISTED,
    "wrn-28-10/cifar10",
    "wrn-28-large/cifar10",
    "wrn-28-2/imagenet",
    *(
        f"{name}/imagenet"
        for name in models.EFFICIENTNETS
        if name != "efficientnet-b0"
    ),
)


# To describe a network takes seconds.
SHORT = (*LISTED, "wrn-28-large/cifar10", "efficientnet-bs/imagenet")


def _marked(keys):
    return [
        key if key in SHORT else pytest.param(key, marks=pytest.mark.long)
        for key in keys
    ]


@pytest.fixture(scope="module")
def shapes(reference_dir):
    return json.loads((reference_dir / "model_shapes.json").read_text())[
        "models"
    ]


@pytest.fixture(scope="module", params=_marked(NETWORKS))
def network(request, shapes):
    """A network of ours and the facts about the release's."""
    model_type, dataset = request.param.split("/")
    facts = shapes[request.param]
    # In a graph nobody runs, weights are described, not allocated: L2 alone
    # would take 2 GB.
    with tf.Graph().as_default():
        model = models.build(
            model_type,
            input_shape=(facts["image_size"], facts["image_size"], 3),
            num_classes=facts["num_classes"],
            small_images=dataset == "cifar10",
        )
    return model, facts


listed = pytest.mark.parametrize("network", LISTED, indirect=True)


def test_every_network_of_the_reference_is_compared(shapes):
    assert set(shapes) == set(NETWORKS)


@pytest.mark.fast("wrn-28-2/cifar10")
def test_counts_equal_the_release(network):
    model, want = network

    def parameters(variables):
        return sum(math.prod(variable.shape) for variable in variables)

    assert len(model.weights) == want["variables"]
    assert len(model.trainable_variables) == want["trainable_variables"]
    assert parameters(model.trainable_variables) == want["trainable_params"]
    assert (
        parameters(model.non_trainable_variables)
        == want["non_trainable_params"]
    )


@pytest.mark.parametrize(
    "network",
    _marked(key for key in NETWORKS if key.startswith("efficientnet")),
    indirect=True,
)
def test_stages_equal_the_release(network):
    model, want = network
    stem, *stages, head = want["filters"]
    assert model.get_layer("stem.conv2d").filters == stem
    assert [
        layer.filters
        for layer in model.layers
        if layer.name.endswith(".output.conv2d")
    ] == [
        filters
        for filters, repeats in zip(stages, want["repeats"], strict=True)
        for _ in range(repeats)
    ]
    assert model.get_layer("head.conv2d").filters == head


@listed
def test_names_shapes_and_order_equal_the_release(network):
    model, facts = network
    scope = f"{facts['variables_list'][0][0].split('/')[0]}/"
    want = [
        (name.removeprefix(scope), shape, trainable)
        for name, shape, trainable in facts["variables_list"]
    ]
    got = [
        (name, list(variable.shape), variable.trainable)
        for name, variable in variables_by_release_name(model).items()
    ]
    assert sorted(got) == sorted(want)
    # Keras orders layers by their distance from the logits: where a shortcut
    # has a batch norm, it mixes with the branch beside it.
    if not model.name.startswith("resnet"):
        assert _trainable_names(got) == _trainable_names(want)


def _trainable_names(variables):
    return [name for name, _, trainable in variables if trainable]


@listed
def test_activations_have_the_shapes_of_the_release(network):
    model, facts = network
    for name, shape in facts["activations"]:
        name = name.split("/", 1)[1].removesuffix(":0")
        name = LAYERS.get(name, name.replace("batchnorm/add_1", "batch_norm"))
        layer = model.get_layer(name.replace("/", "."))
        assert list(layer.output.shape[1:]) == shape[1:], name


def test_release_scope():
    assert models.release_scope("wrn-28-large") == "wrn-28-135"
    assert models.release_scope("efficientnet-b5-mpl") == "efficientnet-b5-mpl"
