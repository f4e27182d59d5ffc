"""The rows of predictions: their columns, and a block of them."""

import collections

import numpy as np
import pyarrow as pa


def row_schema(class_names, class_id=None):
    """The columns of a row: the image, the prediction, what went wrong.

    Args:
      class_names: of all classes; a name may occur more than once.
      class_id: the only class that has a column; None for all.
    """
    counts = collections.Counter(class_names)
    columns = [
        f"probability_{name}" + (f"_{i}" if counts[name] > 1 else "")
        for i, name in enumerate(class_names)
    ]
    if class_id is not None:
        columns = [columns[class_id]]
    return pa.schema(
        [
            ("image", pa.string()),
            ("class", pa.string()),
            ("class_index", pa.int32()),
            ("probability", pa.float32()),
            ("error", pa.string()),
            *((column, pa.float32()) for column in columns),
        ]
    )


def row_table(schema, *, class_names, names, reasons, probabilities, class_id):
    """The rows of some images.

    Args:
      schema: see `row_schema`.
      class_names, class_id: see `row_schema`.
      names: of the n images.
      reasons: why there is no prediction, by the image's place in `names`.
      probabilities: [n, classes] float32.

    Returns:
      pyarrow.Table of n rows.
    """
    unknown = np.zeros([len(names)], bool)
    unknown[list(reasons)] = True
    best = probabilities.argmax(axis=-1)
    columns = probabilities.T
    if class_id is not None:
        columns = columns[class_id : class_id + 1]
    predicted = [class_names[label] for label in best]
    values = [
        pa.array(names, pa.string()),
        pa.array(predicted, mask=unknown, type=pa.string()),
        pa.array(best.astype(np.int32), mask=unknown),
        pa.array(probabilities.max(axis=-1), mask=unknown),
        pa.array([reasons.get(i) for i in range(len(names))], pa.string()),
        *(pa.array(np.ascontiguousarray(c), mask=unknown) for c in columns),
    ]
    return pa.Table.from_arrays(values, schema=schema)
