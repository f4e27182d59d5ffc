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
know it; a plug-in's as well as a file of this package.
"""

import json
import os

from meta_pseudo_labels.utils.registry import Registry

PRESET_CONFIG = "config.json"  # By which a folder is known for a preset.

FAMILIES = Registry(
    "model family", package="meta_pseudo_labels.models.families"
)


class Family:
    """What the names of some networks mean. Subclass it, and register that.

    Attributes:
      known: how messages write its names, such as "wrn-<depth>-<k>".
      examples: names, of which messages offer those near to a wrong one.
      builder: makes a `keras.Model`, which gives logits, of the keyword
        arguments that `sizes` gives, and of those of `models.build` that it
        has in its signature; `norm` are the `NormSettings`.
      has_blocks: whether `rematerialized` takes its networks, whose layers
        are then called `block_<number>.<...>`.
      has_preprocessing: whether `builder` has `pixels`: pretrained networks of
        the family saw other images than ours, see `models.build`.
      pretrained: None, or a function that gives a network whose weights others
        trained, of a name, weights (a file, "imagenet", a preset's folder) and
        an input_shape.
      named_by_weights: a name that means the network which the weights are of
        that it is to begin with: "<name>:<weights>", of which `sizes` gives
        the `preset`. None where there is none.
      release_scopes: {name: first part of its variables' names in the
        release}, where that is not the name itself.
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
        """What a name says, as a dict; None for one of another family.

        Raises:
          ValueError: for sizes that no network can have.
        """
        raise NotImplementedError

    @staticmethod
    def check_pixels(sizes):
        """Refuses a network of which nobody knows what pixels it expects.

        Args:
          sizes: what `sizes` gives; only where `has_preprocessing`.

        Raises:
          ValueError: see above.
        """

    @classmethod
    def check_pretrained(cls, weights):
        """Refuses weights that `pretrained` does not take, by their name.

        Args:
          weights: "imagenet", a file of Keras's networks, or a preset's folder.

        Raises:
          ValueError: see above; here for all, unless there is a `pretrained`,
            which then says itself what it does not take.
        """
        if cls.pretrained is not None:
            return
        refuse_pretrained(weights)

    @staticmethod
    def weights(sizes, *, input_shape, num_classes):
        """How many weights a network has at the least, before it is built.

        Args:
          sizes: what `sizes` gives.
          input_shape, num_classes: see `models.build`.
        """
        return 0


def refuse_pretrained(weights):
    """Says for which networks weights are that a family does not take.

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

    Other libraries have a config.json too, which does not name its class so.
    """
    try:
        with open(os.path.join(path, PRESET_CONFIG), encoding="utf-8") as file:
            return "registered_name" in json.load(file)
    except (OSError, ValueError, TypeError):
        return False
