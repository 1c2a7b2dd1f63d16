"""Recorded columns as the Arrow tables that LeRobot stores."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from robolearn.errors import DataError

__all__ = ["arrow_table", "png"]


def arrow_table(columns: Mapping[str, np.ndarray], features: Mapping[str, Any]) -> pa.Table:
    """Return `columns` with the schema and metadata that `datasets` expects; images become PNG."""
    fields, arrays, declared = [], [], {}
    for key, values in columns.items():
        array, extension, declared[key] = _arrow_column(values, features[key])
        fields.append(pa.field(key, array.type, metadata=extension))
        arrays.append(array)
    metadata = {"huggingface": json.dumps({"info": {"features": declared}})}
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata))


def _arrow_column(values: np.ndarray, feature: Mapping[str, Any]) -> tuple[pa.Array, dict[str, str] | None, dict]:
    dtype, shape = feature["dtype"], feature["shape"]
    if dtype == "image":
        encoded = [{"bytes": png(frame), "path": None} for frame in values]
        return pa.array(encoded, pa.struct({"bytes": pa.binary(), "path": pa.string()})), None, {"_type": "Image"}
    value_type = {"dtype": dtype, "_type": "Value"}
    array = (
        _numbers(values.astype(dtype, copy=False).ravel()) if dtype != "string" else pa.array(list(map(str, values)))
    )
    if shape == [1]:
        return array, None, value_type
    if len(shape) == 1:
        return (
            pa.FixedSizeListArray.from_arrays(array, shape[0]),
            None,
            {"feature": value_type, "length": shape[0], "_type": "List"},
        )
    for size in reversed(shape):
        array = pa.ListArray.from_arrays(_numbers(np.arange(0, len(array) + 1, size, dtype=np.int32)), array)
    name = f"Array{len(shape)}D"
    extension = {
        "ARROW:extension:metadata": json.dumps([shape, dtype]),
        "ARROW:extension:name": f"datasets.features.features.{name}ExtensionType",
    }
    return array, extension, {"shape": shape, "dtype": dtype, "_type": name}


def _numbers(values: np.ndarray) -> pa.Array:
    """Return numbers as an Arrow array over the same memory; `pa.array` would import pandas."""
    if values.dtype == bool:
        return _numbers(values.view(np.uint8)).cast(pa.bool_())
    kind = pa.type_for_alias(str(values.dtype))
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def png(frame: np.ndarray) -> bytes:
    """Return an RGB or grey picture as PNG."""
    import cv2

    picture = frame[..., ::-1] if frame.shape[-1] == 3 else frame
    good, content = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not good:
        raise DataError("A picture could not be stored as PNG.", found=frame.shape)
    return content.tobytes()
