"""Turns the times of run.py into ratios, bars and a table."""

import numpy as np

from benchmarks.common.machine import headline
from benchmarks.step_time.variants import (
    BFLOAT16,
    FEEDBACKS,
    IN_BFLOAT16,
    MATMUL,
    PARTS,
    TEACHER,
    TORCH,
    TORCH_BFLOAT16,
)

# Ratios not to exceed: of a step to its bare parts; and of the step of
# "release" to the same step in PyTorch.
BARS = {"release": 1.05, "off": 1.05, "reinforce": 1.10, "exact": 1.28}
TORCH_BAR = 0.9
WAITING_BAR = 1.03  # For a step while the student waits, to UDA's.
BFLOAT16_BAR = 0.55  # For a step in bfloat16, to the same in float32.


def summarize(rounds, *, flops, memory):
    """Medians over rounds of times, ratios and work per second.

    Args:
      rounds: {"seconds" and "cpu_seconds": {variant: [rounds] array}}.
      flops: {variant: floating-point operations}.
      memory: {feedback: peak in GiB}; may be empty.
    """
    seconds = rounds["seconds"]
    report = {"bars": BARS | {"release to PyTorch": TORCH_BAR}}
    for kind, times in rounds.items():
        report[kind] = medians(times)
        prefix = kind.removesuffix("seconds")
        parts = sum(times[name] for name in PARTS)
        ratios = {name: times[name] / parts for name in FEEDBACKS}
        to_torch = {
            name: times["release"] / times[name]
            for name in TORCH
            if name in times
        } | {
            name: times[f"release{IN_BFLOAT16}"] / times[name]
            for name in TORCH_BFLOAT16
            if name in times
        }
        to_float32 = {
            name: times[name] / times[name.removesuffix(IN_BFLOAT16)]
            for name in BFLOAT16
            if name in times
        }
        if to_float32:
            report["bars"]["bfloat16 to float32"] = BFLOAT16_BAR
        uda, *others = TEACHER
        to_uda = {
            name: times[name] / times[uda] for name in others if name in times
        }
        if to_uda:
            report["bars"]["waiting to UDA"] = WAITING_BAR
        for name, values in {
            "ratio": ratios,
            "release_to_torch": to_torch,
            "to_float32": to_float32,
            "to_uda": to_uda,
        }.items():
            report[f"{prefix}{name}"] = medians(values)
            report[f"{prefix}{name}_quartiles"] = quartiles(values)
    speeds = {name: flops[name] / times for name, times in seconds.items()}
    report["gigaflops_per_second"] = {
        name: value / 1e9 for name, value in medians(speeds).items()
    }
    report["share_of_matmul"] = medians(
        {name: speed / speeds[MATMUL] for name, speed in speeds.items()}
    )
    return report | {"peak_gib": memory}


def medians(arrays):
    return {name: float(np.median(array)) for name, array in arrays.items()}


def quartiles(arrays):
    return {
        name: np.quantile(array, [0.25, 0.75]).tolist()
        for name, array in arrays.items()
    }


def print_table(report):
    print(headline(report["machine"]))
    columns = ("seconds", "ratio", "quartiles", "bar", "GFLOP/s", "of matmul")
    print(f"{'':32}{'{:>9}{:>7}{:>14}{:>6}{:>9}{:>10}'.format(*columns)}")
    for name in report["seconds"]:
        print_row(report, name)
    print_ratios(report, "release_to_torch", "release / {}", bar=TORCH_BAR)
    print_ratios(report, "to_float32", "{} / float32", bar=BFLOAT16_BAR)
    print_ratios(report, "to_uda", "{} / UDA")
    for name, peak in report["peak_gib"].items():
        print(f"peak of a process with {name}: {peak:.2f} GiB")


def print_ratios(report, kind, title, *, bar=None):
    """Prints a line for each ratio of a kind in a report, such as `to_uda`."""
    for name, ratio in report[kind].items():
        low, high = report[f"{kind}_quartiles"][name]
        print(
            f"{title.format(name)}: {ratio:.2f} ({low:.2f} to {high:.2f}), in "
            f"processor time {report[f'cpu_{kind}'][name]:.2f}"
            + (f"; not above {bar}" if bar else "")
        )


def print_row(report, name):
    ratio = bounds = ""
    if name in report["ratio"]:
        ratio = f"{report['ratio'][name]:.2f}"
        bounds = "{:.2f} to {:.2f}".format(*report["ratio_quartiles"][name])
    print(
        f"{'step, ' * (name in (*FEEDBACKS, *BFLOAT16)) + name:32}"
        f"{report['seconds'][name]:9.3f}{ratio:>7}{bounds:>14}"
        f"{BARS.get(name, ''):>6}{report['gigaflops_per_second'][name]:9.1f}"
        f"{report['share_of_matmul'][name]:10.0%}"
    )
