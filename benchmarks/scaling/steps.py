"""The work in the steps of runs, counted from their networks."""

import functools
import math

from benchmarks.common.flops import (
    flat_layers,
    layer_flops,
    mpl_step_flops,
    output_elements,
)
from benchmarks.common.machine import ROOT
from benchmarks.scaling.model import Step
from meta_pseudo_labels.data import DATASETS
from meta_pseudo_labels.learners.build import build_model
from meta_pseudo_labels.models.batch_norm import BatchNorm
from meta_pseudo_labels.run.config.flags import config_from_flagfile

BYTES = 2  # Per number in bfloat16.


@functools.cache
def read_run(flagfile):
    """The `Config` in a flagfile, and the `Step` of its run."""
    config = config_from_flagfile(ROOT / flagfile, output_dir="unused")
    model = build_model(config, DATASETS[config.dataset], role="student")
    return config, step_of(config, model)


def step_of(config, model):
    """The `Step` of a run whose teacher and student both have this model."""
    batch_size, ratio = config.train_batch_size, config.uda_data
    forwards = mpl_step_flops(
        teacher=1,
        student=1,
        batch_size=batch_size,
        unlabeled_ratio=ratio,
        feedback=config.mpl_feedback,
    )
    # The teacher's labeled, weak and strong images wait for their backward pass
    # while the student takes its step on strong and labeled images.
    images = batch_size * (1 + 2 * ratio) + batch_size * (ratio + 1)
    layers = flat_layers(model)
    return Step(
        batch_size=batch_size,
        unlabeled_ratio=ratio,
        feedback=config.mpl_feedback,
        forwards=forwards / batch_size,
        layers=tuple(_work(layer) for layer in layers if layer_flops(layer)),
        channels=tuple(
            layer.gamma.shape[0]
            for layer in layers
            if isinstance(layer, BatchNorm)
        ),
        parameters=sum(math.prod(w.shape) for w in model.trainable_weights),
        group_batch_size=config.batch_norm_batch_size,
        activations=images * activation_bytes(model),
    )


def _work(layer):
    """As in `Step.layers`."""
    image = len(layer.output.shape) == 4
    width = layer.output.shape[2] if image else 1
    return layer_flops(layer), width, image and max(layer.kernel_size) > 1


def activation_bytes(model):
    """Bytes per example of all outputs of convolutions and dense layers.

    XLA keeps at least these for the backward pass, in bfloat16; batch norm and
    activations can be recomputed from them.
    """
    return BYTES * sum(
        output_elements(layer)
        for layer in flat_layers(model)
        if layer_flops(layer)
    )
