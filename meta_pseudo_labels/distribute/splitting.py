"""Batches that several replicas share."""

import tensorflow as tf

from meta_pseudo_labels.distribute.shares import share_of


def shared(strategy, x, *, batch_size=None, shuffle=False, **kwargs):
    """The input of `fit` as batches of which each replica gets its rows.

    Args:
      strategy: of several replicas.
      x: see `_global_batches`.
      batch_size, shuffle: for arrays.
      **kwargs: the other arguments of `fit`.

    Returns:
      (input, other arguments) for Keras's `fit`.

    Raises:
      ValueError: see `_global_batches` and `split_batches`.
    """
    x = _global_batches(strategy, x, batch_size=batch_size, shuffle=shuffle)
    if not isinstance(x, tf.data.Dataset):
        return x, kwargs
    batches = int(x.cardinality())
    if batches > 0:  # Not known any more once they are split.
        # One iterator serves all epochs then, so it must not end.
        if kwargs.get("steps_per_epoch") is None:
            kwargs["steps_per_epoch"] = batches
        x = x.repeat()
    return split_batches(strategy, x), kwargs


def _global_batches(strategy, x, *, batch_size, shuffle):
    """The input of `fit` as batches that `split_batches` can split.

    Args:
      strategy: of several replicas.
      x: `tf.data.Dataset`, which is returned as it is, as is one that is
        distributed already; or a dict of arrays of equal lengths.
      batch_size: of arrays, 32 by default.
      shuffle: whether arrays are shuffled, anew in every epoch.

    Returns:
      `tf.data.Dataset` or `tf.distribute.DistributedDataset`.

    Raises:
      ValueError: for anything else, of which Keras would give some replica
        fewer rows, or none, wherever a batch is smaller than the others; for
        arrays that do not make whole batches.
    """
    if isinstance(x, (tf.data.Dataset, tf.distribute.DistributedDataset)):
        return x
    total = strategy.num_replicas_in_sync
    if not isinstance(x, dict):
        raise ValueError(
            f"{total} replicas share the batches of a tf.data.Dataset; got a "
            f"{type(x).__name__}. tf.data.Dataset.from_generator makes one of "
            "batches, with the fixed shapes of its output_signature."
        )
    data = tf.data.Dataset.from_tensor_slices(x)
    rows = int(data.cardinality())
    size = min(batch_size or 32, rows)
    if not rows or rows % size:
        raise ValueError(
            f"{total} replicas need batches of one size; {rows} rows do not "
            f"make whole batches of {size}. Set another batch_size, or pass "
            "tf.data.Dataset.from_tensor_slices(arrays)"
            f".batch({size}, drop_remainder=True)."
        )
    if shuffle:
        data = data.shuffle(rows)
    return data.batch(size, drop_remainder=True)


def split_batches(strategy, dataset):
    """Gives each replica of a strategy its rows of every batch.

    Each worker makes whole batches and takes its rows. Batches may be nested,
    and their parts may have different numbers of rows. `data.training_dataset`
    can make the rows of one replica only.

    Args:
      strategy: of several replicas.
      dataset: `tf.data.Dataset` of global batches.

    Returns:
      `tf.distribute.DistributedDataset`.

    Raises:
      ValueError: if the number of replicas does not divide the rows, or the
        data set of several workers ends.
    """
    total = strategy.num_replicas_in_sync
    for spec in tf.nest.flatten(dataset.element_spec):
        rows = spec.shape[0]
        if rows is None or rows % total:
            raise ValueError(
                f"Batches must have a fixed number of rows that {total} "
                f"replicas can share; got {rows}. Use batch(.., "
                f"drop_remainder=True) and a multiple of {total}."
            )

    endless = dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    if not endless and isinstance(
        strategy, tf.distribute.MultiWorkerMirroredStrategy
    ):
        raise ValueError(
            "On several workers a data set must not end: use .repeat(), and "
            "steps_per_epoch of fit."
        )

    def make_part(context):
        share = share_of(context)

        def rows_of_replicas(batch):
            def split(x):
                shape = [total, x.shape[0] // total, *x.shape[1:]]
                parts = tf.reshape(x, [-1 if d is None else d for d in shape])
                return parts[share.first : share.first + share.count]

            parts = tf.nest.map_structure(split, batch)
            return tf.data.Dataset.from_tensor_slices(parts)

        parts = dataset.flat_map(rows_of_replicas)
        if endless:  # Not known from the parts any more.
            # If the end may come, TensorFlow makes several workers expect
            # that rows are missing, so that no step knows their number.
            parts = parts.apply(
                tf.data.experimental.assert_cardinality(
                    tf.data.INFINITE_CARDINALITY
                )
            )
        return parts

    return strategy.distribute_datasets_from_function(make_part)
