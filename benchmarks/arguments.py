"""What the command lines of the benchmarks share."""

import argparse


def positive(text):
    """An integer of at least 1; a `type` for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number
