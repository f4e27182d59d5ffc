"""The tables of run.py: Markdown from its times."""

import dataclasses
import textwrap

from benchmarks.common.machine import headline
from benchmarks.scaling.model import FLOAT32, simulate

HEAD = (
    "| cores | replicas x cores | labeled images each | arithmetic, ms "
    "| gradients, ms | batch norm, ms | rest, ms | step, ms | images/s "
    "| efficiency |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)
HALF = 0.5
PUBLISHED_BATCH = 32768


def run_report(run, step, machine, cores):
    """The table of a run, its knee, and what shifts the knee."""
    times = [simulate(step, machine, cores=count) for count in cores]
    knees = {
        factor: knee(
            [
                simulate(step, _slower(machine, factor), cores=count)
                for count in cores
            ]
        )
        for factor in (1 / 3, 3)
    }
    fastest = min(times, key=lambda each: each.step)
    layers = len(step.channels)
    sums = step.passes * layers
    introduction = (
        f"**{run.title}**: B = {step.batch_size:,}, mu = "
        f"{step.unlabeled_ratio}, feedback `{step.feedback}`; "
        f"{step.parameters / 1e6:.2f} million weights and {layers} batch "
        f"norms a network, so {step.gradient_sums} all-reduces of "
        f"{FLOAT32 * step.parameters / 1e6:.1f} MB and {sums} small ones a "
        f"step. Assumed: {machine.utilization:.0%} of the peak."
    )
    conclusion = (
        f"The knee, up to which the efficiency is at least a half, is at "
        f"{knee(times):,} cores; with links three times as quick to answer at "
        f"{knees[1 / 3]:,}, three times as slow at "
        f"{knees[3]:,}. The shortest step is that of {fastest.cores:,} cores, "
        f"{milliseconds(fastest.step)} ms."
    )
    rows = "".join(_row(each, step, times[0]) for each in times)
    return (
        f"{textwrap.fill(introduction, 80)}\n\n{HEAD}{rows}\n"
        f"{textwrap.fill(conclusion, 80)}\n"
    )


def published_report(step, machine):
    """Compares the model with a measurement on 1,024 v3 chips (1811.06992)."""
    seconds = supervised_seconds(
        step, machine, images=PUBLISHED_BATCH, cores=2048
    )
    return textwrap.fill(
        "Beside a published figure: supervised ResNet-50 on 1,024 chips of v3 "
        "learned from more than 1.05 million images/s ([arXiv "
        "1811.06992](https://arxiv.org/abs/1811.06992)). The model here, with "
        f"one batch norm for all and an assumed batch of {PUBLISHED_BATCH:,}, "
        f"gives {PUBLISHED_BATCH / seconds / 1e6:.2f} million.",
        80,
        break_long_words=False,
        break_on_hyphens=False,
    )


def supervised_seconds(step, machine, *, images, cores):
    """Seconds of one network's forward and backward pass on labeled images."""
    weights = FLOAT32 * step.parameters
    work = 3 * images / cores * step.forward
    moments = sum(
        machine.all_reduce(2 * FLOAT32 * channels, cores=cores)
        for channels in step.channels
    )
    return (
        work / (machine.peak * machine.utilization)
        + machine.all_reduce(weights, cores=cores)
        + 2 * moments
        + machine.fixed
        + machine.accesses / 2 * weights / machine.memory_bandwidth
    )


def _slower(machine, factor):
    return dataclasses.replace(
        machine, hop=factor * machine.hop, launch=factor * machine.launch
    )


def efficiency(times, one):
    """Share of a core's time spent on what one core alone would do."""
    return one.step / (times.cores * times.step)


def knee(times):
    """The most cores up to which the efficiency is at least a half throughout.

    Args:
      times: for 1 core and more, in order.
    """
    best = 0
    for each in times:
        if efficiency(each, times[0]) < HALF:
            break
        best = each.cores
    return best


def _row(times, step, one):
    cores = f"{times.cores:,}{'' if times.fits else ' *'}"
    cells = (
        cores,
        f"{times.replicas:,} x {times.cores_per_replica}",
        f"{step.batch_size // times.replicas:,}",
        *(
            milliseconds(seconds)
            for seconds in (
                times.compute,
                times.gradients,
                times.batch_norm,
                times.rest,
                times.step,
            )
        ),
        f"{step.batch_images / times.step:,.0f}",
        f"{efficiency(times, one):.0%}",
    )
    return f"| {' | '.join(cells)} |\n"


def milliseconds(seconds):
    """Milliseconds as text, with about three digits."""
    value = 1e3 * seconds
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def measured_report(found):
    """What measure.py found; Markdown."""
    all_reduce = found["all_reduce"]
    rows = "".join(
        f"| {each['model']} | {each['all_reduces']} "
        f"| {each['megabytes']:.2f} | {each['apart_ms']:.1f} "
        f"| {each['predicted_ms']:.1f} | {each['together_ms']:.1f} "
        f"| {each['together_ms'] / each['predicted_ms']:.2f} |\n"
        for each in found["steps"]
    )
    facts = (
        f"{headline(found['machine'])}, load "
        f"{found['machine']['load_average']:.1f}; medians of "
        f"{found['rounds']} rounds. An all-reduce between the workers takes "
        f"{all_reduce['launch_ms']:.2f} ms, and "
        f"{all_reduce['ms_per_megabyte']:.2f} ms more for each MB."
    )
    return (
        f"{textwrap.fill(facts, 80)}\n\n"
        "| network | all-reduces | MB | step without them, ms "
        "| predicted with them, ms | measured, ms | measured / predicted |\n"
        "|---|---|---|---|---|---|---|\n"
        f"{rows}"
    )
