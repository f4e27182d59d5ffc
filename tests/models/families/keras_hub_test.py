"""Networks of presets of KerasHub: what they compute, and what is refused."""

import importlib.util
import json
import shutil
import sys

import keras
import numpy as np
import pytest
from absl import logging

from meta_pseudo_labels import models
from meta_pseudo_labels.learners import MetaPseudoLabels
from meta_pseudo_labels.models import keras_hub_presets as presets
from meta_pseudo_labels.models.families import keras_hub as family
from meta_pseudo_labels.optimizers import Momentum
from tests import tiny_presets
from tests.tiny_presets import SIZE

needs_hub = pytest.mark.skipif(
    importlib.util.find_spec("keras_hub") is None,
    reason="keras-hub is not installed: pip install '.[hub]', of Python 3.11",
)
SHAPE = (SIZE, SIZE, 3)
MEAN, STD = (0.31, 0.48, 0.45), (0.25, 0.24, 0.37)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A folder, and the backbone that is in it."""
    folder = tmp_path_factory.mktemp("presets") / "resnet"
    return str(folder), tiny_presets.write(folder)


def build(folder, **settings):
    defaults = dict(input_shape=SHAPE, num_classes=5)
    return models.build(f"keras_hub:{folder}", **defaults | settings)


def begun(folder, **settings):
    """A network with the weights of its preset, and the report on them."""
    model = build(folder, **settings)
    donor = models.pretrained_network(
        f"keras_hub:{folder}", str(folder), input_shape=model.input_shape[1:]
    )
    return model, models.load_weights(model, donor)


def features(model, images):
    outputs = model.get_layer("head.dense").input
    return np.asarray(keras.Model(model.input, outputs)(images))


def levels():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, [2, *SHAPE]).astype("float32")


def normalized(levels):
    return np.float32((levels / 255 - np.array(MEAN)) / np.array(STD))


def backbone(name):
    """One of each way that backbones take and return something."""
    if name == "resnet":
        return tiny_presets.resnet()
    if name.startswith("vit"):
        return tiny_presets.vit(use_class_token=name == "vit")
    from keras_hub import models as theirs

    if name == "swin":  # Tokens, none of the class.
        return theirs.SwinTransformerBackbone(
            image_shape=SHAPE,
            embed_dim=4,
            depths=[1],
            num_heads=[2],
            window_size=3,
        )
    if name == "efficientnet":  # It calls the shape otherwise.
        return theirs.EfficientNetBackbone(
            stackwise_kernel_sizes=[3],
            stackwise_num_repeats=[1],
            stackwise_input_filters=[8],
            stackwise_output_filters=[8],
            stackwise_expansion_ratios=[1],
            stackwise_strides=[1],
            stackwise_squeeze_and_excite_ratios=[0.25],
            stackwise_block_types=["v1"],
            stackwise_width_coefficients=[1.0],
            stackwise_depth_coefficients=[1.0],
            stackwise_force_input_filters=[0],
            stackwise_nores_option=[False],
        )
    if name == "vgg":  # Its layers follow the global dtype.
        return theirs.VGGBackbone(
            stackwise_num_repeats=[1],
            stackwise_num_filters=[8],
            image_shape=SHAPE,
        )
    if name == "dinov2":  # Inputs by name; a mask that nothing moves.
        return theirs.DINOV2Backbone(
            patch_size=8,
            num_layers=1,
            hidden_dim=8,
            num_heads=2,
            intermediate_dim=16,
            num_register_tokens=1,
            image_shape=SHAPE,
            position_embedding_shape=SHAPE,
        )
    assert name == "hgnetv2"  # The features of each stage by name.
    return theirs.HGNetV2Backbone(
        depths=[1],
        embedding_size=8,
        hidden_sizes=[16],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[[8, 8, 16, 1, 1, 3]],
        apply_downsample=[False],
        use_lightweight_conv_block=[False],
        image_shape=SHAPE,
    )


BACKBONES = {
    "resnet": "mean",
    "vit": "token",
    "vit, no token": "mean",
    "swin": "mean",
    "efficientnet": "mean",
    "vgg": "mean",
    "dinov2": "token",
    "hgnetv2": "mean",
}


@needs_hub
@pytest.mark.filterwarnings("ignore:Layer 'attn':UserWarning")
@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
@pytest.mark.fast("resnet", "vit")
@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_those_of_keras_hub_on_the_same_picture(name, tmp_path):
    """Levels in, by its own converter and backbone; ours are normalized."""
    import keras_hub

    converter = tiny_presets.converter()
    tiny_presets.write(tmp_path, backbone(name))
    theirs = keras_hub.models.Backbone.from_preset(str(tmp_path))
    seen = keras.tree.map_structure(lambda _: converter(levels()), theirs.input)
    wanted = theirs(seen, training=False)
    if isinstance(wanted, dict):
        wanted = wanted["stage1"]
    wanted = np.asarray(wanted)
    if BACKBONES[name] == "token":
        wanted = wanted[:, 0]
    else:
        wanted = wanted.mean(tuple(range(1, wanted.ndim - 1)))

    model, report = begun(tmp_path, pixels=(MEAN, STD))
    assert not report.missing and not report.left_over
    scale = np.abs(wanted).max()
    got = features(model, normalized(levels()))
    np.testing.assert_allclose(got / scale, wanted / scale, atol=1e-5)
    # And it matters: without it they are far off.
    plain, _ = begun(tmp_path)
    got = features(plain, normalized(levels()))
    assert np.abs(got - wanted).max() > 1e-2 * scale


@needs_hub
@pytest.mark.filterwarnings("ignore:Layer 'attn':UserWarning")
@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
@pytest.mark.fast("vit-exact")
@pytest.mark.parametrize("feedback", ["exact", "reinforce"])
@pytest.mark.parametrize("name", BACKBONES)
def test_feedback_comes_through_to_the_teacher(name, feedback, tmp_path):
    """Through second derivatives of the student, where it is exact."""
    tiny_presets.write(tmp_path, backbone(name))
    networks = [begun(tmp_path, name=role)[0] for role in ("s", "t")]
    learner = MetaPseudoLabels(*networks, feedback=feedback)
    learner.compile(Momentum(0.1), Momentum(0.1))
    generator = np.random.default_rng(0)
    batch = {
        view: np.float32(generator.normal(size=[size, *SHAPE]))
        for view, size in (("labeled", 4), ("weak", 4), ("strong", 4))
    }
    batch["labels"] = np.arange(4)
    before = [v.numpy() for v in networks[1].trainable_variables]
    for _ in range(2):  # The head begins at 0.
        logs = learner.train_step(batch)
    assert float(logs["mpl/feedback_grad_ratio"]) > 0
    after = networks[1].trainable_variables
    same = [
        v.path
        for v, was in zip(after, before, strict=True)
        if np.array_equal(v, was)
    ]
    # A mask that is not used; a bias that softmax or batch norm takes out.
    assert len(same) <= 2, same


@needs_hub
@pytest.mark.parametrize(
    ("scale", "offset"), [(1 / 127.5, -1.0), (None, None), (0.5, None)]
)
def test_a_converter_may_scale_all_channels_alike_or_not_at_all(
    preset, tmp_path, scale, offset
):
    shutil.copytree(preset[0], tmp_path, dirs_exist_ok=True)
    converter = tiny_presets.converter(scale=scale, offset=offset)
    converter.save_to_preset(str(tmp_path))
    model = build(tmp_path, pixels=(MEAN, STD))
    seen = model.get_layer("backbone").input
    seen = keras.Model(model.input, _fed(model))(normalized(levels()))
    np.testing.assert_allclose(seen, converter(levels()), atol=1e-4)


def _fed(model):
    """What the backbone within a network is given."""
    for node in model.get_layer("backbone")._inbound_nodes:
        if node.input_tensors[0] is not model.get_layer("backbone").input:
            fed = node.input_tensors[0]
    return fed


@needs_hub
@pytest.mark.parametrize(
    ("dtype", "variables", "computes", "logits"),
    [
        ("float64", "float64", "float64", "float64"),
        ("mixed_bfloat16", "float32", "bfloat16", "float32"),
    ],
)
def test_follows_the_dtype(tmp_path, dtype, variables, computes, logits):
    """Also where a backbone does not hand it to its layers."""
    before = keras.config.dtype_policy()
    tiny_presets.write(tmp_path, backbone("vgg"))
    model, _ = begun(tmp_path, dtype=dtype, pixels=(MEAN, STD))
    assert {v.dtype for v in model.weights} == {variables}
    layers = model.get_layer("backbone").layers
    assert next(x for x in layers if x.weights).compute_dtype == computes
    assert model(normalized(levels())).dtype == logits
    assert keras.config.dtype_policy() == before


@needs_hub
def test_a_classifier_of_theirs_is_a_preset_too(tmp_path):
    """As the line on downloads saves it: with a head, which is left."""
    from keras_hub import models as theirs

    task = theirs.ImageClassifier(
        tiny_presets.resnet(),
        num_classes=7,
        preprocessor=theirs.ResNetImageClassifierPreprocessor(
            tiny_presets.converter()
        ),
    )
    task.save_to_preset(str(tmp_path))
    model, report = begun(tmp_path, pixels=(MEAN, STD))
    assert not report.missing and not report.left_over
    assert report.head == ("head.dense/0", "head.dense/1")
    pooled = keras.Model(task.backbone.input, task.backbone.output)
    wanted = np.asarray(pooled(tiny_presets.converter()(levels())))
    got = features(model, normalized(levels()))
    np.testing.assert_allclose(got, wanted.mean((1, 2)), rtol=1e-4, atol=1e-5)


@needs_hub
def test_images_of_another_size_are_told_of_once(preset, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda *words: said.append(words))
    family._tell_of_size.cache_clear()
    for _ in range(2):
        build(preset[0], pixels=(MEAN, STD), input_shape=(8, 8, 3))
    build(preset[0], pixels=(MEAN, STD))
    assert len(said) == 1
    assert (
        f"is for images of {SIZE}x{SIZE}, these are of 8x8; --image_size=24"
        in (said[0][0] % said[0][1:])
    )


@needs_hub
def test_weights_for_images_of_another_size_say_which(tmp_path):
    """A transformer has a weight for each place."""
    tiny_presets.write(tmp_path, backbone("vit"))
    build(tmp_path, input_shape=(32, 32, 3))  # With fresh ones it can be.
    with pytest.raises(ValueError, match="images of 32x32.* of 24x24") as error:
        begun(tmp_path, input_shape=(32, 32, 3))
    assert "\n" not in str(error.value)


@needs_hub
@pytest.mark.parametrize("name", ["ResNetBackbone", "NoSuchBackbone"])
def test_a_network_that_keras_hub_does_not_make_is_told_in_a_line(
    tmp_path, name
):
    """Of settings that lack some, or of another version."""
    text = described().replace("ResNetBackbone", name)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="no network for images") as error:
        build(tmp_path)
    assert "\n" not in str(error.value)


@needs_hub
@pytest.mark.parametrize("with_pixels", [True, False])
def test_pixels_must_be_said_by_the_preset(preset, tmp_path, with_pixels):
    shutil.copytree(preset[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "image_converter.json").unlink()
    if not with_pixels:
        build(tmp_path)
        return
    with pytest.raises(ValueError, match="what pixels it was trained on"):
        build(tmp_path, pixels=(MEAN, STD))
    with pytest.raises(ValueError, match="what pixels it was trained on"):
        models.check_pixels(f"keras_hub:{tmp_path}")


def described(**settings):
    """A config.json, as KerasHub's, without KerasHub."""
    config = dict(name="backbone", image_shape=[None, None, 3]) | settings
    name = "keras_hub>ResNetBackbone"
    return json.dumps({"registered_name": name, "config": config})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "not a preset of KerasHub: it has no config.json"),
        ("{", "not from a preset of KerasHub's own networks"),
        ("[]", "not from a preset of KerasHub's own networks"),
        # As of transformers, which KerasHub would convert.
        ('{"model_type": "vit"}', "not from a preset of KerasHub's own"),
        (
            '{"registered_name": "mine>Net", "config": {}}',
            "it names 'mine>Net'",
        ),
        (
            '{"registered_name": "keras_hub>BertBackbone", "config": {}}',
            "a preset of BertBackbone, which does not take images",
        ),
        (described(image_shape=[None, None, 1]), "have 3 channels"),
        (described(dtype={"class_name": "DTypePolicyMap"}), "quantized"),
    ],
)
def test_a_folder_that_is_no_preset_for_images_is_refused(
    tmp_path, text, words
):
    """By its files alone, whether KerasHub is there or not."""
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        models.check_model_type(f"keras_hub:{tmp_path}")
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("keras_hub", "use keras_hub:<folder>, or give its folder as"),
        ("keras_hub:", "use keras_hub:<folder>"),
        ("keras_hub:resnet_18_imagenet", "There is no folder resnet.*nothing"),
        ("keras_hub:gone/resnet", "There is no folder gone/resnet.*Put it"),
        ("keras_hub:kaggle://a/b/keras/c", "nothing is downloaded here"),
        ("keras_hub:hf://a/b", "nothing is downloaded here.*save_to_preset"),
    ],
)
def test_names_of_no_folder_are_refused(name, words):
    with pytest.raises(ValueError, match=words):
        models.check_model_type(name)


