"""What a diagnosis comes to: numbers by estimator, and a table of them."""

import numpy as np

from meta_pseudo_labels.utils.text_tables import text_table, with_error_of

_EXPLANATION = """\
norm ratio   feedback's gradient over the teacher's other gradient, one draw
cosine       of the teacher's gradient with exact's: one draw; mean of {draws}
noise        variance over draws over the squared norm of exact's gradient
r, rank r    of h with the true fall of the held-out loss (Pearson, Spearman);
             r within: less the mean of each batch, where only draws differ
move along   the teacher moves by {teacher_step:g} of its norm along the mean
             feedback, or along that of one draw: change of the judged loss
             that exact predicts, change measured, change of the held-out
             loss; all in nats, times 10^6
±            one standard error, from batch to batch ({batches} of them)"""


def summarize(settings, rows, *, means=()):
    """Adds a summary to what was measured on each batch.

    Args:
      settings: a dict.
      rows: one for each batch, as `measure` makes them.
      means: names of the estimators whose losses are means over the unlabeled
        images: they have to be multiplied by the number of images to estimate
        the gradient of the judged loss.

    Returns:
      A dict for JSON, in which numbers that are not known are None. "settings";
      "batches", the rows; "estimators", for each a dict of

      norm_ratio: norm of the feedback's gradient, times its weight, over that
        of the teacher's other gradient; mean over draws and batches.
      cosine_one_draw, cosine_mean: with exact's gradient, that of one draw and
        that of the mean over all draws; mean over batches.
      cosine_one_draw_error, cosine_mean_error: standard error of that mean.
      is_mean: whether it is one of `means`.
      noise: variance over draws, summed over weights, over the squared norm of
        exact's gradient; after multiplying by the number of unlabeled images
        if an estimator is a mean over them, and by the factor that turns a
        cosine into a dot product.
      noise_to_own_mean: the same over the squared norm of the mean, less its
        share of noise; None if nothing is left.
      pearson, spearman: correlation of h with the fall of the held-out loss
        over all draws of all batches.
      pearson_within: the same less the mean of each batch.
      pearson_inference: as pearson, with the loss in inference mode.

      and "teacher_steps", for each direction the means over batches of

      predicted, measured: change of the judged loss, in nats.
      measured_error: standard error of its mean.
      lowered: share of the batches in which it fell.
      held_out, held_out_inference: change of the held-out loss, in nats.
      held_out_error: standard error of its mean.
    """
    names = rows[0]["estimators"]
    directions = dict.fromkeys(
        name for row in rows for name in row["teacher_steps"]
    )
    return {
        "settings": settings | {"batches": len(rows)},
        "estimators": {
            name: _estimator(name, settings, rows, is_mean=name in means)
            for name in names
        },
        "teacher_steps": {
            name: _teacher_step(name, rows) for name in directions
        },
        "batches": rows,
    }


def _estimator(name, settings, rows, *, is_mean):
    found = [row["estimators"][name] for row in rows]
    columns = {
        key: [one[key] for one in found if key in one]
        for key in ("norm_ratio", "cosine_one_draw", "cosine_mean")
    }
    result = {
        **{key: _mean(values) for key, values in columns.items()},
        "cosine_one_draw_error": _error(columns["cosine_one_draw"]),
        "cosine_mean_error": _error(columns["cosine_mean"]),
        "is_mean": is_mean,
    }
    if "h" not in found[0]:
        return result
    return (
        result
        | _noise(name, rows, is_mean=is_mean)
        | _correlations(name, settings, rows)
    )


def _noise(name, rows, *, is_mean):
    variances, own, signals = [], [], []
    for row in rows:
        one = row["estimators"][name]
        scale = _scale(name, row, is_mean=is_mean) ** 2
        variances.append(scale * one["variance"])
        noise = one["variance"] / len(one["h"])  # That of the mean.
        own.append(scale * (one["squared_norm_of_mean"] - noise))
        signals.append(row["exact_squared_norm"])
    return {
        "noise": _ratio(sum(variances), sum(signals)),
        "noise_to_own_mean": _ratio(sum(variances), sum(own)),
    }


