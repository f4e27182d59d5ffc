"""Files of weights that are damaged, in whatever way."""

import random

import keras
import pytest

from meta_pseudo_labels.utils.checkpoint_files import (
    CheckpointError,
    load_weights,
    save_weights,
)


def test_flipped_bytes_of_weights_are_told_of_or_harmless(tmp_path):
    """HDF5 raises errors of many classes; some bytes are of the numbers."""
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
    path = str(tmp_path / "a.weights.h5")
    save_weights(model, path)
    with open(path, "rb") as file:
        content = file.read()
    draws, refused = random.Random(0), 0
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(20):
            damaged[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        with open(path, "wb") as file:
            file.write(damaged)
        try:
            load_weights(model, path)
        except CheckpointError as error:
            refused += 1
            assert "Delete it, and finetune again." in str(error)
            assert "\n" not in str(error)
    assert refused > 10
    with open(path, "wb") as file:
        file.write(content[:100])
    with pytest.raises(CheckpointError):
        load_weights(model, path)
