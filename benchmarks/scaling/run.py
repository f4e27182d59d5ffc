"""Simulates the time of a step on 1 to 2,048 TPU cores; computed, not measured.

    python -m benchmarks.scaling.run
    python -m benchmarks.scaling.run --write    # into docs/scaling.md
    python -m benchmarks.scaling.run --measure --json scaling.json

A small model of Meta Pseudo Labels with the release's two runs: arithmetic,
all-reduces of gradients and of batch norm's moments, and what every core does
alike. The global batch stays what it is. All constants are in
`model.Machine`; what can be checked without a TPU, in
measure.py.
"""

import argparse
import json
import math
import pathlib

import keras

from benchmarks.common.arguments import parsed, positive, write_report
from benchmarks.common.flops import flat_layers, layer_flops
from benchmarks.common.machine import RESULTS, ROOT
from benchmarks.scaling.estimates import RUNS, run_work
from benchmarks.scaling.model import Machine, Step
from benchmarks.scaling.tables import (
    measured_report,
    published_report,
    replace,
    run_report,
)
from meta_pseudo_labels.data import DATASETS
from meta_pseudo_labels.learners.build import build_model
from meta_pseudo_labels.models.batch_norm import BatchNorm
from meta_pseudo_labels.run.config.flags import config_from_flagfile

DOC = ROOT / "docs" / "scaling.md"
MEASURED = RESULTS / "scaling.json"
CORES = (1, *(2**power for power in range(3, 12)))


def read_step(flagfile):
    """The `Step` of the run with these settings."""
    work = run_work(flagfile)
    config = config_from_flagfile(ROOT / flagfile, output_dir="unused")
    model = build_model(config, DATASETS[config.dataset], role="student")
    layers = []
    for layer in flat_layers(model):
        if layer_flops(layer):
            image = len(layer.output.shape) == 4
            wide = image and max(layer.kernel_size) > 1
            width = layer.output.shape[2] if image else 1
            layers.append((layer_flops(layer), width, wide))
    return Step(
        batch_size=work.batch_size,
        unlabeled_ratio=work.unlabeled_ratio,
        feedback=work.feedback,
        forwards=work.step / work.forward / work.batch_size,
        layers=tuple(layers),
        channels=tuple(
            layer.gamma.shape[0]
            for layer in flat_layers(model)
            if isinstance(layer, BatchNorm)
        ),
        parameters=sum(math.prod(w.shape) for w in model.trainable_weights),
        group_batch_size=config.batch_norm_batch_size,
        activations=work.activations,
    )


def report():
    """What docs/scaling.md shows; Markdown. The last run is of ResNet-50."""
    parts = []
    for run in RUNS:
        step = read_step(run.flagfile)
        keras.backend.clear_session()
        machine = Machine(utilization=run.utilization)
        parts.append(run_report(run, step, machine, CORES))
    return "\n".join([*parts, published_report(step, machine) + "\n"])


def main():
    settings = parse_arguments()
    if settings.measure:
        from benchmarks.scaling.measure import measure

        found = measure(model=settings.model, rounds=settings.rounds)
        print(measured_report(found), end="")
        write_report(found, settings.json)
        return
    text = report()
    if MEASURED.exists():
        text += "\n" + measured_report(json.loads(MEASURED.read_text()))
    if settings.write:
        DOC.write_text(replace(DOC.read_text(), text))
    else:
        print(text, end="")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--write", action="store_true", help=f"into {DOC.name}, not here"
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="time two workers on this machine instead",
    )
    parser.add_argument("--json", type=pathlib.Path, help="of --measure")
    parser.add_argument(
        "--model", default="wrn-10-1", help="of --measure (%(default)s)"
    )
    parser.add_argument(
        "--rounds", type=positive, default=5, help="of --measure (%(default)s)"
    )
    return parsed(parser)


if __name__ == "__main__":
    main()
