"""What `fit` calls for a step, under every strategy."""

import functools

import tensorflow as tf

from meta_pseudo_labels import replicas


def build_train_function(learner):
    """A function from an iterator to the logs of the last step it took.

    Keras's own fails where several workers return scalars (keras-team/keras
    issue 20585). Here the logs are those of the first replica: learners reduce
    them, so all are equal.

    Args:
      learner: a compiled `Learner`.
    """
    strategy = learner.distribute_strategy
    with strategy.scope():
        branches = learner.costly_logs and replicas.merges()

    def run(batch, **choices):
        step = functools.partial(learner.train_step, **choices)
        logs = strategy.run(step, args=(batch,))
        return tf.nest.map_structure(
            lambda log: strategy.experimental_local_results(log)[0], logs
        )

    def train_on(batch):
        if not branches:
            return run(batch)
        # Replicas cannot meet within a branch of a step; so it has two.
        return tf.cond(
            learner.logs_are_due(),
            lambda: run(batch, costly=True),
            lambda: run(batch, costly=False),
        )

    if not learner.run_eagerly:
        train_on = tf.function(
            train_on, autograph=False, jit_compile=learner.jit_compile
        )

    def train(iterator):
        for _ in range(learner.steps_per_execution - 1):
            train_on(next(iterator))
        return train_on(next(iterator))

    def train_in_graph(iterator):
        steps = learner.steps_per_execution - 1
        if steps:
            tf.while_loop(
                lambda step: step < steps,
                lambda step: [_then(train_on(next(iterator)), step + 1)],
                [tf.constant(0)],
            )
        return train_on(next(iterator))

    if learner.run_eagerly:
        return train
    return tf.function(train_in_graph, autograph=False)


def _then(logs, result):
    """The result, once the logs are there."""
    with tf.control_dependencies(tf.nest.flatten(logs)):
        return tf.identity(result)


def split_batches(strategy, dataset):
    """Gives each replica of a strategy its rows of every batch.

    Each worker makes whole batches and takes its rows, of nested batches whose
    parts may have different numbers of rows. `data.training_dataset` can make
    a replica's rows alone.

    Args:
      strategy: of several replicas.
      dataset: `tf.data.Dataset` of global batches.

    Returns:
      `tf.distribute.DistributedDataset`.

    Raises:
      ValueError: where the rows do not divide by the replicas.
    """
    total = strategy.num_replicas_in_sync
    for shape in tf.nest.flatten(
        tf.nest.map_structure(lambda spec: spec.shape, dataset.element_spec),
        expand_composites=False,
    ):
        rows = shape[0]
        if rows is None or rows % total:
            raise ValueError(
                f"Batches must have a fixed number of rows that {total} "
                f"replicas can share; got {rows}. Use batch(.., "
                f"drop_remainder=True) and a multiple of {total}."
            )

    def worker_dataset(context):
        local = total // context.num_input_pipelines
        first = context.input_pipeline_id * local

        def rows_of(batch):
            def split(x):
                parts = tf.reshape(x, [total, -1, *x.shape[1:]])
                parts = tf.ensure_shape(
                    parts, [total, x.shape[0] // total, *x.shape[1:]]
                )
                return parts[first : first + local]

            parts = tf.nest.map_structure(split, batch)
            return tf.data.Dataset.from_tensor_slices(parts)

        return dataset.flat_map(rows_of)

    return strategy.distribute_datasets_from_function(worker_dataset)
