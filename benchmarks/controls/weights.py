"""Weights that pretrained networks start from, which --weights names."""

import dataclasses

from benchmarks.common.arguments import absolute
from benchmarks.controls.rows import FIRST_WEIGHTS

ANY_WEIGHTS = "lite0.weights.h5"  # The file of --weights takes its place.
PRETRAINED = dict(
    dataset="cifar10",
    model_type="efficientnet-lite0",
    student_weights=ANY_WEIGHTS,
)


def with_weights(settings, path):
    """A `Config` with a file of weights where it has ANY_WEIGHTS."""
    given = {
        name: path
        for name in FIRST_WEIGHTS
        if getattr(settings, name) == ANY_WEIGHTS
    }
    return dataclasses.replace(settings, **given) if given else settings


def add_weights(parser):
    """Adds the flag --weights, a file that pretrained networks start from."""
    parser.add_argument(
        "--weights",
        type=absolute,
        help="weights of an EfficientNet-Lite0, for pretrained; see "
        "benchmarks/pretrained/convert.py",
    )


def check_weights(parser, parsed, what, *, needs):
    """Ends the program if --weights is missing, or given without need.

    Args:
      parser, parsed: of the command line.
      what: is trained, in words.
      needs: whether it starts from pretrained weights.
    """
    if needs != bool(parsed.weights):
        parser.error(
            f"{what} {'needs' if needs else 'takes no'} --weights, a file that "
            "benchmarks/pretrained/convert.py writes."
        )
