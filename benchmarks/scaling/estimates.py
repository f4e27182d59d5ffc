"""Time and cost of the release's two runs on TPUs, computed, not measured.

    python -m benchmarks.scaling.estimates --dollars_per_chip_hour=1.20
    python -m benchmarks.scaling.estimates --write    # into tpu/README.md

The work of a step is counted from the networks themselves. To get days and
dollars, it takes two numbers that nobody here measured: the share of its peak
that a chip reaches (assumed per network in model.py), and the price of a chip
hour (an input; look it up). tpu/check.py measures the first on a TPU.
"""

import argparse
import textwrap

from benchmarks.common.documents import with_part
from benchmarks.common.machine import ROOT
from benchmarks.scaling.model import GIB, RUNS, SLICES
from benchmarks.scaling.steps import read_run

README = ROOT / "tpu" / "README.md"
PART = "estimates"
DOLLARS_PER_CHIP_HOUR = 1.0  # An example. See cloud.google.com/tpu/pricing.
HEAD = (
    "| slice | chips | peak, TFLOP/s | step, ms | images/s | run, days "
    "| chip hours | dollars | activations, GiB a chip |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
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
    if settings.write:
        README.write_text(with_part(README.read_text(), PART, text))
    else:
        print(text, end="")


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
        "assumed per network)",
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
    """The table of a run, and the figures it is based on; Markdown."""
    config, step = read_run(run.flagfile)
    steps = config.num_train_steps
    text = (
        f"**{run.title}** (`{run.flagfile}`): {config.model_type} is "
        f"{step.forward / 1e9:.3f} GFLOP an image, forward. A step has B = "
        f"{step.batch_size:,} and mu = {step.unlabeled_ratio}; with feedback "
        f"`{step.feedback}` it is worth {step.forwards:.0f} B forward passes, "
        f"{step.operations / 1e12:,.2f} TFLOP; {steps:,} steps are "
        f"{step.operations * steps / 1e18:,.2f} EFLOP. Assumed: "
        f"{utilization:.0%} of the peak ({run.why}), and {price:.2f} dollars "
        "per chip hour."
    )
    rows = (
        row(name, step, steps, utilization=utilization, price=price)
        for name in run.slices
    )
    return f"{textwrap.fill(text, 80)}\n\n{HEAD}{''.join(rows)}"


def row(name, step, steps, *, utilization, price):
    """The line of a slice, for a run with this number of steps."""
    tpu = SLICES[name]
    seconds = step.operations / (tpu.chips * tpu.peak * utilization)
    hours = seconds * steps / 3600
    need = step.activations / tpu.chips
    fits = "" if need < tpu.memory else ", **does not fit**"
    return (
        f"| {name} | {tpu.chips} | {tpu.chips * tpu.peak / 1e12:,.0f} "
        f"| {seconds * 1e3:,.0f} | {step.batch_images / seconds:,.0f} "
        f"| {hours / 24:,.{2 if hours < 24 else 1}f} "
        f"| {hours * tpu.chips:,.0f} | {hours * tpu.chips * price:,.0f} "
        f"| {need / GIB:,.1f} of {tpu.memory // GIB}{fits} |\n"
    )


if __name__ == "__main__":
    main()
