"""Warm-up requests, read by protocol buffers that are declared once more."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2

from meta_pseudo_labels.data import DATASETS
from meta_pseudo_labels.export.warmup import (
    prediction_log,
    write_warmup_requests,
)

# Message, then its fields: number, name, type; a tensor's bytes stay bytes.
MESSAGES = {
    "ModelSpec": [(3, "signature_name", "string")],
    "Entry": [(1, "key", "string"), (2, "value", "bytes")],
    "PredictRequest": [(1, "model_spec", "ModelSpec"), (2, "inputs", "Entry")],
    "PredictLog": [(1, "request", "PredictRequest")],
    "PredictionLog": [(6, "predict_log", "PredictLog")],
}


@pytest.fixture(scope="module")
def log_class():
    field = descriptor_pb2.FieldDescriptorProto
    plain = dict(string=field.TYPE_STRING, bytes=field.TYPE_BYTES)
    file = descriptor_pb2.FileDescriptorProto(
        name="own.proto", package="own", syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field_name, kind in fields:
            repeated = kind == "Entry"
            added = message.field.add(
                name=field_name,
                number=number,
                type=plain.get(kind, field.TYPE_MESSAGE),
                label=field.LABEL_REPEATED
                if repeated
                else field.LABEL_OPTIONAL,
            )
            if kind not in plain:
                added.type_name = f".own.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("own.PredictionLog")
    )


def decoded(log_class, content):
    """The signature's name, and a dict of tensors."""
    log = log_class.FromString(content)
    request = log.predict_log.request
    return request.model_spec.signature_name, {
        entry.key: tf.make_ndarray(
            tensor_pb2.TensorProto.FromString(entry.value)
        )
        for entry in request.inputs
    }


def test_every_signature_gets_one_request(log_class, tmp_path):
    write_warmup_requests(tmp_path, DATASETS["digits"])
    path = str(tmp_path / "tf_serving_warmup_requests")
    records = [r.numpy() for r in tf.data.TFRecordDataset(path)]
    found = dict(decoded(log_class, record) for record in records)
    assert list(found) == ["serving_default", "serving_float", "serving_bytes"]
    for name, dtype in (("default", np.uint8), ("float", np.float32)):
        images = found[f"serving_{name}"]["images"]
        assert images.shape == (1, 8, 8, 3) and images.dtype == dtype
        assert not images.any()
    (encoded,) = found["serving_bytes"]["encoded"]
    assert tf.io.decode_image(encoded).shape == [8, 8, 3]


def test_large_tensors_and_many_inputs(log_class):
    """Lengths of more than one and two groups of seven bits."""
    inputs = {
        "a": np.arange(40_000, dtype=np.float32),
        "b" * 200: np.array([True, False]),
        "none": np.zeros([0], np.int64),
    }
    name, found = decoded(log_class, prediction_log("s" * 128, inputs))
    assert name == "s" * 128 and list(found) == list(inputs)
    for key, value in inputs.items():
        np.testing.assert_array_equal(found[key], value)


def test_the_bytes_by_hand():
    """Keys are number << 3 | 2; the map's entry holds key and value."""
    content = prediction_log("s", {})
    assert content == b"\x32\x07\x0a\x05\x0a\x03\x1a\x01s"
