import doctest
import inspect
import re

import keras
import pytest

from meta_pseudo_labels import models
from meta_pseudo_labels.models import names
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.utils.settings import ConfigError


def build(model_type, **settings):
    return models.build(
        model_type, input_shape=(8, 8, 3), num_classes=10, **settings
    )


@pytest.mark.parametrize(
    ("model_type", "depth", "width"), [("wrn-10-1", 10, 1), ("wrn-16-3", 16, 3)]
)
def test_reads_depth_and_width_from_the_name(model_type, depth, width):
    model = build(model_type)
    convolutions = [
        layer for layer in model.layers if layer.name.endswith("conv2d")
    ]
    # WRN-D counts 3x3 convolutions, the dense layer and the two shortcuts
    # that project; k = 1 has them too, because the later stages widen.
    assert len(convolutions) + 1 == depth
    assert model.get_layer("stem.conv2d").filters == 16 * width


def test_builds_the_mlp():
    assert build("mlp").count_params() == (
        (192 * 128 + 128) + (128 * 128 + 128) + (128 * 10 + 10)
    )


# Of our own networks with batch norm, one of each kind.
OWN = pytest.mark.parametrize(
    "model_type", ["wrn-10-1", "resnet-50", "efficientnet-bs"]
)


@pytest.mark.fast("efficientnet-bs")
@OWN
def test_passes_settings_on(model_type):
    model = build(
        model_type,
        dropout_rate=0.25,
        batch_norm_decay=0.9,
        batch_norm_epsilon=1e-5,
        batch_norm_batch_size=64,
        dtype="float64",
    )
    norms = [
        layer for layer in model.layers if isinstance(layer, models.BatchNorm)
    ]
    assert len(norms) > 6
    for layer in norms:
        assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
        assert layer.group_batch_size == 64
    assert model.get_layer("head.dropout").rate == 0.25
    assert model.output.dtype == "float64"
    assert {v.dtype for v in model.weights} == {"float64"}


@pytest.mark.fast("wrn-10-1")
@OWN
def test_settings_of_efficientnets_mean_nothing_to_others(model_type):
    plain = build(model_type)
    model = build(model_type, small_images=True, stochastic_depth_drop_rate=0.2)
    strides = [
        [m.get_layer("stem.conv2d").strides[0] for m in (plain, model)],
        len(model.layers) - len(plain.layers),
    ]
    if model_type == "efficientnet-bs":
        # 9 of the 16 blocks have a residual branch to leave out.
        assert strides == [[2, 1], 9]
    else:
        assert strides[0][0] == strides[0][1] and strides[1] == 0


def test_is_named_after_its_type_unless_told():
    assert build("mlp").name == "mlp"
    assert build("mlp", name="student").name == "student"


@pytest.mark.parametrize("check", [build, models.check_model_type])
@pytest.mark.parametrize(
    "model_type", ["resnet-51", "", "wrn-28", "wrn-28-2x", "wrn-28--2", "MLP"]
)
def test_unknown_names_list_the_known_ones(check, model_type):
    with pytest.raises(
        ValueError, match=f"{model_type!r}.*wrn-<depth>-<k>.*l2.*MobileNetV2"
    ):
        check(model_type)


@pytest.mark.parametrize(
    ("model_type", "meant"),
    [
        ("wrn28-2", "wrn-28-2"),
        ("resnet50", "ResNet50"),
        ("resnet-51", "resnet-50"),
        ("mobilenetv2", "MobileNetV2"),
        ("efficientnet-b9", "efficientnet-b8"),
        ("MLP", "mlp"),
        ("", None),
        ("zzz", None),
    ],
)
def test_the_nearest_names_are_offered(model_type, meant):
    with pytest.raises(ValueError) as caught:
        models.check_model_type(model_type)
    message = str(caught.value)
    assert len(message) < 360  # It does not list them all.
    _, offer, rest = message.partition(" Did you mean one of: ")
    assert bool(offer) == bool(meant)
    if meant:
        near = rest.partition("?")[0].split(", ")
        assert meant in near and len(near) <= 3
        for name in near:
            models.check_model_type(name)


