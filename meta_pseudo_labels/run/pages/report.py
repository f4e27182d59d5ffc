"""report.html: how a run went, on one page."""

import base64
import glob
import os
import shlex
import statistics
import types

from meta_pseudo_labels.data.inspection import UNEVEN
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.run.closing import following
from meta_pseudo_labels.run.folder import (
    FINETUNE,
    LOOK_ALIKES,
    REVIEW,
    REVIEW_SUMMARY,
    VIEWS,
)
from meta_pseudo_labels.run.pages import render
from meta_pseudo_labels.run.pages.plots import (
    Line,
    calibration_plot,
    lines_plot,
)
from meta_pseudo_labels.run.pages.run_files import RunFiles, interval
from meta_pseudo_labels.utils.files import write_whole
from meta_pseudo_labels.utils.settings import command_for
from meta_pseudo_labels.utils.text_tables import with_error_of

REPORT = "report.html"
# With more classes a matrix is unreadable; the worst pairs are listed instead.
CLASSES_IN_A_MATRIX = 30
PAIRS = 20
# Title, beginnings of the scalars' names, whether they are shares.
_CURVES = (
    (
        "Accuracy on validation or test images",
        ("eval/accuracy", "eval/top"),
        True,
    ),
    ("Loss, nats", ("cross_entropy/", "loss/total", "eval/loss"), False),
    ("Learning rate", ("lr/", "loss/lr"), False),
)
_FEEDBACK = "mpl/"
_DIAGNOSED = {
    "norm_ratio": "norm ratio",
    "cosine_one_draw": "cosine, one draw",
    "cosine_mean": "cosine of mean",
    "noise": "noise",
    "pearson": "r",
    "spearman": "rank r",
    "pearson_within": "r within",
    # Of the teacher's steps.
    "predicted": "predicted",
    "measured": "measured",
    "held_out": "held-out",
}


def write_report(folder):
    """Writes the page of a run into its folder.

    Args:
      folder: of the run.

    Returns:
      The path of the page.
    """
    run = RunFiles(folder)
    path = run.folder.path(REPORT)
    write_whole(path, report_page(run))
    return path


def report_page(run):
    """The page of a run, as text.

    Args:
      run: `RunFiles`.
    """
    scalars = run.scalars()
    shown, rest = _curves(scalars)
    feedback, diagnosis = _each(scalars, _FEEDBACK), _diagnosis(run)
    values = dict(
        run=run,
        accuracy=run.accuracy(),
        networks=_networks(run),
        settings=run.changed_settings(),
        classes=_classes(run),
        review=_review(run),
        pictures={name: _picture(run, name) for name in (VIEWS, LOOK_ALIKES)},
        curves=shown,
        finetuning_curves=_finetuning_curves(run),
        feedback_curves=feedback,
        shows_feedback=_has_feedback(run) or feedback or diagnosis,
        other_curves=rest,
        diagnosis=diagnosis,
        times=_times(run),
        machine=run.machine,
        commands=_commands(run),
    )
    return render("report.html", **values)


def _curves(scalars):
    """Plots of what matters most, and of everything else that was logged."""
    shown, rest = [], dict(scalars)
    for title, beginnings, percent in _CURVES:
        named = {n: s for n, s in scalars.items() if n.startswith(beginnings)}
        for name in named:
            rest.pop(name, None)
        lines = [Line(_short(name), *points) for name, points in named.items()]
        shown.append(lines_plot(title, lines, percent=percent))
    others = [
        lines_plot(name, [Line(name, *points)])
        for name, points in rest.items()
        if not name.startswith(_FEEDBACK)
    ]
    return [plot for plot in shown if plot], others


def _short(name):
    """The name without its group, unless the group tells it from others."""
    group, _, rest = name.rpartition("/")
    kept = f"eval {rest}" if group == "eval" else rest
    return kept.replace("_", " ")


def _each(scalars, beginning):
    return [
        lines_plot(_short(name), [Line(name, *points)])
        for name, points in scalars.items()
        if name.startswith(beginning)
    ]


def _finetuning_curves(run):
    found = {
        name: Line(_short(name), *points)
        for name, points in run.scalars(finetuning=True).items()
    }
    shares = [line for name, line in found.items() if "accuracy" in name]
    losses = [line for name, line in found.items() if "loss" in name]
    plots = (
        lines_plot("Accuracy while finetuning", shares, percent=True),
        lines_plot("Loss while finetuning, nats", losses),
    )
    return [plot for plot in plots if plot]


def _networks(run):
    """What the page shows about each network that was evaluated, a list."""
    validation = run.evaluation.get("validation", {})
    final, _ = run.final_network()
    rows = [
        found
        | {
            "name": name,
            "interval": interval(found["top_1"], found["images"]),
            "validation": validation.get(name, {}).get("top_1"),
            "is_final": name == final,
            "matrix": _matrix(found),
            "pairs": _pairs(found),
            "calibration_plot": calibration_plot(found["calibration"]),
            "mistakes": _mistakes(run, name, found),
        }
        for name, found in run.evaluation.get("networks", {}).items()
    ]
    return sorted(rows, key=lambda row: not row["is_final"])


def _matrix(found):
    """Rows of (count, share of the class's images); None for many classes."""
    if len(found["confusion"]) > CLASSES_IN_A_MATRIX:
        return None
    return [
        [(count, round(count / max(sum(row), 1), 3)) for count in row]
        for row in found["confusion"]
    ]


