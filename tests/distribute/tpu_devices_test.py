"""Replicas of a TPU, by meshes as TensorFlow tells them."""

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.distribute import tpu_devices
from meta_pseudo_labels.utils.settings import ConfigError


def topology(mesh_shape):
    """A TPU on one host, by its cores in x, y, z, and of a chip."""
    places = np.stack(np.meshgrid(*map(range, mesh_shape), indexing="ij"), -1)
    return tf.tpu.experimental.Topology(
        mesh_shape=mesh_shape,
        device_coordinates=places.reshape(1, -1, len(mesh_shape)),
    )


@pytest.mark.parametrize(
    ("mesh", "cores", "shape"),
    [
        ((2, 2, 1, 2), 1, [1, 1, 1, 1]),  # Two cores a chip.
        ((2, 2, 1, 2), 2, [1, 1, 1, 2]),
        ((2, 2, 1, 2), 4, [1, 2, 1, 2]),
        ((2, 2, 1, 2), 8, [2, 2, 1, 2]),
        ((4, 2, 1, 2), 16, [4, 2, 1, 2]),
        ((2, 4, 1, 1), 2, [1, 2, 1, 1]),  # One core a chip.
        ((2, 4, 1, 1), 8, [2, 4, 1, 1]),
        ((2, 2, 2, 1), 4, [1, 2, 2, 1]),
    ],
)
def test_a_replica_is_a_block_of_neighbors(mesh, cores, shape):
    assert tpu_devices.replica_shape(cores, mesh) == shape
    count = int(np.prod(mesh)) // cores
    assigned = tf.tpu.experimental.DeviceAssignment.build(
        topology(mesh), computation_shape=shape, num_replicas=count
    )
    used = {
        tuple(assigned.coordinates(replica, core))
        for replica in range(count)
        for core in range(cores)
    }
    assert len(used) == count * cores  # Each core in one replica.


def test_a_tpu_that_is_not_made_of_such_blocks_is_refused():
    with pytest.raises(ConfigError, match="3 x 2 x 1 x 1 cores .* fewer"):
        tpu_devices.replica_shape(4, (3, 2, 1, 1))
