"""From settings to a `tf.distribute` strategy, the only way to one."""

import json
import os

import tensorflow as tf

from meta_pseudo_labels.settings import ConfigError

# Cores of a TPU's topology, [x, y, z, core], that make one replica.
_REPLICA_SHAPES = {
    1: [1, 1, 1, 1],
    2: [1, 1, 1, 2],
    4: [1, 2, 1, 2],
    8: [2, 2, 1, 2],
    16: [4, 2, 1, 2],
}


def build_strategy(config):
    """The strategy that the settings ask for; see --distribution.

    To be called before TensorFlow has run anything: workers and parts of the
    processor cannot be made later.

    Args:
      config: `Config`; its `config_machine.Machine` counts.

    Returns:
      A `tf.distribute.Strategy`. On one device without a GPU it is
      TensorFlow's default, which moves no batch.

    Raises:
      ConfigError: where there are no such devices, or they cannot be reached.
    """
    kind = _kind(config)
    if kind == "tpu":
        strategy = _tpu(config)
    elif kind == "multi_worker":
        strategy = _multi_worker(config)
    elif kind == "mirrored":
        strategy = _mirrored(config)
    elif tf.config.list_physical_devices("GPU"):
        strategy = tf.distribute.OneDeviceStrategy("/gpu:0")
    else:
        strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if config.train_batch_size % replicas:
        raise ConfigError(
            f"--train_batch_size={config.train_batch_size} cannot be shared by "
            f"{replicas} replicas; give a multiple of {replicas}."
        )
    share = config.train_batch_size // replicas
    if share % config.batch_slices:
        raise ConfigError(
            f"--batch_slices={config.batch_slices} does not divide the "
            f"{share} labeled images of each of {replicas} replicas."
        )
    if config.jit_compile and replicas > 1 and kind != "tpu":
        raise ConfigError(
            f"--jit_compile works on one device; here are {replicas}. Leave it "
            "away, or say --distribution=one_device."
        )
    return strategy


def worker_of(strategy):
    """Number of this process among a strategy's workers; 0 where it is alone.

    Worker 0 writes the run's files.
    """
    if not is_multi_worker(strategy):
        return 0
    resolver = strategy.cluster_resolver
    # A chief of its own, in TF_CONFIG, comes before the workers.
    if resolver.task_type == "chief":
        return 0
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_id + has_chief


def is_multi_worker(strategy):
    """Whether several processes train together, each with a Python of its own.

    Not so on a TPU pod, which one process drives.
    """
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def has_tpu(config):
    """Whether the settings ask for a TPU that there is."""
    if config.distribution == "tpu" or config.master:
        return True
    return config.use_tpu and bool(tf.config.list_physical_devices("TPU"))


def _kind(config):
    if config.distribution != "auto":
        return config.distribution
    if has_tpu(config):
        return "tpu"
    if len(_cluster(config).get("worker", [])) > 1:
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
            # TensorFlow's collective operations may block one another where
            # there are fewer cores than replicas.
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
    """Makes logical devices of the processor."""
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
    """The workers of TF_CONFIG or of the settings: {job: addresses}."""
    text = os.environ.get("TF_CONFIG", "")
    if config.addresses:
        return {"worker": config.addresses}
    if not text:
        return {}
    try:
        return dict(json.loads(text)["cluster"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"TF_CONFIG={text!r} cannot be read as JSON with a cluster: "
            f"{error!r}. Mend it, or give --worker_addresses and "
            "--worker_index."
        ) from error


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
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise ConfigError(
            f"The workers {_cluster(config)} cannot be joined: {error}"
        ) from error


def _tpu(config):
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu=config.master or "local"
        )
        tf.config.experimental_connect_to_cluster(resolver)
        topology = tf.tpu.experimental.initialize_tpu_system(resolver)
    except (RuntimeError, ValueError, OSError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ConfigError(
            f"No TPU can be reached as --master={config.master or 'local'}: "
            f"{reason} See tpu/README.md; without a TPU leave --use_tpu, "
            "--master and --distribution=tpu away."
        ) from error
    cores = config.num_cores_per_replica
    total = topology.num_tasks * topology.num_tpus_per_task
    if total % cores:
        raise ConfigError(
            f"--num_cores_per_replica={cores} does not divide the {total} "
            "cores of the TPU."
        )
    assignment = tf.tpu.experimental.DeviceAssignment.build(
        topology,
        computation_shape=_REPLICA_SHAPES[cores],
        num_replicas=total // cores,
    )
    return tf.distribute.TPUStrategy(
        resolver, experimental_device_assignment=assignment
    )