def _pairs(found):
    """The most confused pairs of classes: class, predicted class, images."""
    names = [one["class"] for one in found["classes"]]
    pairs = [
        (names[label], names[predicted], count)
        for label, row in enumerate(found["confusion"])
        for predicted, count in enumerate(row)
        if count and label != predicted
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:PAIRS]


def _mistakes(run, network, found):
    """The most confident ones; "picture" is None unless it is in the file.

    The page loads nothing from outside, whatever the file refers to.
    """
    names = [one["class"] for one in found["classes"]]
    return [
        mistake
        | {
            "class": names[mistake["label"]],
            "taken_for": names[mistake["predicted"]],
            "picture": _within(mistake.get("picture")),
        }
        for mistake in run.mistakes.get(network, [])
    ]


def _within(picture):
    is_data = str(picture).startswith("data:image/")
    return picture if is_data else None


def _classes(run):
    """Labeled and test images by class, and how uneven they are."""
    rows = run.data.get("classes")
    if not rows:
        labels, names = run.choice.get("labels"), run.choice.get("class_names")
        if not labels:
            return None
        names = names or [str(k) for k in range(max(labels) + 1)]
        rows = [
            {"label": k, "name": name, "labeled": labels.count(k)}
            for k, name in enumerate(names)
        ]
    counts = [row["labeled"] for row in rows]
    least, most = min(counts), max(counts)
    return {
        "rows": rows,
        "least": least,
        "most": most,
        "uneven": most >= UNEVEN * max(least, 1),
        "has_test": "test" in rows[0],
    }


def _review(run):
    """Rows by file, and pictures, of the last review; None without one."""
    found = run.read(REVIEW, REVIEW_SUMMARY)
    if not found:
        return None
    names = found.get("rows", {})
    sheets = {n: f"{REVIEW}/{n.removesuffix('.csv')}.png" for n in names}
    return found | {
        "pictures": {n: _picture(run, path) for n, path in sheets.items()}
    }


def _picture(run, name):
    """A PNG of the run as a data URL; None if there is none."""
    if not run.exists(name):
        return None
    with open(run.folder.path(name), "rb") as file:
        text = base64.b64encode(file.read()).decode()
    return f"data:image/png;base64,{text}"


def _diagnosis(run):
    """Columns and rows of the table of diagnosis.json; None without it."""
    found = run.read("diagnosis.json")
    estimators = found.get("estimators")
    if not estimators:
        return None
    moves = found.get("teacher_steps", {})
    numbers = {
        name: row | _in_millionths(moves.get(name, {}))
        for name, row in estimators.items()
    }
    columns = [
        key
        for key in _DIAGNOSED
        if any(row.get(key) is not None for row in numbers.values())
    ]
    return {
        "step": found["settings"]["start_step"],
        "columns": [_DIAGNOSED[key] for key in columns],
        "rows": {
            name: [with_error_of(row, key) or "–" for key in columns]
            for name, row in numbers.items()
        },
        "moves": bool(moves),
    }


def _in_millionths(step):
    return {
        key: 1e6 * value
        for key, value in step.items()
        if key.removesuffix("_error") in _DIAGNOSED and value is not None
    }


def _times(run):
    rates = [
        row["images_per_second"]
        for row in run.rows
        if "images_per_second" in row
    ]
    times = [row["time"] for row in run.rows if "time" in row]
    return {
        "training": run.seconds(run.rows),
        "finetuning": run.seconds(run.finetuning_rows),
        "images_per_second": statistics.median(rates) if rates else None,
        "first": times[0] if times else None,
        "last": times[-1] if times else None,
    }


def _commands(run):
    """What to type next: (why, command or None), the most useful first."""
    folder = str(run.folder)
    steps = run.settings.get("num_train_steps")
    found = []
    if not run.is_done:
        last = f" of {steps:,}" if steps else ""
        why = f"Training has not ended (step {run.step:,}{last}): run the "
        found.append((why + "command that started it once more.", None))
    stages = {
        "finetune": ("Finetune the student on the labels.", _finetuned(run)),
        "eval": ("Evaluate all networks.", bool(run.evaluation)),
        "inspect": ("Look at the data and the views.", bool(run.data)),
        "diagnose": (
            "Measure what the feedback is worth.",
            not _has_feedback(run) or run.exists("diagnosis.json"),
        ),
        "review": (
            "Find wrong labels, and what to label next.",
            run.exists(REVIEW, REVIEW_SUMMARY),
        ),
        "export": ("Export the student.", bool(run.card)),
    }
    for task in dict.fromkeys([*_path(run), *stages]):
        why, is_there = stages[task]
        if not is_there:
            found.append((why, command_for(task, folder)))
    if run.card:
        path = run.folder.path("saved_model")
        found.append(
            (
                "Serve the export.",
                f"mpl serve --saved_model={shlex.quote(path)}",
            )
        )
    found.append(("Write this page again.", command_for("report", folder)))
    return found


def _path(run):
    """The task modes that follow training; each names the next."""
    at = types.SimpleNamespace(
        task_mode="train", method=run.settings.get("method")
    )
    while (task_mode := following(at)) is not None:
        yield task_mode
        at.task_mode = task_mode


def _has_feedback(run):
    method = run.settings.get("method")
    return method in LEARNERS and LEARNERS[method].has_feedback


def _finetuned(run):
    if run.settings.get("from_checkpoint", "latest") != "latest":
        # Of a checkpoint whose step only that file tells.
        return bool(
            glob.glob("*.weights.h5", root_dir=run.folder.path(FINETUNE))
        )
    return os.path.exists(run.folder.finetuned_path(run.step))
