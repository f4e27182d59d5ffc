"""Input work on other machines, with TensorFlow's tf.data service."""

from meta_pseudo_labels.data.streams.service.addresses import (
    parse_address,
    wait_for_dispatcher,
)
from meta_pseudo_labels.data.streams.service.stream import (
    MAX_HELD_BYTES,
    through_service,
)

__all__ = [
    "MAX_HELD_BYTES",
    "parse_address",
    "through_service",
    "wait_for_dispatcher",
]
