"""The engine of all training streams, exact and resumable.

Element `step` of a training stream is a function of (seed, step) alone:

* the batch holds the stream's positions step * B + j, j = 0..B-1;
* position p shows example shuffle(p mod N) of epoch p div N, where each epoch
  has a true permutation of its own (not a shuffle buffer);
* the random draws of its views are keyed by (seed, step) and the place j.

So the stream from step k is the tail of the stream from step 0, whatever the
number of threads: a killed run continues where it stopped. A batch may be split
over replicas, see shares.py: together they see what one device would see. All
of it is a pure graph, so a tf.data service may hand the turns out to any number
of workers.

A stream consists of parts: functions from a turn (`shares.Turn`: a step, and
whose rows of it) to a dict of tensors. A part reads rows of arrays
(array_rows.py) or records (record_rows.py), and makes views of them.
"""

import collections.abc
import dataclasses

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.streams import keyed
from meta_pseudo_labels.data.streams.service import through_service
from meta_pseudo_labels.distribute.shares import WHOLE


@dataclasses.dataclass(frozen=True)
class Views:
    """How one kind of inputs is changed without changing its class.

    Attributes:
      weak: a function (inputs, seed, rows) -> inputs, see views.py.
      strong: likewise, for unlabeled inputs.
      labeled_strong: likewise, for labeled inputs after their weak view; None
        if they get only the weak view.
      of_weak: whether the strong view is made from the weak one; otherwise it
        is made from what was read, like the weak one.
      finish: a function of inputs, the last step of a view.
    """

    weak: collections.abc.Callable
    strong: collections.abc.Callable | None = None
    labeled_strong: collections.abc.Callable | None = None
    of_weak: bool = True
    finish: collections.abc.Callable = lambda inputs: inputs


def labeled_part(read, views, *, batch_size, seed, stream, name="labeled"):
    """The part of labeled rows.

    Args:
      read: a function from a turn to a dict: "inputs", and what accompanies
        their view.
      views: `Views`.
      batch_size: rows of the whole batch.
      seed, stream: keys of the draws, see keyed.py.
      name: the view's key in the batch.
    """

    def part(turn):
        beside, rows = dict(read(turn)), turn.rows(batch_size)
        key = keyed.key(seed, stream, keyed.WEAK, turn.step)
        view = views.weak(beside.pop("inputs"), key, rows)
        if views.labeled_strong:
            key = keyed.key(seed, stream, keyed.STRONG, turn.step)
            view = views.labeled_strong(view, key, rows)
        return {name: views.finish(view)} | beside

    return part


def unlabeled_part(read, views, *, batch_size, seed, stream):
    """The part of two views of the same rows: "weak" and "strong".

    Args: see `labeled_part`.
    """

    def part(turn):
        beside, rows = dict(read(turn)), turn.rows(batch_size)
        inputs = beside.pop("inputs")
        key = keyed.key(seed, stream, keyed.WEAK, turn.step)
        weak = views.weak(inputs, key, rows)
        key = keyed.key(seed, stream, keyed.STRONG, turn.step)
        strong = views.strong(weak if views.of_weak else inputs, key, rows)
        finished = {"weak": views.finish(weak), "strong": views.finish(strong)}
        return finished | beside

    return part


def stream(parts, *, start_step=0, share=None, service=None, at_once=None):
    """The endless data set of the parts' dicts, merged, turn by turn.

    Args:
      parts: functions from a `shares.Turn` to a dict of tensors.
      start_step: the step of the first turn, >= 0.
      share: `Share` of the batches; None for whole ones.
      service: address of a tf.data service whose workers make the batches;
        None makes them here.
      at_once: how many are made in parallel here; None lets tf.data choose.
    """
    share = share or WHOLE

    # Nothing here needs AutoGraph, which makes tracing several times slower.
    @tf.autograph.experimental.do_not_convert
    def batch(number):
        turn = share.turn(number)
        return {key: x for part in parts for key, x in part(turn).items()}

    first = share.first_number(start_step)
    if service:
        return through_service(batch, service, start_step=first)
    return tf.data.Dataset.range(first, np.iinfo(np.int64).max).map(
        batch,
        num_parallel_calls=at_once or tf.data.AUTOTUNE,
        deterministic=True,
    )
