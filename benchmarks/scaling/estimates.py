"""Time and cost of the release's two runs on TPUs, computed, not measured.

    python -m benchmarks.scaling.estimates --dollars_per_chip_hour=1.20
    python -m benchmarks.scaling.estimates --write    # into tpu/README.md

The work of a step is counted from the networks themselves. From there to days
and dollars it takes two numbers that nobody here measured: which share of its
peak a chip reaches (assumed below, by network), and what an hour of a chip
costs (an input; look it up). tpu/check.py measures the first on a TPU.
"""

import argparse
import dataclasses
import textwrap

from benchmarks.common.flops import (
    flat_layers,
    forward_flops,
    layer_flops,
    mpl_step_flops,
    output_elements,
)
from benchmarks.common.machine import ROOT
from meta_pseudo_labels.data import DATASETS
from meta_pseudo_labels.learners.build import build_model
from meta_pseudo_labels.run.config.flags import config_from_flagfile

README = ROOT / "tpu" / "README.md"
BEGIN, END = "<!-- estimates: begin -->\n", "<!-- estimates: end -->\n"

DOLLARS_PER_CHIP_HOUR = 1.0  # An example. See cloud.google.com/tpu/pricing.
HEAD = (
    "| slice | chips | peak, TFLOP/s | step, ms | images/s | run, days "
    "| chip hours | dollars | activations, GiB a chip |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)
BYTES = 2  # Of a number in bfloat16.
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Slice:
    """A Cloud TPU by its accelerator type.

    Attributes:
      chips: how many it has.
      peak: bfloat16 operations a second of one chip.
      memory: of one chip, bytes.
    """

    chips: int
    peak: float
    memory: int


# Per chip, peak and memory. v3, v4 and v5e: cloud.google.com/tpu/docs/v3, /v4,
# /v5e. v2: Jouppi et al., "A Domain-Specific Supercomputer for Training Deep
# Neural Networks" (CACM 63:7, 2020).
_V2, _V3 = (46e12, 16 * GIB), (123e12, 32 * GIB)
_V4, _V5E = (275e12, 32 * GIB), (197e12, 16 * GIB)
SLICES = {
    "v2-8": Slice(4, *_V2),  # A chip of v2 to v4 has two cores, of v5e one.
    "v3-8": Slice(4, *_V3),
    "v4-8": Slice(4, *_V4),
    "v5litepod-8": Slice(8, *_V5E),
    "v3-32": Slice(16, *_V3),
    "v3-128": Slice(64, *_V3),
    "v4-128": Slice(64, *_V4),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One of the release's runs.

    Attributes:
      title: of its table.
      flagfile: its settings.
      utilization: assumed share of the peak; nobody here measured it.
      why: what speaks for this assumption.
      slices: names in `SLICES`.
    """

    title: str
    flagfile: str
    utilization: float
    why: str
    slices: tuple[str, ...]


ONE_HOST = ("v2-8", "v3-8", "v4-8", "v5litepod-8")
RUNS = (
    Run(
        "CIFAR-10 with 4,000 labels",
        "flags/cifar10_4000_mpl.flags",
        0.1,
        "its layers have 32 to 128 channels, and matrix units 128 lanes",
        (*ONE_HOST, "v3-32"),
    ),
    Run(
        "ImageNet with a tenth of its labels",
        "flags/imagenet_10_percent_mpl.flags",
        0.3,
        "its layers have 64 to 2,048 channels",
        (*ONE_HOST, "v3-32", "v3-128", "v4-128"),
    ),
)


def main():
    settings = parse_arguments()
    text = "\n".join(
        run_report(
            run,
            utilization=settings.utilization or run.utilization,
            price=settings.dollars_per_chip_hour,
        )
        for run in RUNS
    )
    if not settings.write:
        print(text, end="")
        return
    before, rest = README.read_text().split(BEGIN)
    README.write_text(before + BEGIN + text + END + rest.split(END)[1])


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dollars_per_chip_hour",
        type=positive,
        default=DOLLARS_PER_CHIP_HOUR,
        help="price of one chip for an hour (default: %(default)s, an example)",
    )
    parser.add_argument(
        "--utilization",
        type=positive,
        help="share of the peak that is reached, for both runs (default: "
        "assumed by network)",
    )
    parser.add_argument(
        "--write", action="store_true", help=f"into {README.name}, not here"
    )
    settings = parser.parse_args()
    if settings.utilization and settings.utilization > 1:
        parser.error("--utilization is a share of the peak, at most 1.")
    return settings


def positive(text):
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return number


def run_report(run, *, utilization, price):
    """The table of a run, and the figures that it comes from; Markdown."""
    work = run_work(run.flagfile)
    passes = work.step / work.forward / work.batch_size
    text = (
        f"**{run.title}** (`{run.flagfile}`): {work.network} is "
        f"{work.forward / 1e9:.3f} GFLOP an image, forward. A step has B = "
        f"{work.batch_size:,} and mu = {work.unlabeled_ratio}; with feedback "
        f"`{work.feedback}` it is worth {passes:.0f} B forward passes, "
        f"{work.step / 1e12:,.2f} TFLOP; {work.steps:,} steps are "
        f"{work.step * work.steps / 1e18:,.2f} EFLOP. Assumed: "
        f"{utilization:.0%} of the peak ({run.why}), and {price:.2f} dollars "
        "per chip hour."
    )
    rows = (
        row(name, work, utilization=utilization, price=price)
        for name in run.slices
    )
    return f"{textwrap.fill(text, 80)}\n\n{HEAD}{''.join(rows)}"


def row(name, work, *, utilization, price):
    """The line of a slice."""
    tpu = SLICES[name]
    seconds = step_seconds(work.step, tpu, utilization=utilization)
    hours = seconds * work.steps / 3600
    need = work.activations / tpu.chips
    fits = "" if need < tpu.memory else ", **does not fit**"
    return (
        f"| {name} | {tpu.chips} | {tpu.chips * tpu.peak / 1e12:,.0f} "
        f"| {seconds * 1e3:,.0f} | {work.images / seconds:,.0f} "
        f"| {hours / 24:,.{2 if hours < 24 else 1}f} "
        f"| {hours * tpu.chips:,.0f} | {hours * tpu.chips * price:,.0f} "
        f"| {need / GIB:,.1f} of {tpu.memory // GIB}{fits} |\n"
    )


def step_seconds(flops, tpu, *, utilization):
    """Seconds of a step of so many operations."""
    return flops / (tpu.chips * tpu.peak * utilization)


@dataclasses.dataclass(frozen=True)
class Work:
    """What a run asks of a machine.

    Attributes:
      network: name of both networks.
      feedback: name of the estimator.
      batch_size, unlabeled_ratio: B and mu.
      steps: of the run.
      forward: operations of a forward pass, per image.
      step: operations of a step.
      activations: bytes that a step keeps for its backward passes, at least.
    """

    network: str
    feedback: str
    batch_size: int
    unlabeled_ratio: int
    steps: int
    forward: int
    step: int
    activations: int

    @property
    def images(self):
        """Images of a step, of which the unlabeled have two views."""
        return self.batch_size * (1 + self.unlabeled_ratio)


def run_work(flagfile):
    """The `Work` of the run with these settings; teacher and student alike."""
    config = config_from_flagfile(ROOT / flagfile, output_dir="unused")
    model = build_model(config, DATASETS[config.dataset], role="student")
    forward = forward_flops(model)
    batch_size, ratio = config.train_batch_size, config.uda_data
    # The teacher's labeled, weak and strong images wait for their backward pass
    # while the student takes its step on strong and labeled ones.
    images = batch_size * (1 + 2 * ratio) + batch_size * (ratio + 1)
    return Work(
        network=config.model_type,
        feedback=config.mpl_feedback,
        batch_size=batch_size,
        unlabeled_ratio=ratio,
        steps=config.num_train_steps,
        forward=forward,
        step=mpl_step_flops(
            teacher=forward,
            student=forward,
            batch_size=batch_size,
            unlabeled_ratio=ratio,
            feedback=config.mpl_feedback,
        ),
        activations=images * activation_bytes(model),
    )


def activation_bytes(model):
    """Bytes per example of all outputs of convolutions and dense layers.

    What XLA keeps for the backward pass is at least these, in bfloat16;
    batch norm and activations can be computed again from them.
    """
    return BYTES * sum(
        output_elements(layer)
        for layer in flat_layers(model)
        if layer_flops(layer)
    )


if __name__ == "__main__":
    main()
