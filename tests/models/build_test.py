import pytest

from meta_pseudo_labels import models


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


def test_passes_settings_on():
    model = build(
        "wrn-10-1",
        dropout_rate=0.25,
        batch_norm_decay=0.9,
        batch_norm_epsilon=1e-5,
        dtype="float64",
    )
    batch_norm = model.get_layer("head.batch_norm")
    assert model.get_layer("head.dropout").rate == 0.25
    assert (batch_norm.momentum, batch_norm.epsilon) == (0.9, 1e-5)
    assert model.output.dtype == "float64"


def test_is_named_after_its_type_unless_told():
    assert build("mlp").name == "mlp"
    assert build("mlp", name="student").name == "student"


@pytest.mark.parametrize("check", [build, models.check_model_type])
@pytest.mark.parametrize(
    "model_type", ["resnet-51", "", "wrn-28", "wrn-28-2x", "wrn-28--2", "MLP"]
)
def test_unknown_names_list_the_known_ones(check, model_type):
    with pytest.raises(ValueError, match=f"{model_type!r}.*wrn-<depth>-<k>"):
        check(model_type)


@pytest.mark.parametrize("check", [build, models.check_model_type])
def test_impossible_sizes_in_a_name_are_explained(check):
    with pytest.raises(ValueError, match=r"6n \+ 4.*got 27"):
        check("wrn-27-2")
    with pytest.raises(ValueError, match="positive.*got 0"):
        check("wrn-28-0")


@pytest.mark.parametrize(
    "model_type", ["mlp", "wrn-28-2", *models.WIDE_RESNETS]
)
def test_known_names_pass_the_check(model_type):
    models.check_model_type(model_type)
