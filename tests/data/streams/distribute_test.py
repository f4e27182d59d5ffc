"""Batches shared by the replicas of strategies, and by workers."""

import itertools

import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from tests.batch_parts import assert_equal, part, take


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", num_labeled=60, label_subset="balanced", seed=0)


@pytest.mark.fast("2")
@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_each_replica_of_a_strategy_has_its_own_rows(
    digits, replicas, mirrored
):
    settings = dict(
        batch_size=8, unlabeled_ratio=1, magnitude=9, seed=7, start_step=3
    )
    whole = take(data.training_dataset(digits, **settings), 6)
    strategy = mirrored(replicas)
    distributed = data.distribute(
        strategy,
        lambda share: data.training_dataset(digits, **settings, share=share),
    )
    for batch, want in zip(distributed, whole, strict=False):
        for replica in range(replicas):
            got = {
                key: strategy.experimental_local_results(x)[replica]
                for key, x in batch.items()
            }
            assert_equal([got], [part(want, replica, replicas)])


def finetuning(images):
    """A function of a share, which costs little."""
    return lambda share: data.finetuning_dataset(images, 8, 0, share=share)


@pytest.mark.long
def test_replicas_see_their_rows_within_run(digits, mirrored):
    """By their ids, in a compiled loop, as training does it."""
    strategy = mirrored(4)

    @tf.function(autograph=False)
    def step(iterator):
        def own(images, labels):
            replica = tf.distribute.get_replica_context()
            return replica.replica_id_in_sync_group, images, labels

        return strategy.run(own, args=next(iterator))

    distributed = data.distribute(strategy, finetuning(digits))
    # Where the end may come, workers ask each other for it in each step.
    assert distributed.cardinality == tf.data.INFINITE_CARDINALITY
    for _ in range(2):  # A second iteration begins again.
        iterator = iter(distributed)
        for batch in take(finetuning(digits)(None), 4):
            results = map(strategy.experimental_local_results, step(iterator))
            for number, *got in zip(*results, strict=True):
                want = part(batch, int(number), 4)
                assert_equal([tuple(got)], [want])


@pytest.mark.parametrize(
    "strategy",
    [
        tf.distribute.get_strategy,
        lambda: tf.distribute.OneDeviceStrategy("/cpu:0"),
    ],
    ids=["default", "one device"],
)
def test_one_device_sees_whole_batches(digits, strategy):
    distributed = data.distribute(strategy(), finetuning(digits))
    got = [
        tf.nest.map_structure(lambda x: x.numpy(), batch)
        for batch in itertools.islice(distributed, 3)
    ]
    assert_equal(got, take(finetuning(digits)(None), 3))


@pytest.mark.parametrize(
    "workers, worker, replicas, want",
    [(1, 0, 4, (4, 0, 4)), (2, 1, 2, (2, 1, 1)), (4, 2, 32, (32, 16, 8))],
)
def test_share_of_a_worker(workers, worker, replicas, want):
    context = tf.distribute.InputContext(workers, worker, replicas)
    assert data.share_of(context) == data.Share(*want)


def test_replicas_that_are_not_spread_evenly():
    context = tf.distribute.InputContext(2, 0, 3)
    with pytest.raises(ValueError, match="3 replicas on 2 workers"):
        data.share_of(context)