def _scale(name, row, *, is_mean):
    """The factor that makes an estimator one of the judged loss's gradient."""
    scale = row["unlabeled"] if is_mean else 1
    others = row["estimators"]
    if name == "reinforce_cosine" and "reinforce_dot_product" in others:
        dot_product, cosine = (
            np.sum(np.abs(others[key]["h"]))
            for key in ("reinforce_dot_product", name)
        )
        scale *= dot_product / cosine if cosine else 0.0
    return float(scale)


def _correlations(name, settings, rows):
    h = np.array([row["estimators"][name]["h"] for row in rows])
    after = np.array([row["held_out_losses"] for row in rows])
    before = [
        settings[key] for key in ("held_out_loss", "held_out_loss_inference")
    ]
    falls = before - after
    training = falls[..., 0]
    return {
        "pearson": _correlation(h, training),
        "spearman": _correlation(_ranks(h), _ranks(training)),
        "pearson_within": _correlation(_less_mean(h), _less_mean(training)),
        "pearson_inference": _correlation(h, falls[..., 1]),
    }


def _less_mean(values):
    return values - values.mean(axis=1, keepdims=True)


def _ranks(values):
    """Ranks in increasing order; equal values get their mean rank."""
    _, places, counts = np.unique(
        values, return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[places].reshape(values.shape)


def _correlation(one, other):
    one, other = np.ravel(one), np.ravel(other)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _teacher_step(name, rows):
    steps = [row["teacher_steps"].get(name) for row in rows]
    steps = [step for step in steps if step is not None]
    columns = {key: [step[key] for step in steps] for key in steps[0]}
    return {
        **{key: _mean(values) for key, values in columns.items()},
        "measured_error": _error(columns["measured"]),
        "held_out_error": _error(columns["held_out"]),
        "lowered": float(np.mean(np.less(columns["measured"], 0))),
    }


def _mean(values):
    return float(np.mean(values)) if values else None


def _error(values):
    """Standard error of the mean; None for a single value."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _ratio(value, to):
    return float(value / to) if to > 0 else None


def as_text(found):
    """What `diagnose` returned, for a terminal: tables and how to read them."""
    settings = found["settings"]
    part = settings.get("held_out_part", "other")  # Known only for runs.
    return "\n".join(
        [
            f"step {settings['start_step']:,}: {settings['batches']} batches, "
            f"{settings['draws']} draws of labels for each; learning rate of "
            f"the student's step {settings['learning_rate']:.4g}",
            f"held-out loss {settings['held_out_loss']:.4f} on "
            f"{settings['held_out_images']:,} {part} images, "
            f"{settings['held_out_loss_inference']:.4f} in inference mode",
            "",
            _table("estimator", _estimator_cells, found["estimators"]),
            "",
            _table("move along", _step_cells, found["teacher_steps"]),
            "",
            _EXPLANATION.format(**settings),
        ]
    )


def _table(title, cells, rows):
    """A line for each of `rows`, with the columns that `cells` makes of it."""
    lines = [{title: name} | cells(numbers) for name, numbers in rows.items()]
    columns = {column for line in lines for column in line} - {title}
    return text_table(lines, to_the_right=columns)


def _estimator_cells(numbers):
    columns = {
        "norm ratio": "norm_ratio",
        "cosine": "cosine_one_draw",
        "of mean": "cosine_mean",
        "noise": "noise",
        "r": "pearson",
        "rank r": "spearman",
        "r within": "pearson_within",
    }
    return {
        column: with_error_of(numbers, key) for column, key in columns.items()
    }


def _step_cells(step):
    in_millionths = {
        key: None if step[key] is None else 1e6 * step[key]
        for key in (
            *("predicted", "measured", "measured_error"),
            *("held_out", "held_out_error"),
        )
    }
    return {
        "predicted": with_error_of(in_millionths, "predicted"),
        "measured": with_error_of(in_millionths, "measured"),
        "held-out": with_error_of(in_millionths, "held_out"),
    }
