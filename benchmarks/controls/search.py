"""Short runs of UDA on CIFAR-10 with a fast network, to choose its settings.

    python -m benchmarks.controls.search --bfloat16 --data_dir=data/tfds

All candidates in `TRIED` take the same number of steps, under a seed that no
comparison uses, and classify images of the unlabeled pool whose labels nobody
saw. Those in `LONG`, run with --only, have their own numbers of steps. Appends
one JSON line per candidate to a file in benchmarks/results; candidates already
there with the same settings are not repeated. Prints them, the best first.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.common.machine import RESULTS, ROOT
from benchmarks.controls import rows as control_rows
from benchmarks.controls import runs as control_runs
from meta_pseudo_labels.run.config.flags import config_from_flagfile

ROWS = RESULTS / "cifar10_fast_search.jsonl"
FLAGFILE = "flags/cifar10_fast_uda.flags"
SEED, LABELS, STEPS = 100, 4_000, 1_500
# Tried one at a time while the recipe shifted by 4 pixels.
_SHIFT_4 = {
    "rate 0.25": {"lr": 0.25},
    "rate 1": {"lr": 1.0},
    "decay 1.3e-3": {"weight_decay": 1.3e-3},
    "smoothing 0.1": {"label_smoothing": 0.1},
    "weight 3": {"uda_weight": 3.0},
    "threshold 0.9": {"uda_threshold": 0.9, "uda_temp": 0.5},
    "aligned": {"uda_distribution_alignment": True},
    "magnitude 10": {"augment_magnitude": 10, "augment_cutout": 0.5},
    "magnitude 2": {"augment_magnitude": 2},
}
# Name -> settings that differ from the recipe's.
TRIED = {
    "as the recipe": {},
    "shift 4": {"crop_padding": None},
    **{
        f"shift 4, {name}": {"crop_padding": None} | settings
        for name, settings in _SHIFT_4.items()
    },
}
LONG = {
    # 30 minutes on two idle cores.
    "width 64, long": {
        "model_type": "speednet-64",
        "num_train_steps": 9_000,
        "save_every": 9_000,
    },
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bfloat16", action="store_true", help="see run.py")
    parser.add_argument("--data_dir", help="folder of sets prepared by TFDS")
    parser.add_argument("--only", nargs="+", choices=TRIED | LONG)
    parsed = parser.parse_args()
    os.chdir(ROOT)  # Flagfiles name one another relative to it.
    rows, found = control_rows.read(ROWS), []
    for name in parsed.only or TRIED:
        settings = candidate(
            name, data_dir=parsed.data_dir, use_bfloat16=parsed.bfloat16
        )
        known = control_rows.find(
            rows, name, settings, split=control_rows.VALIDATION
        )
        if not known:
            known = [control_runs.measure(name, settings, select=True)]
            control_rows.append(known[0], ROWS)
        found += known[-1:]
    for row in sorted(found, key=lambda row: -row["accuracy"]):
        print(
            f"{row['run']:24}{row['steps']:7,}{100 * row['accuracy']:7.2f}"
            f"{row['train_cpu_seconds']:8.0f} processor s"
        )


def candidate(name, **others):
    """The `Config` of a candidate; flagfile paths are relative to ROOT."""
    steps = {"num_train_steps": STEPS, "save_every": STEPS}
    return config_from_flagfile(
        FLAGFILE,
        seed=SEED,
        num_labeled=LABELS,
        **steps | (TRIED | LONG)[name] | others,
    )


if __name__ == "__main__":
    main()
