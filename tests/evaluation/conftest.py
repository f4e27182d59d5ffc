"""What tests of several files of this room need."""

import pytest
import tensorflow as tf


@pytest.fixture
def tensorflow_log(caplog):
    """What TensorFlow logs, which pytest does not see by itself."""
    logger = tf.get_logger()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
