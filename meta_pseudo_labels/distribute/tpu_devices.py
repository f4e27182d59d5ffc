"""The replicas of a TPU: how many, and with which cores."""

import math

import tensorflow as tf

from meta_pseudo_labels.utils.settings import ConfigError


def tpu_strategy(config):
    """The strategy over the TPU that the settings name.

    Raises:
      ConfigError: if it cannot be reached, or cannot be divided into replicas.
    """
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
            f"{reason} See tpu/README.md; without a TPU leave out "
            "--use_tpu, --master and --distribution=tpu."
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
        computation_shape=replica_shape(cores, topology.mesh_shape),
        num_replicas=total // cores,
    )
    return tf.distribute.TPUStrategy(
        resolver, experimental_device_assignment=assignment
    )


def replica_shape(cores, mesh_shape):
    """Which neighboring cores of a TPU make one replica.

    Those of one chip first, then chips in a block that is as square as the
    mesh allows.

    Args:
      cores: number of cores of a replica, a power of 2.
      mesh_shape: cores of the TPU, [x, y, z, core]; a chip has one or two.

    Returns:
      A list of the same length, whose product is `cores`.

    Raises:
      ConfigError: if the mesh cannot be divided into such blocks.
    """
    mesh = [int(side) for side in mesh_shape]
    shape = [1] * (len(mesh) - 1) + [math.gcd(cores, mesh[-1])]
    while math.prod(shape) < cores:
        axes = [i for i in range(len(mesh)) if mesh[i] % (2 * shape[i]) == 0]
        if not axes:
            raise ConfigError(
                f"--num_cores_per_replica={cores}: the TPU's "
                f"{' x '.join(map(str, mesh))} cores cannot be divided into "
                "such blocks; give fewer."
            )
        shape[min(axes, key=lambda i: (shape[i], -i))] *= 2
    return shape
