"""Join key columns of a request from numpy, Arrow, pandas or plain lists."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa

from headrace.client.wire import delimited
from headrace.errors import InvalidArgument
from headrace.types import Scalar
from protos.feature.v1 import online_feature_service_pb2 as pb

EntityValues = Any  # numpy, pyarrow or pandas arrays, or a list with None for null; pandas is optional, so no union
NAMES_MAX: Final = 1_000  # join keys whose heads are kept
_ACCEPTED: Final = "numpy int64, pyarrow, pandas or a list of int, str or bytes"

_INT64_VALUES_FIELD: Final = pb.EntityColumn.DESCRIPTOR.fields_by_name["int64_values"].number
_ENTITY_COLUMNS_FIELD: Final = pb.GetOnlineFeaturesRequest.DESCRIPTOR.fields_by_name["entity_columns"].number
_SCALARS: Final[Mapping[type, Scalar]] = {int: Scalar.I64, str: Scalar.STRING, bytes: Scalar.BYTES}
_ARROW: Final = {Scalar.I64: pa.int64(), Scalar.STRING: pa.string(), Scalar.BYTES: pa.binary()}


def encode_entities(
    entities: Mapping[str, EntityValues], key_types: Mapping[str, Scalar], field_number: int = _ENTITY_COLUMNS_FIELD
) -> bytes:
    """Wire bytes of all join key columns, as fields of a request. key_types may know fewer keys than are given."""
    if not entities:
        raise InvalidArgument(
            "no entity column is given; pass entities={'join_key': values}",
            reason="ENTITY_COLUMN_MISSING",
            field="entities",
        )
    columns = [_encode_column(name, values, key_types.get(name)) for name, values in entities.items()]
    return b"".join(delimited(field_number, column) for column in columns)


def _encode_column(name: str, values: EntityValues, key_type: Scalar | None) -> bytes:
    """Integers go as one block of bytes; only text and byte keys become Python objects, as protobuf wants them."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return _packed_integers(name, values, None)
    array = _arrow_keys(name, values, key_type)
    null_rows = np.flatnonzero(np.asarray(array.is_null())) if array.null_count else None
    if pa.types.is_integer(array.type):
        filled = array.fill_null(0) if array.null_count else array
        return _packed_integers(name, filled.to_numpy(zero_copy_only=False), null_rows)
    column = pb.EntityColumn(join_key=name, null_rows=null_rows)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        column.string_values.extend(array.fill_null("").to_pylist())
    elif pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        column.bytes_values.extend(array.fill_null(b"").to_pylist())
    else:
        raise _wrong_type(name, str(array.type))
    return column.SerializeToString()


def _packed_integers(name: str, values: "np.ndarray[Any, Any]", null_rows: "np.ndarray[Any, Any] | None") -> bytes:
    if values.ndim != 1:
        raise InvalidArgument(
            f"entity column {name} has {values.ndim} dimensions; pass one",
            reason="ENTITY_COLUMN_SHAPE",
            field=f"entities[{name}]",
            metadata={"join_key": name},
        )
    if not np.can_cast(values.dtype, np.int64):
        raise _wrong_type(name, str(values.dtype))
    block = np.ascontiguousarray(values, dtype="<i8").tobytes()
    tail = b"" if null_rows is None else pb.EntityColumn(null_rows=null_rows).SerializeToString()
    return _head(name) + delimited(_INT64_VALUES_FIELD, block) + tail


@lru_cache(NAMES_MAX)
def _head(name: str) -> bytes:
    return pb.EntityColumn(join_key=name).SerializeToString()


def _arrow_keys(name: str, values: EntityValues, key_type: Scalar | None) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        array = values
    elif isinstance(values, np.ndarray):
        if values.dtype.kind not in "OUS":
            raise _wrong_type(name, str(values.dtype))
        return _from_list(name, values.tolist(), key_type)
    elif isinstance(values, Sequence) and not isinstance(values, str | bytes):
        return _from_list(name, values, key_type)
    elif hasattr(values, "__array__"):  # a pandas Series or Index, known without importing pandas
        array = pa.array(values, from_pandas=True)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    else:
        raise _wrong_type(name, type(values).__name__)
    return array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array


def _from_list(name: str, values: Sequence[object], key_type: Scalar | None) -> pa.Array:
    found = {_SCALARS.get(kind) for kind in set(map(type, values)) if kind is not type(None)}
    if not found and key_type is not None:
        found = {key_type}
    if len(found) != 1 or None in found:
        kinds = ", ".join(sorted({type(value).__name__ for value in values})) or "nothing"
        raise _wrong_type(name, f"a list of {kinds}")
    try:
        return pa.array(values, type=_ARROW[next(scalar for scalar in found if scalar is not None)])
    except (OverflowError, pa.ArrowInvalid) as error:
        raise InvalidArgument(
            f"entity column {name} holds an integer beyond 64 bits",
            reason="ENTITY_KEY_OUT_OF_RANGE",
            field=f"entities[{name}]",
            metadata={"join_key": name},
        ) from error


def _wrong_type(name: str, given: str) -> InvalidArgument:
    return InvalidArgument(
        f"entity column {name} is {given}; pass {_ACCEPTED} (for nothing but nulls, a typed pyarrow array)",
        reason="ENTITY_KEY_TYPE",
        field=f"entities[{name}]",
        metadata={"join_key": name, "given": given},
    )
