"""How far the weights of a network lie below its logits, in layers."""

import collections

import keras

from meta_pseudo_labels.models.dense import backbone_weights


def backbone_depths(model):
    """How many layers below the head each backbone weight is, from 1.

    A layer here is whatever lies between two places that all data passes: a
    residual block or one of Inception's, where branches meet again; elsewhere
    a single layer with a kernel. Layers without a kernel, such as batch norm,
    belong to the layer below, and at the very beginning to the one above. So
    the layers of a wide ResNet and a ResNet are their stem and their blocks;
    in blocks without a shortcut, such as some of EfficientNets and MobileNets,
    each convolution counts. A model that is a layer of another one counts by
    its own layers, and so does a subclassed one, in the order of its layers.

    Args:
      model: a built Keras model that returns logits, [batch, classes].

    Returns:
      A list of integers, one for each of `models.backbone_weights`. Weights
      in no layer, such as position embeddings, are as deep as the deepest.

    Raises:
      ValueError: as `models.backbone_weights`.
    """
    backbone = backbone_weights(model)
    ids, depths, depth = {id(w) for w in backbone}, {}, 0
    for group in reversed(_groups(model)):
        own = [id(w) for w in group if id(w) in ids]
        depth += bool(own)
        depths |= dict.fromkeys(own, depth)
    return [depths.get(id(weight), max(depth, 1)) for weight in backbone]


def _groups(model):
    """The trainable weights of each layer, from the inputs on."""
    groups = [[]]
    for layers in _parts(model):
        weights = [w for layer in layers for w in layer.trainable_weights]
        if _has_kernel(weights) and _has_kernel(groups[-1]):
            groups.append([])
        groups[-1] += weights
    return groups


def _has_kernel(weights):
    return any(len(weight.shape) > 1 for weight in weights)


def _parts(model):
    """Keras's layers with weights, a list per part that all data passes."""
    parts = [[layer] for layer in model.layers]
    is_graph = bool(getattr(model, "outputs", None))
    if is_graph and not isinstance(model, keras.Sequential):
        try:
            parts = _cut(model)
        except AttributeError:  # A layer that is called twice has no `input`.
            pass
    found = []
    for part in parts:
        part = [x for x in part if getattr(x, "weights", None)]
        if len(part) == 1 and getattr(part[0], "layers", None):
            found += _parts(part[0])
        elif part:
            found.append(part)
    return found


def _cut(model):
    """The operations of a graph, cut where only one tensor is still needed."""
    steps = [
        (x, [] if isinstance(x, keras.layers.InputLayer) else _flat(x.input))
        for x in model.operations
    ]
    uses = collections.Counter(id(t) for _, tensors in steps for t in tensors)
    uses.update(id(t) for t in model.outputs)
    needed = {id(t) for t in model.inputs}
    parts = [[]]
    for operation, tensors in steps:
        parts[-1].append(operation)
        uses.subtract(id(t) for t in tensors)
        needed |= {id(t) for t in _flat(operation.output)}
        needed = {t for t in needed if uses[t] > 0}
        if len(needed) == 1:
            parts.append([])
    return parts


def _flat(tensors):
    return keras.tree.flatten(tensors)
