import base64
import json

import numpy as np
import pytest

from meta_pseudo_labels.export.serving.models import Input
from meta_pseudo_labels.export.serving.protocol import (
    BadRequest,
    format_response,
    parse_request,
)

PIXELS = Input(np.dtype("uint8"), (None, None, None, 3))
SIGNATURES = {
    "serving_default": {"images": PIXELS},
    "serving_float": {"images": Input(np.dtype("float32"), PIXELS.shape)},
    "serving_bytes": {"encoded": Input(np.dtype(object), (None,))},
    "pair": {
        "a": Input(np.dtype("int64"), (None,)),
        "b": Input(np.dtype("float32"), (None, 2)),
    },
}
IMAGE = [[[1, 2, 3], [4, 5, 255]]]
B64 = {"b64": base64.b64encode(b"\xff\x00").decode()}


def parsed(request, *, max_batch=4):
    if not isinstance(request, bytes):
        request = json.dumps(request).encode()
    return parse_request(request, SIGNATURES, max_batch=max_batch)


@pytest.mark.parametrize(
    "request_",
    [
        {"instances": [IMAGE, IMAGE]},
        {"instances": [{"images": IMAGE}, {"images": IMAGE}]},
        {"inputs": [IMAGE, IMAGE]},
        {"inputs": {"images": [IMAGE, IMAGE]}},
    ],
)
@pytest.mark.parametrize("name", [None, "serving_default", "serving_float"])
def test_images_come_in_rows_and_columns(request_, name):
    request_ = request_ | ({"signature_name": name} if name else {})
    found, arrays, in_rows = parsed(request_)
    assert found == (name or "serving_default")
    assert in_rows == ("instances" in request_)
    (array,) = arrays.values()
    assert array.dtype == (np.float32 if name == "serving_float" else np.uint8)
    np.testing.assert_array_equal(array, [IMAGE, IMAGE])


@pytest.mark.parametrize(
    "request_",
    [
        {"instances": [B64, "text"]},
        {"instances": [{"encoded": B64}, {"encoded": "text"}]},
        {"inputs": [B64, "text"]},
        {"inputs": {"encoded": [B64, "text"]}},
    ],
)
def test_bytes_come_in_base64_and_text_as_it_is(request_):
    _, arrays, _ = parsed(request_ | {"signature_name": "serving_bytes"})
    assert arrays["encoded"].tolist() == [b"\xff\x00", b"text"]


def test_several_inputs():
    rows = [{"a": 1, "b": [0.5, 2]}, {"a": -7, "b": [1, 2]}]
    _, found, _ = parsed({"signature_name": "pair", "instances": rows})
    assert found["a"].tolist() == [1, -7]
    assert found["b"].tolist() == [[0.5, 2], [1, 2]]


def of_bytes(content):
    return {"signature_name": "serving_bytes", "instances": content}


