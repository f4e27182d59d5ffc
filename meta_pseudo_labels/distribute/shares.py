"""Training batches split over replicas, and over the workers they run on.

Replica r of R sees rows r * B/R to (r + 1) * B/R - 1 of the same batch of B
that one device would see, with the same pixels: views are drawn for the place
in the whole batch. Only the requested rows are read and augmented; for the
others only the random numbers are drawn, a few for each image.
"""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Share:
    """Which replicas' parts of the batches a data set holds.

    Attributes:
      replicas: number of replicas of all workers together, R >= 1.
      first: the first replica that is wanted, from 0.
      count: how many are wanted, from the first one on, >= 1.

    Raises:
      ValueError: if there are no such replicas.
    """

    replicas: int
    first: int
    count: int

    def __post_init__(self):
        last = self.first + self.count - 1
        if self.first < 0 or self.count < 1 or last >= self.replicas:
            raise ValueError(
                f"{self} asks for the replicas {self.first} to {last}; give a "
                f"count >= 1 of replicas from 0 to {self.replicas - 1}."
            )

    def check(self, batch_size):
        """Raises ValueError if the replicas cannot have equal parts.

        The labeled batch is checked. The feedback batch has the same size and
        the unlabeled one a multiple of it, so they can be split if it can.
        """
        rest = batch_size % self.replicas
        if not rest:
            return
        below, above = batch_size - rest, batch_size - rest + self.replicas
        sizes = f"{below} or {above}" if below else str(above)
        raise ValueError(
            f"batch_size is {batch_size}, which {self.replicas} replicas "
            f"cannot share equally; give a multiple of {self.replicas}, such "
            f"as {sizes}, or use fewer replicas."
        )

    def first_number(self, start_step):
        """The number of the element that a step begins with."""
        return start_step * self.count

    def turn(self, number):
        """The `Turn` that element `number`, [] int64, of the data set holds."""
        replica = None if self.replicas == 1 else self.first
        if self.count > 1:
            replica = self.first + number % self.count
        return Turn(
            step=number // self.count, replica=replica, replicas=self.replicas
        )


WHOLE = Share(replicas=1, first=0, count=1)  # One device sees whole batches.


@dataclasses.dataclass(frozen=True)
class Turn:
    """One replica's part of the batch of one step.

    Attributes:
      step: [] int64.
      replica: int or [] int64; None if there is only one.
      replicas: int, R.
    """

    step: tf.Tensor
    replica: tf.Tensor | int | None = None
    replicas: int = 1

    def rows(self, batch_size):
        """Its `Rows` of a batch of `batch_size` in total; None for all."""
        if self.replica is None:
            return None
        count = batch_size // self.replicas
        begin = tf.cast(self.replica, tf.int64) * count
        return Rows(begin=begin, count=count, total=batch_size)

    def size(self, batch_size):
        """The number of rows that it has of such a batch: int."""
        return batch_size // self.replicas


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some rows of a batch, one after another.

    Attributes:
      begin: the first one, [] int64.
      count: how many, known before the graph runs, so shapes are static.
      total: rows of the whole batch.
    """

    begin: tf.Tensor
    count: int
    total: int

    def of(self, values):
        """These rows of [total, ...] values: [count, ...]."""
        shape = values.shape.as_list()
        begin = tf.concat([[self.begin], tf.zeros(len(shape) - 1, tf.int64)], 0)
        return tf.slice(values, begin, [self.count, *shape[1:]])


def distribute(strategy, make, options=None):
    """A data set for all replicas of a strategy, each with its own rows.

        distribute(strategy, lambda share: training_dataset(..., share=share))

    Args:
      strategy: a tf.distribute.Strategy.
      make: a function of a `Share` returning an endless tf.data.Dataset, whose
        elements are the replicas' parts in order. It is called once for each
        of the strategy's input workers.
      options: tf.distribute.InputOptions, or None for the strategy's own.

    Returns:
      tf.distribute.DistributedDataset: element `k` holds for replica r its
      part of step start_step + k. `fit` accepts it.

    Raises:
      ValueError: if the replicas are not spread evenly over the workers, or
        for what `make` refuses.
    """

    def make_part(context):
        dataset = make(share_of(context))
        # If the data may end, several workers ask each other in each step
        # whether all have a batch left.
        return dataset.apply(
            tf.data.experimental.assert_cardinality(
                tf.data.INFINITE_CARDINALITY
            )
        )

    return strategy.distribute_datasets_from_function(make_part, options)


def share_of(context):
    """The `Share` of one worker.

    Args:
      context: its tf.distribute.InputContext.

    Raises:
      ValueError: if the replicas are not spread evenly over the workers.
    """
    replicas, workers = (
        context.num_replicas_in_sync,
        context.num_input_pipelines,
    )
    if replicas % workers:
        raise ValueError(
            f"{replicas} replicas on {workers} workers: give each worker the "
            "same number of devices."
        )
    count = replicas // workers
    return Share(
        replicas=replicas, first=context.input_pipeline_id * count, count=count
    )
