"""What `compile` takes: losses and metrics that can judge logits.

Learners answer with logits, and many of Keras's own expect probabilities, of
which nothing warns.
"""

import functools
import inspect

import keras

# Of losses and metrics, in lower case.
_LONG_NAMES = {
    "auc": "AUC",
    "bce": "BinaryCrossentropy",
    **dict.fromkeys(("ce", "crossentropy"), "SparseCategoricalCrossentropy"),
}
# Of those that take logarithms or products of predictions and cannot take
# logits, in lower case and without underscores.
_OF_PROBABILITIES = {
    *("kldivergence", "kld", "kullbackleiblerdivergence"),
    *("poisson", "dice", "tversky", "msle", "meansquaredlogarithmicerror"),
    "categoricalgeneralizedcrossentropy",
}
# Of those that count predictions above thresholds, which are in [0, 1].
_WITH_THRESHOLDS = {
    *("precision", "recall", "precisionatrecall", "recallatprecision"),
    *("truepositives", "falsepositives", "truenegatives", "falsenegatives"),
    *("sensitivityatspecificity", "specificityatsensitivity"),
    *("binaryaccuracy", "binaryiou"),
}


def on_logits(given, library):
    """Losses or metrics of `compile`, for what learners answer: logits.

    Args:
      given: one, or a nest of them; names of Keras's own that may expect
        either become objects that expect logits.
      library: `keras.losses` or `keras.metrics`.

    Raises:
      ValueError: for one of Keras's own that expects probabilities.
    """
    return keras.tree.map_structure(lambda x: _on_logits(x, library), given)


def read_on_logits(config):
    """Losses or metrics from the file of a learner, for `on_logits`.

    Those of files from before others were refused may expect probabilities:
    they get from_logits=True. What cannot take logits `on_logits` refuses here
    too.

    Args:
      config: serialized, a nest of dicts and lists.
    """
    found = keras.saving.deserialize_keras_object(_with_logits(config))
    return keras.tree.map_structure(
        lambda x: (
            x.__name__
            if inspect.isfunction(x) and _expects_logits(x) is False
            else x
        ),
        found,
    )


def _with_logits(config):
    if isinstance(config, dict):
        if not (config.get("module") or "keras").startswith("keras"):
            return config
        return {
            key: key == "from_logits" or _with_logits(value)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return [_with_logits(part) for part in config]
    return config


def _on_logits(one, library):
    for name, part in _keras_parts(one):
        if _plain(name) in _OF_PROBABILITIES:
            raise ValueError(
                f"{name} compares probabilities, but learners answer with "
                "logits: use a cross-entropy, or a function of yours that "
                "takes their softmax first. (A file with it can be read with "
                "compile=False.)"
            )
        if _compares_with_threshold(part, name):
            raise ValueError(
                f"{name} compares probabilities with a threshold, but learners "
                "answer with logits: use accuracy, Precision and Recall with "
                "top_k=1 alone, F1Score without a threshold, or a metric of "
                "yours that takes their softmax first. (A file with it can be "
                "read with compile=False.)"
            )
    kind = _class_of(one, library)
    if kind and "from_logits" in inspect.signature(kind).parameters:
        return kind(from_logits=True)
    if _expects_logits(one) is False:
        *_, (name, _) = _keras_parts(one)
        raise ValueError(
            f"{name} expects probabilities, but learners answer with logits: "
            "give it from_logits=True."
        )
    return one


def _class_of(one, library):
    """The class of Keras that a name means, or a class is; None for others."""
    if isinstance(one, str):
        name = _LONG_NAMES.get(one.lower(), one)
        name = name if name[:1].isupper() else name.title().replace("_", "")
        one = getattr(library, name, None)
    return one if inspect.isclass(one) and _keras_name(one) else None


def _plain(name):
    return name.lower().replace("_", "")


def _compares_with_threshold(one, name):
    if _plain(name) in _WITH_THRESHOLDS:
        takes_largest = getattr(one, "top_k", None) is not None
        return not takes_largest or one.init_thresholds is not None
    is_score = name in ("F1Score", "FBetaScore")
    return is_score and getattr(one, "threshold", None) is not None


def _keras_parts(one):
    """A loss or metric and what it wraps: (name, itself) of Keras's own."""
    if isinstance(one, str):
        return [(one, one)]
    parts = []
    while one is not None:
        name = _keras_name(one)
        parts += [(name, one)] if name else []
        if isinstance(one, functools.partial):
            one = one.func
        elif name and not inspect.isfunction(one):
            one = _wrapped(one)
        else:
            one = None
    return parts


def _wrapped(one):
    return getattr(one, "fn", getattr(one, "_fn", None))


def _keras_name(one):
    """Of an object, a class or a function of Keras; "" if another."""
    if inspect.isfunction(one):  # functools.wraps copies its attributes.
        module, name = one.__globals__["__name__"], one.__code__.co_name
    else:
        kind = one if inspect.isclass(one) else type(one)
        module, name = kind.__module__, kind.__name__
    return name if module.startswith("keras.") else ""


def _expects_logits(one):
    """Whether a loss or metric of Keras expects logits; None if not known."""
    if isinstance(one, functools.partial):
        default = _expects_logits(one.func)
        if default is None:
            return None
        return one.keywords.get("from_logits", default)
    if not _keras_name(one):
        return None
    if inspect.isfunction(one):
        given = inspect.signature(one).parameters.get("from_logits")
        return getattr(given, "default", None)
    for name in ("from_logits", "_from_logits"):  # The latter is AUC's.
        if hasattr(one, name):
            return getattr(one, name)
    given = getattr(one, "_fn_kwargs", {}).get("from_logits")
    return _expects_logits(_wrapped(one)) if given is None else given
