"""TensorFlow Serving's REST predict protocol: JSON to arrays and back.

https://www.tensorflow.org/tfx/serving/api_rest, the parts on Predict. A request
is {"instances": [...]}, a row for each image, or {"inputs": ...}, a column for
each input; "signature_name" may be added. Bytes are {"b64": "..."}.
"""

import base64
import binascii
import json

import numpy as np

from meta_pseudo_labels.export.serving.pictures import is_cut_off, pixels, work
from meta_pseudo_labels.export.serving.reading import BadRequest, read_json

MOST_NUMBERS = 6_000_000  # 100 bytes each, until they are an array.
_AT_ONCE = 50_000  # Entries of a list that NumPy may convert at once.


def parse_request(body, signatures, *, max_batch, max_numbers=MOST_NUMBERS):
    """Reads the body of a predict request.

    Args:
      body: bytes.
      signatures: a dict from names to dicts of their inputs, which lead from
        names to objects with a `dtype`, a NumPy type, and a `shape`, a tuple
        of sizes, None for any, the batch first.
      max_batch: the largest number of images.
      max_numbers: the largest number of values in lists.

    Returns:
      The signature's name, a dict of arrays, and whether it came in rows.

    Raises:
      BadRequest: for anything that does not fit the signature.
    """
    request = read_json(body, most_rows=max_batch, most_numbers=max_numbers)
    if not isinstance(request, dict):
        raise BadRequest('The body is not a JSON object {"instances": [...]}.')
    name = request.pop("signature_name", "")
    name = "serving_default" if name == "" else name
    if not isinstance(name, str) or name not in signatures:
        raise BadRequest(
            f"There is no signature {_short(name)}; the model has "
            f"{', '.join(sorted(signatures))}."
        )
    if ("instances" in request) == ("inputs" in request):
        raise BadRequest('Give either "instances" or "inputs".')
    in_rows = "instances" in request
    content = request.pop("instances" if in_rows else "inputs")
    if request:
        raise BadRequest(
            f"{_short(min(request))} is unknown; there are signature_name, "
            "instances and inputs."
        )
    wanted = signatures[name]
    columns = (_from_rows if in_rows else _from_columns)(content, wanted)
    arrays = {
        key: _array(key, columns[key], given) for key, given in wanted.items()
    }
    _check_batch(arrays, max_batch)
    return name, arrays, in_rows


def check_pictures(arrays, *, max_pixels):
    """Refuses files of pictures that are too much work, by their headers.

    Args:
      arrays: see `parse_request`.
      max_pixels: for all files of a request together; see `pictures.work`.

    Raises:
      BadRequest: for more pixels, or a file that lacks most of its picture.
    """
    total = 0
    for name, array in arrays.items():
        files = array.flat if array.dtype == np.object_ else ()
        for number, file in enumerate(files):
            total += work(file)
            if total > max_pixels:
                raise BadRequest(
                    f"The pictures of {name} have more than {max_pixels} "
                    "pixels together, or as much work in their scans; send "
                    "fewer per request."
                )
            if is_cut_off(file):
                raise BadRequest(
                    f"Picture {number} of {name} is cut off: {len(file)} bytes "
                    f"for {pixels(file)} pixels."
                )


def format_response(outputs, *, in_rows):
    """The answer to a predict request, bytes of JSON.

    Args:
      outputs: a dict of arrays with a row for each image.
      in_rows: whether the request came in rows.
    """
    columns = {name: _jsonable(name, value) for name, value in outputs.items()}
    if in_rows:
        rows = zip(*columns.values(), strict=True)
        only = len(columns) == 1
        predictions = [
            row[0] if only else dict(zip(columns, row, strict=True))
            for row in rows
        ]
        return dump({"predictions": predictions})
    if len(columns) == 1:
        (columns,) = columns.values()
    return dump({"outputs": columns})


def dump(content):
    """JSON as bytes."""
    return json.dumps(content).encode()


def _from_rows(rows, wanted):
    """A list of values for each input, from a row for each image."""
    if not isinstance(rows, list):
        raise BadRequest('"instances" must be a list, an entry for each image.')
    if not rows:
        raise BadRequest('"instances" is empty; give at least one image.')
    columns = {name: [] for name in wanted}
    is_named = _is_named(rows[0])
    for row in rows:
        if _is_named(row) != is_named:
            raise BadRequest(
                '"instances" must all be objects with the names of inputs, or '
                "none of them."
            )
        if not is_named:
            row = {_only(wanted): row}
        _check_names(row, wanted)
        for name, column in columns.items():
            column.append(row[name])
    return columns


def _from_columns(content, wanted):
    if not _is_named(content):
        content = {_only(wanted): content}
    _check_names(content, wanted)
    return content


def _is_named(value):
    """Whether it has values by inputs' names; {"b64": ...} is a value."""
    return isinstance(value, dict) and set(value) != {"b64"}


