"""The card of an exported model: where it comes from, and how good it is.

In assets.extra of a version: model_card.json for programs, model_card.md for
people, labels.txt with one class name per line.
"""

import dataclasses
import datetime
import json
import os
import platform
import subprocess

import keras
import tensorflow as tf

from meta_pseudo_labels._version import __version__
from meta_pseudo_labels.data.preparation import description

CARD, PAGE, LABELS = "model_card.json", "model_card.md", "labels.txt"


def build_card(model, config, data, *, network, step, metrics):
    """What is known about a model of a run, a dict for JSON.

    Args:
      model: the network that is exported.
      config: `Config` of the run.
      data: `ImageData` or `ShardedData` that it learned from.
      network: its name in the tables of evaluation, such as "finetuned".
      step: of training.
      metrics: its accuracies from eval.json; None if it was not evaluated.
    """
    spec = data.spec
    return {
        "network": network,
        "model_type": config.model_type,
        "method": config.method,
        "step": step,
        "parameters": model.count_params(),
        "data": {
            "name": spec.name,
            "classes": list(spec.names),
            "image_size": spec.image_size,
            "preparation": description(spec),
            "mean": list(spec.mean),
            "std": list(spec.std),
            "unlabeled_images": len(data.unlabeled_images),
            "test_images": len(data.test_images),
        },
        "labels": {
            "labeled_images": len(data.labeled_images),
            "label_subset": config.label_subset,
            "seed": config.seed,
            "label_noise": config.label_noise,
        },
        "metrics": metrics,
        "revision": revision(),
        "versions": versions(),
        "date": datetime.date.today().isoformat(),
        "settings": dataclasses.asdict(config),
    }


def write_card(card, folder):
    """Writes a card, its page and the class names into a folder."""
    texts = {
        CARD: json.dumps(card, indent=2) + "\n",
        PAGE: page(card),
        LABELS: "".join(
            f"{' '.join(name.split())}\n" for name in card["data"]["classes"]
        ),
    }
    for name, text in texts.items():
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def page(card):
    """The card as Markdown."""
    data, labels = card["data"], card["labels"]
    sections = {
        "Network": {
            "network": f"{card['network']} of step {card['step']:,}",
            "kind": card["model_type"],
            "method": card["method"],
            "parameters": f"{card['parameters']:,}",
        },
        "Data": {
            "source": data["name"],
            "classes": f"{len(data['classes'])}, in {LABELS}",
            "images are": data["preparation"],
            "unlabeled images": f"{data['unlabeled_images']:,}",
        },
        "Labels used": {
            "labeled images": f"{labels['labeled_images']:,}",
            "chosen by": f"{labels['label_subset']}, seed {labels['seed']}",
            "wrong on purpose": f"{labels['label_noise']:.0%}",
        },
        "Metrics": _metric_lines(card),
        "Made with": {
            "revision": card["revision"] or "not known",
            **card["versions"],
            "date": card["date"],
        },
        "Settings": card["settings"],
    }
    text = "# Model card\n"
    for title, lines in sections.items():
        text += f"\n## {title}\n\n"
        text += "".join(f"- {name}: {value}\n" for name, value in lines.items())
    return text


def summary_lines(version):
    """Lines for a terminal about the version in a folder, a list."""
    with open(os.path.join(version, "assets.extra", CARD)) as file:
        card = json.load(file)
    lines = []
    if card.get("keras_file"):
        lines.append(f"Keras: {version}/assets.extra/{card['keras_file']}")
    for name, found in _converted(card):
        lines.append(
            f"{name}: {version}/assets.extra/{found['file']}, "
            f"{_agreement(found)}"
        )
    return lines


def _converted(card):
    """Files of other formats: the format, and its part of the card."""
    formats = {"LiteRT": card.get("litert"), "ONNX": card.get("onnx")}
    return [(name, found) for name, found in formats.items() if found]


def versions():
    """Versions of the software that runs, a dict of strings by name."""
    return {
        "meta_pseudo_labels": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }


def revision():
    """The code's revision, as git describes it; None outside a checkout."""
    folder = os.path.dirname(os.path.abspath(__file__))
    # An installed copy may lie in a repository that is not this one.
    if _git(folder, "ls-files", "--error-unmatch", __file__) is None:
        return None
    return _git(folder, "describe", "--always", "--dirty")


def _git(folder, *arguments):
    """What git prints; None if it fails or is not installed."""
    try:
        process = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True
        )
    except OSError:
        return None
    return process.stdout.strip() if process.returncode == 0 else None


def _metric_lines(card):
    lines = {
        name: f"{value:.4f}"
        for name, value in _numbers("", card["metrics"] or {})
    }
    if not lines:
        lines["none"] = (
            "`mpl eval` was not run for these weights before the export"
        )
    for name, found in _converted(card):
        lines[name] = _agreement(found)
    return lines


def _numbers(prefix, values):
    """The numbers in nested dicts, each with the names that lead to it."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(f"{prefix}{name} ", value)
        elif isinstance(value, (int, float)):
            yield prefix + name, value


def _agreement(found):
    if found["images"] is None:
        return f"agreement not measured: {found['why_not']}"
    return (
        f"the same class for {found['same_class']:.2%} of "
        f"{found['images']:,} test images, probabilities at most "
        f"{found['largest_difference']:.1e} apart"
    )
