"""Families of networks, each in a file of its own that registers it.

    @FAMILIES.register("tower")
    class Tower(Family):
        known = "tower-<blocks>"
        examples = ("tower-3",)
        builder = staticmethod(tower)

        @staticmethod
        def sizes(model_type):
            found = re.fullmatch(r"tower-(\\d+)", model_type)
            return found and dict(blocks=int(found[1]))

From then on `models.build("tower-3", ...)` and `Config(model_type="tower-3")`
know it, whether it is in a plug-in or in a file of this package.
"""

import json
import os

from meta_pseudo_labels.utils.registry import Registry

PRESET_CONFIG = "config.json"  # It marks a folder as a preset.

FAMILIES = Registry(
    "model family", package="meta_pseudo_labels.models.families"
)


class Family:
    """What the names of some networks mean. Subclass and register it.

    Attributes:
      known: how messages write its names, such as "wrn-<depth>-<k>".
      examples: names; messages suggest those close to a wrong one.
      builder: makes a `keras.Model` that returns logits, from the keyword
        arguments that `sizes` returns and those of `models.build` that are in
        its signature; `norm` is the `NormSettings`.
      has_blocks: whether `rematerialized` accepts its networks, whose layers
        are then called `block_<number>.<...>`.
      has_preprocessing: whether `builder` has `pixels`: pretrained networks of
        the family saw other images than ours, see `models.build`.
      pretrained: None, or a function of a name, weights (a file, "imagenet", a
        preset's folder) and an input_shape that returns a pretrained network.
      named_by_weights: a name that means the network of the weights that it
        starts from: completed to "<name>:<weights>", for which `sizes` returns
        the `preset`. None if there is no such name.
      release_scopes: {name: first part of its variables' names in the
        release}, if that is not the name itself.
    """

    known = ""
    examples = ()
    builder = None
    has_blocks = False
    has_preprocessing = False
    pretrained = None
    named_by_weights = None
    release_scopes = {}

    @staticmethod
    def sizes(model_type):
        """What a name means, as a dict; None for one of another family.

        Raises:
          ValueError: for sizes that no network can have.
        """
        raise NotImplementedError

    @staticmethod
    def check_pixels(sizes):
        """Refuses a network if it is not known what pixels it expects.

        Args:
          sizes: what `sizes` returns; only if `has_preprocessing`.

        Raises:
          ValueError: see above.
        """

    @classmethod
    def check_pretrained(cls, weights):
        """Refuses weights that `pretrained` does not accept, by their name.

        Args:
          weights: "imagenet", a file of Keras's networks, or a preset's folder.

        Raises:
          ValueError: see above; here for all, unless there is a `pretrained`,
            which then refuses by itself what it does not accept.
        """
        if cls.pretrained is not None:
            return
        refuse_pretrained(weights)

    @staticmethod
    def weights(sizes, *, input_shape, num_classes):
        """A lower bound on a network's number of weights, before it is built.

        Args:
          sizes: what `sizes` returns.
          input_shape, num_classes: see `models.build`.
        """
        return 0


def refuse_pretrained(weights):
    """Refuses weights and says which networks they are for.

    Args:
      weights: see `Family.check_pretrained`.

    Raises:
      ValueError: always.
    """
    if is_preset(weights):
        raise ValueError(
            f"this is a preset of KerasHub; its network is "
            f"--model_type=keras_hub:{weights}."
        )
    raise ValueError(
        "such weights are for networks of keras.applications; give a "
        ".weights.h5 or .keras file."
    )


def is_preset(path):
    """Whether a path is the folder of a preset of KerasHub.

    Other libraries have a config.json too, but without that entry.
    """
    try:
        with open(os.path.join(path, PRESET_CONFIG), encoding="utf-8") as file:
            return "registered_name" in json.load(file)
    except (OSError, ValueError, TypeError):
        return False
