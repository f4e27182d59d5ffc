"""Requests with which TensorFlow Serving warms a model up before it serves.

It replays the file assets.extra/tf_serving_warmup_requests of a version, so
that the first client does not wait while TensorFlow plans the graph. The file
holds TFRecords of the protocol buffer `PredictionLog`. The package that defines
it, tensorflow-serving-api, is tied to one version of TensorFlow; we need only
six of its fields, each of which is written like a string of bytes.
"""

import os

import tensorflow as tf

FILE = "tf_serving_warmup_requests"


def write_warmup_requests(folder, spec):
    """Writes one request for each signature of an exported classifier.

    Args:
      folder: the version's assets.extra.
      spec: `DatasetSpec`; the requests hold one black image of its size.
    """
    image = tf.zeros([spec.image_size, spec.image_size, 3], tf.uint8)
    requests = {
        "serving_default": {"images": image[tf.newaxis]},
        "serving_float": {"images": tf.zeros([1, *image.shape])},
        "serving_bytes": {"encoded": [tf.io.encode_jpeg(image).numpy()]},
    }
    with tf.io.TFRecordWriter(os.path.join(folder, FILE)) as file:
        for signature, inputs in requests.items():
            file.write(prediction_log(signature, inputs))


def prediction_log(signature, inputs):
    """The bytes of a PredictionLog with a request to one signature.

    Field numbers are those of prediction_log.proto, predict.proto and
    model.proto in github.com/tensorflow/serving, tensorflow_serving/apis.

    Args:
      signature: its name.
      inputs: a dict from the names of inputs to tensors.
    """
    model_spec = _field(3, signature.encode())  # ModelSpec.signature_name
    request = _field(1, model_spec)  # PredictRequest.model_spec
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        # PredictRequest.inputs, a map: an entry has a key 1 and a value 2.
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    predict_log = _field(1, request)  # PredictLog.request
    return _field(6, predict_log)  # PredictionLog.predict_log


def _field(number, content):
    """A field of bytes, a string or a message: key, length, content."""
    length_delimited = 2
    key = number << 3 | length_delimited
    return _varint(key) + _varint(len(content)) + content


def _varint(number):
    """An integer in groups of seven bits, the lowest first."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)
