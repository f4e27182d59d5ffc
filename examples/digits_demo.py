"""The whole workflow on real images, in a few minutes on two cores.

    python examples/digits_demo.py --output_dir=runs/demo

Trains supervised, UDA and MPL on scikit-learn's handwritten digits with 40
labels, finetunes the MPL student, exports it, and classifies the test images
with the SavedModel in a process of its own. Writes to output_dir: results.json,
curves.png, predictions.png, views.png and a folder per run.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import logging

from meta_pseudo_labels import ConfigError, data
from meta_pseudo_labels.run.config.flags import config_from_flagfile
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.stopping import Interrupted, signals_interrupt
from meta_pseudo_labels.utils import figures
from meta_pseudo_labels.utils.deleting import delete
from meta_pseudo_labels.utils.signals import EXIT_INTERRUPTED
from meta_pseudo_labels.utils.text_tables import text_table

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHODS = ("supervised", "uda", "mpl")
MARKER = ".digits_demo"  # Marks a folder that we may replace.


def main():
    arguments = _parse_arguments()
    logging.set_verbosity(logging.WARNING)
    os.chdir(ROOT)  # Flagfiles name each other relative to it.
    try:
        with signals_interrupt():
            _demonstrate(arguments)
    except ConfigError as error:
        sys.exit(f"Error: {error}")
    except Interrupted:
        print("A signal stopped the demo; it starts over each time.")
        sys.exit(EXIT_INTERRUPTED)


def _demonstrate(arguments):
    configs = [_config(method, arguments) for method in METHODS]
    folder = _fresh_folder(arguments.output_dir)
    runs = {config.method: _train(config) for config in configs}
    results = [result for _, result in runs.values()]
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    experiment, _ = runs["mpl"]
    predictions = _serve(experiment, folder)
    _draw(runs, predictions, folder)
    print(f"\n{text_table(results)}\n")
    print(f"Figures, results.json and a SavedModel are in {folder}.")


def _parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output_dir", type=pathlib.Path, default=ROOT / "runs" / "demo"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--num_train_steps",
        type=int,
        help="fewer than in the flagfiles, for a quick look",
    )
    arguments = parser.parse_args()
    arguments.output_dir = arguments.output_dir.resolve()
    return arguments


def _config(method, arguments):
    config = config_from_flagfile(
        f"flags/digits_{method}.flags",
        output_dir=str(arguments.output_dir / method),
        seed=arguments.seed,
    )
    if arguments.num_train_steps:
        config = _shorten(config, arguments.num_train_steps)
    return config


def _fresh_folder(folder):
    """An empty folder; replaces that of an earlier demo but nothing else."""
    if (folder / MARKER).exists():
        delete(*[folder / name for name in METHODS])
    elif folder.exists() and any(folder.iterdir()):
        sys.exit(
            f"Error: --output_dir={folder} holds files that no demo wrote; "
            "name another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    return folder


def _train(config):
    """Trains one method; the MPL student is finetuned too.

    Returns:
      The experiment, and its row of results.json.
    """
    print(f"{config.method}: {config.num_train_steps} steps", flush=True)
    experiment = Experiment(config)
    start = time.monotonic()
    experiment.train()
    if config.method == "mpl":
        experiment.finetune()
    seconds = time.monotonic() - start
    accuracies = experiment.evaluate()
    result = {
        "method": config.method,
        "labels": config.num_labeled,
        "seed": config.seed,
        "test_accuracy": accuracies.get("finetuned", accuracies["student"]),
        "seconds": round(seconds, 1),
    }
    return experiment, result


def _shorten(config, steps):
    """A shorter run with its waits, warm-ups and ramps in proportion."""
    scale = steps / config.num_train_steps
    durations = [
        field.name
        for field in dataclasses.fields(config)
        if field.name.endswith("_steps") or field.name.endswith("_every")
    ]
    return dataclasses.replace(
        config,
        **{
            name: max(1, round(scale * getattr(config, name)))
            for name in durations
            if getattr(config, name)
        },
    )


def _serve(experiment, folder):
    """The SavedModel's predictions for the test images, in a new process.

    That process has neither Keras nor this package (the script ensures that).
    """
    images = folder / "test_images.npz"
    answers = folder / "predictions.json"
    np.savez_compressed(
        images,
        images=experiment.data.test_images,
        labels=experiment.data.test_labels,
    )
    subprocess.run(
        [
            sys.executable,
            "examples/classify_with_saved_model.py",
            f"--saved_model={experiment.export()}",
            f"--images={images}",
            f"--json={answers}",
        ],
        check=True,
    )
    return json.loads(answers.read_text())["predictions"]


def _draw(runs, predictions, folder):
    """Writes the three figures."""
    histories = {
        method: [
            json.loads(line)
            for line in (folder / method / "metrics.jsonl").open()
        ]
        for method in runs
    }
    figures.curves(histories, folder / "curves.png")
    experiment, _ = runs["mpl"]
    images, count = experiment.data, 50
    figures.prediction_sheet(
        images.test_images[:count],
        folder / "predictions.png",
        labels=images.test_labels[:count],
        predictions=[row["class"] for row in predictions[:count]],
        probabilities=np.array(
            [row["probabilities"] for row in predictions[:count]]
        ),
        class_names=images.spec.class_names,
    )
    original = images.unlabeled_images[:12]
    weak = data.weak_view(images.spec)(original, [0, 0])
    strong = data.strong_view(
        images.spec,
        magnitude=experiment.config.augment_magnitude,
        cutout_share=experiment.config.augment_cutout,
    )(weak, [0, 1])
    figures.view_sheet(
        folder / "views.png",
        original=original,
        weak=np.asarray(weak),
        strong=np.asarray(strong),
    )


if __name__ == "__main__":
    main()