def _only(wanted):
    """The name of the only input, which may be left out."""
    if len(wanted) > 1:
        raise BadRequest(f"Name the inputs: {', '.join(sorted(wanted))}.")
    return next(iter(wanted))


def _check_names(given, wanted):
    for name in sorted(set(given) ^ set(wanted)):
        what = "is missing" if name in wanted else "is unknown"
        raise BadRequest(
            f"The input {_short(name)} {what}; the signature takes "
            f"{', '.join(sorted(wanted))}."
        )


def _array(name, value, given):
    """The value of an input as an array of its type and rank."""
    if given.dtype == np.object_:
        array = _strings(name, value)
    else:
        _check_depth(name, value, given.shape)
        array = _numbers(name, value, given.dtype, len(given.shape))
    fits = len(array.shape) == len(given.shape) and all(
        want in (None, got)
        for want, got in zip(given.shape, array.shape, strict=True)
    )
    if not fits:
        raise BadRequest(
            f"{name} has the shape {_shape(array.shape)}; the signature takes "
            f"{_shape(given.shape)}."
        )
    if array.size == 0:
        raise BadRequest(f"{name} is empty, of shape {_shape(array.shape)}.")
    return array


def _check_depth(name, value, shape):
    """Refuses lists in lists that NumPy has no dimensions for."""
    depth = 0
    while isinstance(value, list):
        value, depth = value[0] if value else None, depth + 1
    if depth > len(shape):
        raise BadRequest(
            f"{name} has lists nested {depth} deep; the signature takes the "
            f"shape {_shape(shape)}."
        )


def _numbers(name, value, dtype, rank):
    """Lists of numbers as an array, in parts so that no thread must wait."""
    if isinstance(value, list) and value and rank > 2:
        parts = [_numbers(name, part, dtype, rank - 1) for part in value]
        join = np.stack
    elif isinstance(value, list) and len(value) > _AT_ONCE:
        starts = range(0, len(value), _AT_ONCE)
        parts = [_few(name, value[i : i + _AT_ONCE], dtype) for i in starts]
        join = np.concatenate
    else:
        return _few(name, value, dtype)
    try:
        return join(parts)
    except ValueError as error:
        raise _uneven(name) from error


def _few(name, value, dtype):
    # First as objects: as text, one long string would make all of them as long.
    array = np.array(value, dtype=object)
    kinds = set(map(type, array.flat))
    if kinds & {list, dict}:
        raise _uneven(name)
    is_integer = np.issubdtype(dtype, np.integer)
    if not kinds <= ({int} if is_integer else {int, float}):
        raise BadRequest(
            f"{name} must hold numbers of type {dtype.name}; got other values."
        )
    if is_integer and array.size:
        low, high = array.min(), array.max()
        limits = np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            raise BadRequest(
                f"{name} must be of type {dtype.name}, from {limits.min} to "
                f"{limits.max}; got {_short(low)} to {_short(high)}."
            )
    try:
        with np.errstate(over="ignore"):  # Infinity is left to the model.
            return array.astype(dtype)
    except OverflowError as error:  # An integer beyond all floats.
        raise BadRequest(f"{name} holds a number that is too large.") from error


def _uneven(name):
    return BadRequest(
        f"{name} must be lists of lists of numbers, equally long at each level."
    )


def _strings(name, value):
    """Text or {"b64": ...}, in lists, as an array of bytes."""
    if isinstance(value, list):
        items = [_bytes(name, item) for item in value]
        array = np.empty([len(items)], np.object_)
        array[:] = items
        return array
    array = np.empty([], np.object_)
    array[()] = _bytes(name, value)
    return array


def _bytes(name, value):
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:  # Such as "\\ud800".
            raise BadRequest(f"{name} holds half a character.") from error
    if isinstance(value, dict) and set(value) == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise BadRequest(
                f"{name}: the content of b64 is not base64: {error}."
            ) from error
    raise BadRequest(f'{name} must hold {{"b64": "..."}}, a file in base64.')


def _check_batch(arrays, max_batch):
    counts = sorted({len(array) for array in arrays.values()})
    if len(counts) > 1:
        raise BadRequest(f"Inputs have {counts} rows; give each the same.")
    if counts[0] > max_batch:
        raise BadRequest(
            f"{counts[0]} images in one request; send at most {max_batch}."
        )


def _jsonable(name, value):
    """Lists of JSON values; strings as TensorFlow Serving writes them."""
    if value.dtype != np.object_:
        return value.tolist()
    if name.endswith("_bytes"):
        return [
            {"b64": base64.b64encode(item).decode()} for item in value.tolist()
        ]
    return [item.decode("utf-8", "replace") for item in value.tolist()]


def _shape(sizes):
    return str(["any" if size is None else size for size in sizes]).replace(
        "'", ""
    )


def _short(value, most=40):
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."