@pytest.mark.parametrize("check", [build, models.check_model_type])
def test_impossible_sizes_in_a_name_are_explained(check):
    with pytest.raises(ValueError, match=r"6n \+ 4.*got 27"):
        check("wrn-27-2")
    with pytest.raises(ValueError, match="positive.*got 0"):
        check("wrn-28-0")


@pytest.mark.parametrize(
    "model_type",
    [
        "mlp",
        "wrn-28-2",
        *models.WIDE_RESNETS,
        *models.RESNETS,
        *models.EFFICIENTNETS,
        "MobileNetV2",
    ],
)
def test_known_names_pass_the_check(model_type):
    models.check_model_type(model_type)


def test_the_release_has_another_name_for_one():
    assert models.release_scope("wrn-28-large") == "wrn-28-135"
    assert models.release_scope("wrn-28-2") == "wrn-28-2"
    assert doctest.testmod(names).failed == 0


@pytest.mark.parametrize(
    ("model_type", "blocks"),
    [
        ("wrn-28-2", True),
        ("resnet-50", True),
        ("efficientnet-b0", True),
        ("mlp-5-128", False),
        ("MobileNetV2", False),
    ],
)
def test_which_networks_have_blocks(model_type, blocks):
    assert models.has_blocks(model_type) is blocks


def test_public_names_are_what_they_say():
    """Whatever was imported before, and in whichever order."""
    for name in models.__all__:
        assert not inspect.ismodule(getattr(models, name)), name


@pytest.fixture
def towers():
    """A family as a plug-in registers it."""

    def tower(*, blocks, input_shape, num_classes, norm, name):
        inputs = keras.Input(input_shape)
        x = keras.layers.Flatten()(inputs)
        for _ in range(blocks):
            x = norm.layer()(keras.layers.Dense(4)(x))
        return keras.Model(
            inputs, keras.layers.Dense(num_classes)(x), name=name
        )

    @models.FAMILIES.register("tower")
    class Tower(models.Family):
        known = "tower-<blocks>"
        examples = ("tower-3",)
        builder = staticmethod(tower)
        release_scopes = {"tower-1": "tower"}

        @staticmethod
        def sizes(model_type):
            found = re.fullmatch(r"tower-(\d+)", model_type)
            return found and dict(blocks=int(found[1]))

    yield
    del models.FAMILIES._found["tower"]


def test_a_family_of_a_plug_in_is_one_like_ours(towers):
    model = build("tower-2", batch_norm_decay=0.5, dropout_rate=0.1)
    norms = [v for v in model.layers if isinstance(v, models.BatchNorm)]
    assert [v.momentum for v in norms] == [0.5, 0.5]
    assert model.output.shape == (None, 10) and model.name == "tower-2"
    models.check_model_type("tower-2")
    assert not models.has_blocks("tower-2")
    assert models.release_scope("tower-1") == "tower"
    assert models.mlp_hidden_sizes("tower-2") is None
    assert Config(model_type="tower-3").model_type == "tower-3"
    with pytest.raises(ValueError, match="mean one of: tower-3.*tower-<blocks"):
        models.check_model_type("tower3")


def test_a_plug_in_may_bring_weights_that_others_trained(towers, monkeypatch):
    given = ("tower-1", "x.h5")
    with pytest.raises(ValueError, match="are for networks of keras.appl"):
        models.pretrained_network(*given, input_shape=(4, 4, 3))
    monkeypatch.setattr(
        models.FAMILIES["tower"],
        "pretrained",
        staticmethod(lambda *names, input_shape: (names, input_shape)),
    )
    found = models.pretrained_network(*given, input_shape=(4, 4, 3))
    assert found == (given, (4, 4, 3))


def test_no_other_names_are_known_without_it():
    with pytest.raises(ConfigError, match="Unknown model_type 'tower-3'"):
        Config(model_type="tower-3")
