"""What `mpl review` finds: planted wrong labels, and images to label.

    python -m benchmarks.review.run --seeds=10
    python -m benchmarks.review.run --seeds=3 --data_dir=data/tfds \
        --only "wrong labels, CIFAR-10, 4,000 labels"
    python -m benchmarks.review.run --table

The first two train what is not yet in benchmarks/results/review.jsonl, adding a
row each; all write the table of docs/review.md.

Wrong labels: 10 % of the labels are made wrong; the figure is how many of them
are among the 15 % that the review doubts most. To label: a run is trained, then
20 more images get their true labels, chosen by the review or at random, and a
run is trained from scratch on each choice; the figure is its test accuracy.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.common.documents import with_part
from benchmarks.common.machine import (
    RESULTS,
    ROOT,
    headline,
    machine_facts,
    revision,
)
from benchmarks.controls import tables
from meta_pseudo_labels.evaluation.statistics import (
    estimate,
    paired_difference,
)
from meta_pseudo_labels.run.config.flags import config_from_flagfile
from meta_pseudo_labels.run.data import load_data
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.review_tables import doubted, pools, wanted

ROWS, DOCUMENT = RESULTS / "review.jsonl", ROOT / "docs" / "review.md"
FLAGS = ROOT / "flags" / "digits_uda.flags"
# Short runs of a small network: a busy machine can do dozens of them.
SHORT = dict(model_type="mlp", lr=0.3, num_train_steps=400)
# CIFAR-10 at its own size, with a fast network that takes minutes. Views are
# shifted as they were when the first rows were made.
CIFAR = dict(num_train_steps=1_000, eval_batch_size=500, crop_padding=None)
CIFAR_FLAGS = ROOT / "flags" / "cifar10_fast_uda.flags"
NOISE, TOP, MORE = 0.1, 0.15, 20
WRONG, NEXT = "wrong labels", "to label"
WRONG_OF_MORE = f"{WRONG}, 100 labels"
WRONG_CIFAR = f"{WRONG}, CIFAR-10, 4,000 labels"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--only", choices=MEASURES, nargs="+", help="default: all on digits"
    )
    parser.add_argument("--data_dir", help="where TFDS prepared CIFAR-10")
    parser.add_argument(
        "--table", action="store_true", help="only from the existing rows"
    )
    parsed = parser.parse_args()
    chosen = parsed.only or [name for name in MEASURES if name != WRONG_CIFAR]
    if WRONG_CIFAR in chosen and not parsed.data_dir:
        parser.error(f"{WRONG_CIFAR!r} needs --data_dir.")
    places = {WRONG_CIFAR: {"data_dir": parsed.data_dir}}
    todo = [(what, seed) for what in chosen for seed in range(parsed.seeds)]
    done = {(row["what"], row["seed"]) for row in rows()}
    for what, seed in () if parsed.table else todo:
        if (what, seed) not in done:
            found = MEASURES[what](seed, **places.get(what, {}))
            facts = {"what": what, "seed": seed} | found
            facts["machine"] = machine_facts() | {"revision": revision()}
            with open(ROWS, "a", encoding="utf-8") as file:
                file.write(json.dumps(facts) + "\n")
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(with_part(text, "review", table(rows())), "utf-8")


def rows():
    """All measurements, a list of dicts."""
    if not ROWS.exists():
        return []
    return [json.loads(x) for x in ROWS.read_text("utf-8").splitlines()]


def wrong_labels(seed, **settings):
    """Recall of the planted wrong labels among the most doubted.

    Args:
      seed: for the choice of labels, for the wrong ones, and for the run.
      **settings: settings of the run that differ from those for digits.
    """
    experiment, pool, _ = _reviewed(seed, label_noise=NOISE, **settings)
    chosen = experiment.data.chosen
    wrong = np.isin(experiment.data.labeled_indices, chosen.changes["wrong"])
    order = doubted(pool).places
    return {"recall": recall(wrong, order, TOP), "wrong": int(wrong.sum())}


def recall(wrong, order, share):
    """Share of the wrong labels that are among the first ones.

    Args:
      wrong: [N] bool.
      order: [N] places, the most doubted first.
      share: share of the N that is looked at, rounded up.
    """
    looked_at = order[: math.ceil(share * len(order))]
    return float(wrong[looked_at].sum() / wrong.sum())


def to_label(seed):
    """Accuracies before and after labeling the chosen or random images."""
    before, labeled, pool = _reviewed(seed)
    everything = load_data(dataclasses.replace(before.config, num_labeled=0))
    numbers = everything.labeled_indices
    is_kept = np.isin(numbers, before.data.labeled_indices)
    kept, rest = np.flatnonzero(is_kept), np.flatnonzero(~is_kept)
    others = everything.labeled_images[rest]
    np.testing.assert_array_equal(others, before.data.unlabeled_images)
    places = np.array([int(name.split()[-1]) for name in pool.names])
    chosen = rest[places[wanted(pool, labeled, MORE).places]]
    drawn = np.random.RandomState([seed, MORE]).permutation(rest)[:MORE]
    found = {"before": before.evaluate()["student"]}
    for name, more in (("review", chosen), ("random", drawn)):
        places = np.sort(np.concatenate([kept, more]))
        images = dataclasses.replace(
            everything,
            labeled_images=everything.labeled_images[places],
            labeled_labels=everything.labeled_labels[places],
            labeled_indices=numbers[places],
            unlabeled_images=np.delete(
                everything.labeled_images, places, axis=0
            ),
        )
        found[name] = _trained(seed, data=images).evaluate()["student"]
    return found


def _reviewed(seed, **settings):
    """A trained `Experiment` and the `Pool`s of its images."""
    experiment = _trained(seed, **settings)
    learner = experiment.trained_learner()
    return experiment, *pools(learner, experiment.config, experiment.data)


def _trained(seed, data=None, flags=FLAGS, **settings):
    keras.backend.clear_session()
    settings = (SHORT if flags == FLAGS else {}) | settings
    steps = settings["num_train_steps"]
    config = config_from_flagfile(
        flags,
        seed=seed,
        output_dir=os.path.join(_folder(), f"{len(os.listdir(_folder()))}"),
        progress=False,
        save_every=steps,
        log_every=steps,
        **settings,
    )
    experiment = Experiment(config, data=data)
    experiment.train()
    return experiment


@functools.cache
def _temporary():
    return tempfile.TemporaryDirectory()


def _folder():
    return _temporary().name


def table(found):
    """Markdown: a line per question, and the machine it was measured on."""
    after = [r for r in found if r["what"] == NEXT]
    by = {
        name: {r["seed"]: r[name] for r in after}
        for name in ("before", "random", "review")
    }
    lines = []
    for what, of in (
        (WRONG, "40"),
        (WRONG_OF_MORE, "100"),
        (WRONG_CIFAR, "4,000, CIFAR-10"),
    ):
        recalls = [r["recall"] for r in found if r["what"] == what]
        if recalls:
            title = f"wrong labels among the most doubted 15 % of {of}"
            lines.append(_line(title, estimate(recalls)))
    if after:
        for title, name in (
            ("accuracy with 40 labels", "before"),
            ("with 20 more, at random", "random"),
            ("with 20 more, of the review", "review"),
        ):
            lines.append(_line(title, estimate(by[name].values())))
        difference = paired_difference(by["review"], by["random"])
        lines.append(_line("the last less the one before, paired", difference))
    heading = ["measured", "mean", "95 % interval", "seeds"]
    machine = found[-1]["machine"]
    return (
        f"{tables.markdown(heading, lines)}\n\n"
        f"{headline(machine)}; code at {machine['revision']}.\n"
    )


def _line(title, found):
    interval = "–"
    if found.margin is not None and found.count >= 5:  # Fewer say nothing.
        low, high = found.mean - found.margin, found.mean + found.margin
        interval = f"{low:.3f} to {high:.3f}"
    return [title, f"{found.mean:.3f}", interval, f"{found.count}"]


MEASURES = {
    WRONG: wrong_labels,
    WRONG_OF_MORE: functools.partial(wrong_labels, num_labeled=100),
    NEXT: to_label,
    WRONG_CIFAR: functools.partial(wrong_labels, flags=CIFAR_FLAGS, **CIFAR),
}


if __name__ == "__main__":
    main()
