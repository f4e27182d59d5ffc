"""Folders of runs that never ran, in milliseconds, and a reader of pages."""

import base64
import html.parser
import json

import numpy as np

from meta_pseudo_labels.evaluation.metrics import evaluate_probabilities
from meta_pseudo_labels.run.config import Config

PICTURE = "data:image/png;base64," + base64.b64encode(b"pixels").decode()
NAMES = ("cat", "<b>dog</b> & co")
# Three of four are right; the mistake is a dog that is taken for a cat.
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]])
LABELS = np.array([0, 1, 1, 0])
VOID = {"meta", "link", "br", "img", "input", "wbr", "hr"}


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text)


def logged(folder, values, *, name="metrics.jsonl", **more):
    """Rows of a hundred steps each: a loss, and an accuracy of each value."""
    rows = [
        {
            "step": 100 * k,
            "time": f"2026-11-29T12:0{k % 10}:00.000+00:00",
            "seconds": 65.0 * k,
            "images_per_second": 250.0 + k,
            "loss/total": 2.0 / k,
            "lr/student": 0.1,
            "eval/accuracy": value,
            **more,
        }
        for k, value in enumerate(values, 1)
    ]
    write(folder, name, "".join(json.dumps(row) + "\n" for row in rows))


def evaluated(
    folder, *, networks=("student", "finetuned"), step=300, **changes
):
    """An evaluation; changes: of what its networks reached."""
    found = evaluate_probabilities(
        PROBABILITIES, LABELS, class_names=NAMES, images_per_second=1234.0
    ).to_dict()
    found |= changes
    write(
        folder,
        "eval_report.json",
        {
            "images": "the test images of pets",
            "step": step,
            "networks": {name: found for name in networks},
            "validation": {"student": found | {"top_1": 0.625}},
        },
    )
    mistake = dict(image=2, label=1, predicted=0, confidence=0.7)
    mistake |= dict(name="dog/7.png", picture=PICTURE)
    write(folder, "eval_mistakes.json", {n: [mistake] for n in networks})


def whole_run(folder, **settings):
    """All that a page can tell of."""
    settings = dict(num_train_steps=300, output_dir=str(folder)) | settings
    write(folder, "hparams.json", Config(**settings).to_json())
    logged(folder, [0.25, 0.5, 0.75], **{"mpl/feedback_grad_ratio": 0.125})
    logged(folder, [0.5, 0.75], name="finetune/metrics.jsonl")
    write(folder, "checkpoints/step-300.index", "")
    write(folder, "done", "300 steps\n")
    evaluated(folder)
    counts = {"labeled": 44, "unlabeled": 1234, "test": 4}
    rows = [(0, NAMES[0], 40, 2), (1, NAMES[1], 4, 2)]
    keys = ("label", "name", "labeled", "test")
    write(
        folder,
        "data.json",
        {
            "name": "pets",
            "image_shape": [8, 9, 3],
            "counts": counts,
            "sample": None,
            "wrong_labels": 3,
            "classes": [dict(zip(keys, row, strict=True)) for row in rows],
            "skipped": ["broken.png"],
            "passed_over": [],
            "copies": [],
            "look_alikes": [],
        },
    )
    write(folder, "views.png", "a picture")
    write(folder, "machine.json", {"devices": "1 abacus", "cores": 7})
    estimators = {
        "exact": {"norm_ratio": 0.5},
        "cosine": {
            "pearson": -0.25,
            "cosine_mean": 0.3068,
            "cosine_mean_error": 0.0213,
        },
    }
    move = {
        "predicted": -0.00287,
        "measured": -0.0027434,
        "measured_error": 0.0002087,
    }
    diagnosis = {
        "settings": {"start_step": 300},
        "estimators": estimators,
        "teacher_steps": {"exact": move},
    }
    write(folder, "diagnosis.json", diagnosis)
    card = dict(network="finetuned", step=300, parameters=7777, date="today")
    write(folder, "saved_model/2/assets.extra/model_card.json", card)
    return folder


class Page(html.parser.HTMLParser):
    """What a browser would make of a page, and what is wrong with it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.texts).split())

    def spoken(self, beginning):
        """The words of the one figure whose words begin like this."""
        (words,) = [
            a["aria-label"]
            for a in self.all("svg")
            if a.get("aria-label", "").startswith(beginning)
        ]
        return words

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    def all(self, *tags):
        """Attributes of all elements of these kinds."""
        return [found for tag, found in self.elements if tag in tags]


def check(text):
    """The `Page` of a text that no network, ear or keyboard has trouble with.

    Raises:
      AssertionError: where they have.
    """
    page = Page(text)
    assert page.open == []
    assert text.isascii()
    for name in ("http://", "https://", "url(", "@import", "//cdn"):
        assert name not in text
    assert not page.all("script", "link", "iframe", "object", "embed")
    for attributes in page.all("img"):
        assert attributes["alt"].strip()
        assert attributes["src"].startswith("data:image/")
    for attributes in page.all("svg"):
        spoken = attributes.get("role") == "img" and attributes["aria-label"]
        assert spoken or attributes["aria-hidden"] == "true"
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for attributes in page.all("a"):
        assert attributes["href"][0] == "#" and attributes["href"][1:] in ids
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids
        # What scrolls can be reached and has a name.
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0" and attributes["aria-label"]
    headings = [tag for tag, _ in page.elements if tag in ("h1", "h2", "h3")]
    assert headings[0] == "h1" and headings.count("h1") == 1
    (html_tag,) = page.all("html")
    assert html_tag["lang"] == "en"
    return page
