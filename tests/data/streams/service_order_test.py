"""Steps in order, whatever order the workers of a service deliver them in."""

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data.streams.service.ordering import in_order
from tests.batch_parts import take


def numbered(order, batch):
    """What arrives from workers that deliver steps in this order."""
    steps = tf.data.Dataset.from_tensor_slices(np.array(order, np.int64))
    return steps.map(lambda step: (step, batch(step)))


def mark(origin):
    """A batch that tells its step, in two types, and where it was made."""
    return lambda step: {
        "step": step,
        "image": tf.fill([2, 3], tf.cast(step, tf.float32)),
        "origin": tf.constant(origin),
    }


@pytest.mark.fast("order2-5-4-5 6 7", "order6-0-4-0 1 2")
@pytest.mark.parametrize(
    "order, start, window, want",
    [
        # (step, whether it was made here)
        ([0, 1, 2], 0, 1, "0 1 2"),
        ([3, 0, 2, 1, 4], 0, 4, "0 1 2 3 4"),
        ([7, 5, 6], 5, 4, "5 6 7"),
        # 1 is lost, and would have been waited for in a longer window.
        ([0, 2, 3, 4, 5], 0, 4, "0 1* 2 3 4 5"),
        ([0, 2, 3, 4, 5], 0, 5, "0"),
        # It comes after all, and twice.
        ([0, 2, 3, 4, 5, 1, 1, 6], 0, 4, "0 1* 2 3 4 5 6"),
        ([0, 1, 1, 0, 2], 0, 4, "0 1 2"),
        # Far ahead: all that the window cannot hold is made here.
        ([0, 9, 7, 8], 0, 3, "0 1* 2* 3* 4* 5* 6* 7 8 9"),
    ],
)
def test_steps_come_in_order(order, start, window, want):
    arrivals = numbered(order, mark("service"))
    batches = take(
        in_order(arrivals, mark("here"), start_step=start, window=window), 20
    )
    origins = {b"service": "", b"here": "*"}
    got = [f"{x['step']}{origins[x['origin']]}" for x in batches]
    assert " ".join(got) == want
    for batch in batches:
        np.testing.assert_array_equal(batch["image"], [[batch["step"]] * 3] * 2)


@pytest.mark.fast("1", "3")
@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_arrival_changes_the_stream(seed):
    """Shuffled, with losses and repetitions."""
    random = np.random.default_rng(seed)
    order = np.arange(200) + random.integers(0, 12, 200)
    order = np.argsort(order, kind="stable")
    order = np.concatenate([order[random.random(200) > 0.1], np.arange(200)])
    got = take(
        in_order(
            numbered(order, mark("service")),
            mark("here"),
            start_step=0,
            window=8,
        ),
        180,
    )
    assert [x["step"] for x in got] == list(range(180))
    origins = [x["origin"] for x in got]
    assert 0 < origins.count(b"here") < 90
