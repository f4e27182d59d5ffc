"""From settings to a `tf.distribute` strategy, the only way to one."""

import contextlib
import json
import os
import signal
import threading

import tensorflow as tf

from meta_pseudo_labels.distribute.tpu_devices import tpu_strategy
from meta_pseudo_labels.utils.files import parse_json
from meta_pseudo_labels.utils.settings import ConfigError


def build_strategy(config):
    """The strategy that the settings ask for; see --distribution.

    Call this before TensorFlow runs anything: workers and parts of the
    processor cannot be created later.

    Args:
      config: `Config`; only its `MachineSettings` matter.

    Returns:
      A `tf.distribute.Strategy`. On one device without a GPU it is
      TensorFlow's default, which moves no batch.

    Raises:
      ConfigError: if there are no such devices, or they cannot be reached.
    """
    kind = _kind(config)
    if config.use_xla_sharding and kind != "tpu":
        raise ConfigError(
            "--use_xla_sharding splits images over the cores of a TPU, and "
            "there is none here; leave it out."
        )
    if kind == "tpu":
        return tpu_strategy(config)
    if kind == "multi_worker":
        return _multi_worker(config)
    if kind == "mirrored":
        return _mirrored(config)
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.OneDeviceStrategy("/gpu:0")
    return tf.distribute.get_strategy()


def describe(strategy):
    """What a strategy trains on, in words.

    A run that finds no GPU uses the CPU: for hours, or for months.
    """
    count = strategy.num_replicas_in_sync
    if isinstance(strategy, tf.distribute.TPUStrategy):
        kind = "TPU"
    elif tf.config.list_physical_devices("GPU"):
        kind = "GPU"
    else:
        kind = "CPU"
    text = f"{count} {kind} replica{'s' if count > 1 else ''}"
    if is_multi_worker(strategy):
        text += " of several workers"
    return text + ("; TensorFlow sees no GPU" if kind == "CPU" else "")


def worker_of(strategy):
    """Number of this process among a strategy's workers; 0 if it is alone.

    Worker 0 writes the run's files.
    """
    if not is_multi_worker(strategy):
        return 0
    resolver = strategy.cluster_resolver
    # A separate chief, in TF_CONFIG, comes before the workers.
    if resolver.task_type == "chief":
        return 0
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_id + has_chief


def is_multi_worker(strategy):
    """Whether several processes train together, each with its own Python.

    That is not so on a TPU pod, which one process drives.
    """
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def has_tpu(config):
    """Whether the settings name a TPU, or allow one and it is there."""
    if config.distribution == "tpu" or config.master:
        return True
    return config.use_tpu and bool(tf.config.list_physical_devices("TPU"))


def _kind(config):
    if config.distribution != "auto":
        return config.distribution
    if has_tpu(config):
        return "tpu"
    if sum(map(len, _cluster(config).values())) > 1:
        return "multi_worker"
    gpus = len(tf.config.list_physical_devices("GPU"))
    return "mirrored" if (config.replicas_per_worker or gpus) > 1 else "one"


def _mirrored(config):
    gpus = tf.config.list_physical_devices("GPU")
    count = config.replicas_per_worker or max(1, len(gpus))
    if not gpus:
        _split_processor(count)
        return tf.distribute.MirroredStrategy(
            [f"CPU:{index}" for index in range(count)],
            # TensorFlow's collective operations may block one another if there
            # are fewer cores than replicas.
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
    if count > len(gpus):
        raise ConfigError(
            f"--replicas_per_worker={count}, but there are {len(gpus)} GPUs."
        )
    return tf.distribute.MirroredStrategy(
        [f"GPU:{index}" for index in range(count)]
    )


def _split_processor(count):
    """Splits the processor into logical devices."""
    processor = tf.config.list_physical_devices("CPU")[0]
    parts = tf.config.get_logical_device_configuration(processor) or ()
    if len(parts) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(
            processor, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise ConfigError(
            f"--replicas_per_worker={count}: the processor cannot be split "
            "once TensorFlow has begun to run. Build the strategy first."
        ) from error


def _cluster(config):
    """The processes that train, by TF_CONFIG or settings: {job: addresses}."""
    text = os.environ.get("TF_CONFIG", "")
    if config.addresses:
        return {"worker": config.addresses}
    if not text:
        return {}
    try:
        told = parse_json(text)
        cluster, task = dict(told["cluster"]), dict(told.get("task", {}))
        for addresses in cluster.values():
            if not isinstance(addresses, list) or not all(
                isinstance(address, str) for address in addresses
            ):
                raise ValueError("a job is not a list of addresses")
        index = task.get("index", 0)
        if type(index) is not int or not 0 <= index < 2**31:
            raise ValueError(
                "the index of the task is not a whole number of 0 or more"
            )
        if not isinstance(task.get("type", "worker"), str):
            raise ValueError("the type of the task is not text")
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"TF_CONFIG={text[:200]!r} cannot be read as JSON with a cluster: "
            f"{error!r}. Correct it, or give --worker_addresses and "
            "--worker_index."
        ) from error
    strangers = {*cluster, task.get("type", "worker")} - {"chief", "worker"}
    if strangers:
        raise ConfigError(
            f"TF_CONFIG has {', '.join(sorted(strangers))}; only the jobs "
            "chief and worker train here. To evaluate beside a run, start "
            "`mpl eval_forever` without TF_CONFIG."
        )
    return cluster


def _multi_worker(config):
    if config.addresses:
        task = {"type": "worker", "index": config.worker_index}
        os.environ["TF_CONFIG"] = json.dumps(
            {"cluster": _cluster(config), "task": task}
        )
    if not _cluster(config):
        raise ConfigError(
            "--distribution=multi_worker needs --worker_addresses and "
            "--worker_index, or TF_CONFIG."
        )
    if config.replicas_per_worker:
        raise ConfigError(
            "--replicas_per_worker: workers use all their GPUs; set "
            "CUDA_VISIBLE_DEVICES to choose."
        )
    everyone = [a for job in _cluster(config).values() for a in job]
    if others := len(everyone) - 1:
        print(
            f"Waiting for {others} worker{'s' if others > 1 else ''}: all of "
            f"{', '.join(everyone)} must be running.",
            flush=True,
        )
    try:
        with _termination_kept():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise ConfigError(
            f"The workers {_cluster(config)} cannot be joined: {error}"
        ) from error


@contextlib.contextmanager
def _termination_kept():
    """Restores the effect that SIGTERM had before.

    With the strategy, TensorFlow begins to catch it and does nothing more: it
    could not end a worker that waits for others.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # Python sets handlers in its main thread only.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
