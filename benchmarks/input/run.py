"""Times the input pipeline against its peers and against a training step.

    python -m benchmarks.input.run --json input_pipeline.json

Images per second, on random images, of

    strong_view       RandAugment, cutout, flip and crop: a whole strong view
    rand_augment      the first of these alone, which is all that peers do
    training_batches  what training reads: labeled and unlabeled images,
                      normalized; an unlabeled image counts once for two views
    keras_cv, keras   their RandAugment layers, on batches
    torchvision       its RandAugment in a DataLoader, a worker per core;
                      left out unless torch and torchvision are installed
    imagenet          labeled images of ImageNet's size, from JPEG records
    bare_decode_and_crop   the minimum that such a path must do

all in tf.data's parallel map, except the last. Ratios are strong_view's speed
over a peer's, although a peer's layer is only the first part of such a view. As
in step_time/run.py, a round times every variant once, in random order; ratios
are computed within rounds, and medians over rounds are reported, so that noise
of the machine is shared.

Also measured: how long a step of Meta Pseudo Labels waits for its batch, as a
share of the step; and the peak memory of a process that reads a data set of
CIFAR-10's size.
"""

import json

import keras
import numpy as np

from benchmarks.common.arguments import (
    benchmark_parser,
    parsed,
    recorded,
    write_report,
)
from benchmarks.common.machine import machine_facts
from benchmarks.input.costs import (
    memory_of_own_process,
    peak_memory,
    waiting_for_input,
)
from benchmarks.input.imagenet import BARE
from benchmarks.input.imagenet import OURS as IMAGENET
from benchmarks.input.variants import OURS, PEERS, build_variants, peer_versions

BARS = {"keras_cv": 2.0, "keras": 4.0}  # Ratios not to fall below.
MAX_WAITING_SHARE, MAX_PIPELINE_GIB = 0.02, 1.0


def main():
    settings = parse_arguments()
    if settings.part == "memory":
        print(json.dumps(peak_memory(settings)))
        return
    keras.utils.set_random_seed(0)
    machine = machine_facts()  # So far, its load comes from other programs.
    # The small process first: it should not compete with the others.
    memory = memory_of_own_process(settings)
    variants, notes = build_variants(settings)
    rates = rates_in_rounds(
        variants, rounds=settings.rounds, seconds=settings.seconds
    )
    report = summarize(rates) | {
        "waiting": waiting_for_input(settings),
        "memory": memory,
        "notes": notes,
        "settings": recorded(settings, without=("part",)),
        "machine": machine | peer_versions(),
    }
    print_table(report)
    write_report(report, settings.json)


def parse_arguments():
    parser = benchmark_parser(
        __doc__,
        (
            ("batch_size", 128, "images in a batch of the speed table"),
            ("rounds", 7, "timed rounds"),
            ("train_images", 50_000, "size of the random training set"),
            ("step_batch_size", 8, "labeled images of a training step, B"),
            ("unlabeled_ratio", 7, "unlabeled images per labeled one, mu"),
            ("steps", 20, "timed training steps"),
        ),
    )
    parser.add_argument("--model", default="wrn-28-2", help="both networks")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="per variant and round"
    )
    parser.add_argument(
        "--part", choices=("all", "memory"), default="all", help="what to run"
    )
    settings = parsed(parser)
    if settings.seconds <= 0:
        parser.error(f"--seconds: must be above 0, got {settings.seconds}")
    return settings


def rates_in_rounds(variants, *, rounds, seconds):
    """Images per second of every variant in every round, {name: [rounds]}."""
    rates = {name: [] for name in variants}
    generator = np.random.default_rng(0)
    for number in range(1 + rounds):  # The first one warms up.
        for name in generator.permutation(list(variants)):
            rate = variants[name](seconds)
            if number:
                rates[name].append(rate)
    return {name: np.array(values) for name, values in rates.items()}


def summarize(rates):
    """Medians of the speeds and of the ratios, and the ratios' quartiles."""
    ratios = {
        name: rates[OURS] / rates[name] for name in PEERS if name in rates
    }
    return {
        "images_per_second": {
            name: float(np.median(values)) for name, values in rates.items()
        },
        "ratio": {
            name: float(np.median(ratios[name])) if name in ratios else None
            for name in PEERS
        },
        "ratio_quartiles": {
            name: np.quantile(values, [0.25, 0.75]).tolist()
            for name, values in ratios.items()
        },
        "imagenet_over_bare": float(np.median(rates[IMAGENET] / rates[BARE])),
    }


def print_table(report):
    machine, memory = report["machine"], report["memory"]
    waiting = report["waiting"]
    print(f"{machine['cpu']}, {machine['cores']} cores")
    print(f"{'':22}{'images/s':>10}{'ratio':>8}  quartiles      bar")
    for name, rate in report["images_per_second"].items():
        line = f"{name:22}{rate:10,.0f}"
        if report["ratio"].get(name):
            low, high = report["ratio_quartiles"][name]
            line += f"{report['ratio'][name]:8.2f}  {low:.2f} to {high:.2f}"
            line += f"{BARS[name]:8.1f}" if name in BARS else ""
        print(line)
    print(f"imagenet over bare: {report['imagenet_over_bare']:.2f}")
    for note in report["notes"]:
        print(note)
    print(
        f"waiting for input: {waiting['share']:.2%} of a step of "
        f"{waiting['step_seconds']:.3f} s (bar {MAX_WAITING_SHARE:.0%}); "
        f"a batch alone takes {waiting['seconds_alone']:.4f} s"
    )
    print(
        f"peak memory: {memory['pipeline_gib']:.2f} GiB (bar "
        f"{MAX_PIPELINE_GIB:.0f}) for images and pipeline, "
        f"{memory['peak_gib']:.2f} with the imports"
    )


if __name__ == "__main__":
    main()
