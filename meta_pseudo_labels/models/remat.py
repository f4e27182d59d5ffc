"""Networks whose blocks are recomputed for the gradient (`--remat`)."""

import re

import keras

# How our networks name the layers of their blocks.
_BLOCK = re.compile(r"(block_\d+)\.")


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class Rematerialized(keras.Model):
    """A functional model that keeps only its blocks' inputs in training.

    Made by `rematerialized`. Outputs, gradients and states are those of the
    original model: batch norm's moving averages move once, and the
    recomputation repeats the random draws.
    """

    def call(self, inputs, training=False, mask=None):
        if not training:
            return super().call(inputs, training=training, mask=mask)
        from meta_pseudo_labels.models.recompute import call_again

        if not hasattr(self, "_segments"):
            # Not an attribute that Keras tracks: the model has the layers.
            object.__setattr__(self, "_segments", _segments(self))
        x = inputs
        for is_block, segment in self._segments:
            if not is_block:
                x = segment(x, training=True)
                continue
            (x,), (states,) = call_again(segment, [x])
            for variable, state in zip(
                segment.non_trainable_variables, states, strict=True
            ):
                variable.assign(state)
        return x


def rematerialized(model):
    """The same network, layers and weights, with less memory in training.

    Only the input of each block is kept for the gradient, which computes the
    block again: one more forward pass.

    Args:
      model: from `build`, of a family with blocks: wide ResNets, ResNets,
        EfficientNets.

    Returns:
      A `keras.Model` that shares the layers of `model`.

    Raises:
      ValueError: for a model without blocks.
    """
    if not _block_ends(model):
        raise ValueError(
            f"{model.name!r} has no blocks to recompute; use remat with a "
            "wide ResNet, a ResNet or an EfficientNet, or cut the batch into "
            "slices (batch_slices), which works with any network."
        )
    return Rematerialized(model.input, model.output, name=model.name)


def _block_ends(model):
    """The last layer of each block by the block's name, in order."""
    ends = {}
    for layer in model.layers:
        block = _BLOCK.match(layer.name)
        if block:
            ends[block[1]] = layer
    return ends


def _segments(model):
    """(whether it is a block, model of the part) for all parts, in order.

    The parts are a stem, blocks, and a head; they share the model's layers.
    """
    ends = list(_block_ends(model).values())
    stem = min(
        i for i, layer in enumerate(model.layers) if _BLOCK.match(layer.name)
    )
    cuts = [model.input, model.layers[stem - 1].output]
    cuts += [layer.output for layer in ends] + [model.output]
    return [
        (0 < i < len(cuts) - 2, keras.Model(start, end, name=f"segment_{i}"))
        for i, (start, end) in enumerate(zip(cuts, cuts[1:], strict=False))
    ]