BAD = {
    "not JSON": [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"instances": [NaN]}',
        '{"instances": [[[[1, 2, 3]]]]}'.encode("utf-16"),
        b"[" * 99_999,
    ],
    "not a JSON object": [[1], "text", 3, None],
    "There is no signature": [
        {"signature_name": "other", "instances": [IMAGE]},
        {"signature_name": ["serving_default"], "instances": [IMAGE]},
        {"signature_name": None, "instances": [IMAGE]},
        {"signature_name": [], "instances": [IMAGE]},
        {"signature_name": "x" * 10_000, "instances": [IMAGE]},
    ],
    'either "instances" or "inputs"': [
        {},
        {"inputs": [IMAGE], "instances": [IMAGE]},
    ],
    "'extra' is unknown": [{"instances": [IMAGE], "extra": 1}],
    "must be a list": [{"instances": IMAGE[0][0][0]}, {"instances": {"a": 1}}],
    "is empty": [
        {"instances": []},
        {"inputs": {"a": [], "b": [[1, 2]]}, "signature_name": "pair"},
    ],
    "the shape": [
        {"instances": [1, 2]},
        {"instances": [[[[1, 2]]]]},
        {"inputs": 3},
        {"inputs": []},
        {"signature_name": "serving_bytes", "inputs": "text"},
    ],
    "nested 5 deep": [{"instances": [[IMAGE]]}],
    # More than NumPy's flat iterator takes, and than its arrays have.
    "nested 40 deep": [b'{"inputs": ' + b"[" * 40 + b"]" * 40 + b"}"],
    "nested 900 deep": [
        b'{"instances": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}",
    ],
    "or none of them": [
        {"instances": [IMAGE, {"images": IMAGE}]},
        {"instances": [{"images": IMAGE}, IMAGE]},
        of_bytes([B64, {"encoded": B64}]),
    ],
    "half a character": [of_bytes(["\ud800"])],
    "equally long": [
        {"instances": [IMAGE, [[[1, 2, 3]]]]},
        {"instances": [B64]},
    ],
    "too large": [
        {"signature_name": "serving_float", "instances": [[[[10**400, 0, 0]]]]}
    ],
    "other values": [
        {"instances": [[[[0.5, 1, 2]]]]},
        {"instances": [[[["1", "2", "3"]]]]},
        {"instances": [[[[True, True, False]]]]},
        {"instances": [[[[None, 1, 2]]]]},
        {"instances": [[[["x" * 10**6]]]] + [[[["y"]]]] * 10**4},
        {"instances": ["text"]},
    ],
    "from 0 to 255": [
        {"instances": [[[[1, 2, 256]]]]},
        {"instances": [[[[-1, 2, 3]]]]},
        {"instances": [[[[1, 2, 10**30]]]]},
    ],
    "input 'other' is unknown": [{"instances": [{"images": 1, "other": 2}]}],
    "input 'images' is missing": [{"instances": [{}]}, {"inputs": {}}],
    "not base64": [
        of_bytes([{"b64": "!"}]),
        of_bytes([{"b64": 3}]),
        of_bytes([{"b64": "é"}]),
    ],
    "a file in base64": [of_bytes([3]), of_bytes([["text"]]), of_bytes([None])],
    "at most 4": [{"instances": [IMAGE] * 5}],
    "rows": [
        {"signature_name": "pair", "inputs": {"a": [1], "b": [[1, 2]] * 2}}
    ],
    "Name the inputs": [{"signature_name": "pair", "instances": [3]}],
}


@pytest.mark.parametrize(
    ("message", "request_"),
    [(message, one) for message, many in BAD.items() for one in many],
)
def test_what_is_wrong_is_said_in_a_short_line(message, request_):
    message = "is not JSON:" if message == "not JSON" else message
    with pytest.raises(BadRequest) as caught:
        parsed(request_)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


def test_answers():
    outputs = {
        "classes": np.array([1, 0]),
        "labels": np.array([b"caf\xc3\xa9", b"\xff"], object),
        "raw_bytes": np.array([b"\xff\x00", b""], object),
        "probabilities": np.array([[0.25, 0.75], [1, 0]], np.float32),
    }
    rows = json.loads(format_response(outputs, in_rows=True))["predictions"]
    assert rows[0] == {
        "classes": 1,
        "labels": "café",
        "raw_bytes": B64,
        "probabilities": [0.25, 0.75],
    }
    assert rows[1]["labels"] == "\ufffd"
    columns = json.loads(format_response(outputs, in_rows=False))["outputs"]
    assert columns["classes"] == [1, 0]
    assert columns["probabilities"][1] == [1, 0]


def test_a_single_output_has_no_name():
    outputs = {"only": np.array([1, 2])}
    for in_rows, name in ((True, "predictions"), (False, "outputs")):
        answer = json.loads(format_response(outputs, in_rows=in_rows))
        assert answer == {name: [1, 2]}