def test_without_keras_hub_a_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(described())
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ValueError, match=r"meta-pseudo-labels\[hub\]"):
        models.check_model_type(f"keras_hub:{tmp_path}")
    with pytest.raises(ValueError, match="cannot be imported.*pip install"):
        presets.hub()


@needs_hub
@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("imagenet", "is for networks of keras.applications"),
        ("net.h5", "is for networks of keras.applications"),
        ("empty", "has no model.weights.h5"),
    ],
)
def test_weights_that_are_no_presets_are_refused(
    preset, tmp_path, weights, words
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text(described())
    path = str(tmp_path / weights) if weights != "imagenet" else weights
    with pytest.raises(ValueError, match=words):
        models.check_pretrained(f"keras_hub:{preset[0]}", path)
    with pytest.raises(ValueError, match=words):
        models.pretrained_network(
            f"keras_hub:{preset[0]}", path, input_shape=SHAPE
        )


@pytest.mark.parametrize("name", ["mlp", "MobileNetV2"])
def test_other_networks_name_that_of_a_preset(name, tmp_path):
    (tmp_path / "config.json").write_text(described())
    with pytest.raises(ValueError, match="--model_type=keras_hub:/"):
        models.check_pretrained(name, str(tmp_path))


@needs_hub
def test_a_network_of_other_inputs_is_refused(tmp_path):
    """By its settings; and once it is built, should these not tell."""
    from keras_hub import models as theirs

    theirs.BertBackbone(
        vocabulary_size=9,
        num_layers=1,
        num_heads=1,
        hidden_dim=4,
        intermediate_dim=4,
        max_sequence_length=8,
    ).save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match="which does not take images"):
        family.check_preset(str(tmp_path))
    net = family._backbone(
        str(tmp_path), {}, SHAPE, policy=keras.dtype_policies.get("float32")
    )
    with pytest.raises(ValueError, match="takes more than images"):
        family._called(net, keras.Input(SHAPE), str(tmp_path))


@needs_hub
def test_a_name_of_keras_hubs_own_in_the_way_is_not_downloaded(
    tmp_path, monkeypatch, preset
):
    """A folder that is called as one of its presets is, is read itself."""
    shutil.copytree(preset[0], tmp_path / "resnet_18_imagenet")
    monkeypatch.chdir(tmp_path)
    model, report = begun("resnet_18_imagenet", pixels=(MEAN, STD))
    assert not report.missing
    assert model.name == "resnet_18_imagenet"
