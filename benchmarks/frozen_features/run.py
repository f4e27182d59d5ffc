"""Does feedback help on features of a frozen network, where seeds are cheap?

    python -m benchmarks.frozen_features.features ...    # first, see there
    python -m benchmarks.frozen_features.run runs/features.npz --search
    python -m benchmarks.frozen_features.run runs/features.npz
    python -m benchmarks.frozen_features.run runs/features.npz --own

Teacher and student are small networks on cached features of CIFAR-10, with
some weak and strong views of each image; so a run takes seconds, and twenty
seeds are affordable. --search tries settings on other seeds, and judges them
on the validation images. Without it, the settings that won there are judged on
the test images. The setting is the same with each feedback and without; --own
takes the one that was best for each method by itself, where that is another.
Rows already in the file are not made again.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn.decomposition import PCA

from benchmarks.common.arguments import positive
from benchmarks.common.machine import RESULTS
from benchmarks.frozen_features.trainer import (
    AHEAD,
    CLASSES,
    Trainer,
    read_rows,
)
from meta_pseudo_labels.evaluation.statistics import estimate, paired_difference

SEEDS, SEARCH_SEEDS = range(20), range(100, 103)
LABELS = (10, 40, 250)
FEEDBACK = ("off", "exact", "reinforce_per_example")
METHODS = (
    "supervised",
    "uda",
    *(f"{name}, labels alone" for name in FEEDBACK),
    *(f"{name}, consistency" for name in FEEDBACK),
)
COMPONENTS = 256  # Of the 1,280 features; a step takes a fifth of the time.


@dataclasses.dataclass(frozen=True)
class Settings:
    """What was chosen on the validation images of SEARCH_SEEDS.

    Attributes:
      learning_rate: of SGD with Nesterov momentum 0.9, for all networks.
      num_steps: of training; finetuning takes a fifth of them.
      consistency: weight of the UDA term.
      threshold: confidence from which a weak view counts in that term.
      label_temperature: of the teacher's pseudo labels.
    """

    learning_rate: float = 0.03
    num_steps: int = 1_000
    consistency: float = 1.0
    threshold: float = 0.6
    label_temperature: float = 0.5

    def times(self, factor):
        """The same with `factor` times the steps; the ramp grows with them."""
        steps = factor * self.num_steps
        return dataclasses.replace(self, num_steps=steps)


TRIED = (
    {},
    {"learning_rate": 0.1},
    {"learning_rate": 0.01},
    {"consistency": 0.3},
    {"threshold": 0.9},
    {"label_temperature": 1.0},
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("features", help="file that `features` wrote")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--labels", type=_labels, nargs="*", default=LABELS)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--seeds", type=positive, help="how many; default: all")
    parser.add_argument(
        "--times",
        type=positive,
        default=1,
        help="multiplies the chosen steps; for methods whose steps are cheap",
    )
    parser.add_argument("--output_dir", type=pathlib.Path, default=RESULTS)
    arguments = parser.parse_args()
    for method in arguments.methods:
        if method not in METHODS and not re.fullmatch(AHEAD, method):
            parser.error(
                f"--methods: {method!r} is not a method; use some of "
                f"{METHODS} or 'look ahead N, consistency', N at least 1."
            )
    if arguments.search and arguments.own:
        parser.error("--own takes what --search found; leave one of them out.")
    searched = arguments.output_dir / "frozen_features_search.jsonl"
    path = arguments.output_dir / "frozen_features.jsonl"
    seeds = SEEDS
    if arguments.search:
        path, seeds = searched, SEARCH_SEEDS
    if arguments.own:
        path = arguments.output_dir / "frozen_features_own.jsonl"
    if arguments.seeds and arguments.seeds > len(seeds):
        parser.error(f"--seeds={arguments.seeds}: there are {len(seeds)}.")
    arrays = load(arguments.features, is_search=arguments.search)
    for method in arguments.methods:
        trainers = {}  # Traced once for each of the settings.
        for labels in arguments.labels:
            if arguments.search:
                wanted = [Settings(**changes) for changes in TRIED]
            else:
                rows = read_rows(searched)
                wanted = [chosen(rows, method, labels)]
                if arguments.own:
                    own = chosen(rows, method, labels, own=True)
                    wanted = [own] if own != wanted[0] else []
            for settings in wanted:
                settings = settings.times(arguments.times)
                new = Trainer(method, settings)
                trainer = trainers.setdefault(settings, new)
                for seed in seeds[: arguments.seeds]:
                    trainer.add_row(path, arrays, labels, seed)
    print(table(read_rows(path)))


def _labels(text):
    """A number of labels, the same from each class."""
    count = positive(text)
    if count % CLASSES:
        raise argparse.ArgumentTypeError(f"{text} is no multiple of {CLASSES}")
    return count


def chosen(rows, method, labels, *, own=False):
    """The settings that were best on validation images.

    They are the same with each feedback and without, so that only the feedback
    differs: those with the best mean over all of these.

    Args:
      rows: of a search.
      method: one of METHODS.
      labels: how many.
      own: whether to take those that were best for this method alone.
    """
    _, _, term = method.partition(", ")
    found = collections.defaultdict(list)
    for row in rows:
        _, _, other = row["method"].partition(", ")
        alike = row["method"] == method
        if term and not own:
            alike = other == term
        if alike and row["labels"] == labels:
            settings = Settings(**row["settings"])
            found[settings].append(result(row))
    if not found:
        raise SystemExit(
            f"No search for {method!r} with {labels} labels; run --search."
        )
    return max(found, key=lambda settings: np.mean(found[settings]))


def result(row):
    """The accuracy to judge a row by, in percent."""
    return row.get("accuracy_finetuned", row["accuracy"])


def load(path, *, is_search):
    """The cached features, along their COMPONENTS largest components.

    The components are those of the plain images of the pool, where their mean
    square is 1.

    Args:
      path: the file that `features` wrote.
      is_search: whether to judge on the validation set, not the test set.
    """
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    plain = np.float32(arrays["plain"])
    mean, scale = plain.mean(0), plain.std(0) + 1e-3
    components = PCA(min(COMPONENTS, len(plain) - 1), random_state=0)
    components.fit((plain - mean) / scale)
    length = np.sqrt(components.explained_variance_.mean())
    directions = np.float32(components.components_.T / length)
    judge = "validation" if is_search else "test"
    return {
        name: (np.float32(arrays[name]) - mean) / scale @ directions
        for name in ("plain", "weak", "strong", judge)
    } | {
        "labels": arrays["labels"].astype(np.int32),
        "judge": judge,
        "judge_labels": arrays[f"{judge}_labels"],
    }


def table(rows):
    """Means, and differences from `off` on the same seeds, for a terminal."""
    lines = []
    groups = {}
    for row in rows:
        key = row["labels"], json.dumps(row["settings"]), row["method"]
        groups.setdefault(key, {})[row["seed"]] = result(row)
    for (labels, settings, method), values in sorted(groups.items()):
        found = estimate(values.values())
        line = f"{labels:4d} {method:38s} {found.mean:6.2f}"
        if found.margin is not None:
            line += f" ± {found.margin:.2f}"
        name, _, term = method.partition(", ")
        control = groups.get((labels, settings, f"off, {term}"))
        if control and name != "off":
            gain = paired_difference(values, control)
            line += f"   over off {gain.mean:+.2f}"
            if gain.margin is not None:
                line += f" ± {gain.margin:.2f}"
        lines.append(f"{line}   ({found.count} seeds) {settings}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
