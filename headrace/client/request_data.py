"""Request data columns of a read from numpy, Arrow, pandas or plain lists."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from headrace.client.wire import delimited
from headrace.errors import InvalidArgument
from headrace.types import Scalar, ValueType
from protos.common.v1 import value_pb2
from protos.feature.v1 import online_feature_service_pb2 as pb

RequestValues = Any  # numpy, pyarrow or pandas arrays, or a list with None for null; pandas is optional, so no union
RequestData = Any  # a mapping of names to RequestValues, a pyarrow table or batch, or a pandas data frame
_REQUEST_COLUMNS_FIELD: Final = pb.GetOnlineFeaturesRequest.DESCRIPTOR.fields_by_name["request_columns"].number
_VALUES_FIELD: Final = pb.RequestColumn.DESCRIPTOR.fields_by_name["values"].number
_OFFSETS_FIELD: Final = pb.RequestColumn.DESCRIPTOR.fields_by_name["offsets"].number
_ACCEPTED: Final = "numpy, pyarrow, pandas or a list of values of one type, with None for null"
_SCALARS: Final = (
    (pa.types.is_boolean, Scalar.BOOL),
    (pa.types.is_int32, Scalar.I32),
    (pa.types.is_int64, Scalar.I64),
    (pa.types.is_float32, Scalar.F32),
    (pa.types.is_float64, Scalar.F64),
    (pa.types.is_string, Scalar.STRING),
    (pa.types.is_binary, Scalar.BYTES),
    (pa.types.is_date32, Scalar.DATE),
)
_NARROWER: Final[Mapping[Scalar, tuple[Scalar, ...]]] = {
    Scalar.I64: (Scalar.I32,),
    Scalar.F64: (Scalar.F32, Scalar.I32),
}  # what a type holds without a loss


def encode_request_data(data: RequestData, known: Mapping[str, ValueType]) -> bytes:
    """Wire bytes of all columns, as fields of a read. `known` are the types of the fields, where they are known."""
    columns = [_encode(name, values, known.get(name)) for name, values in _columns(data).items()]
    return b"".join(delimited(_REQUEST_COLUMNS_FIELD, column) for column in columns)


def _columns(data: RequestData) -> Mapping[str, RequestValues]:
    if data is None:
        return {}
    if isinstance(data, Mapping):
        return data
    if isinstance(data, pa.Table | pa.RecordBatch):
        return {name: data.column(name) for name in data.schema.names}
    if hasattr(data, "columns") and hasattr(data, "iloc"):  # a pandas data frame, known without importing pandas
        return {str(name): data[name] for name in data.columns}
    raise InvalidArgument(
        f"request_data is {type(data).__name__}; pass a dict of columns, a pyarrow table or a pandas data frame",
        reason="REQUEST_DATA_TYPE",
        field="request_data",
    )


def _encode(name: str, values: RequestValues, known: ValueType | None) -> bytes:
    array = _array(name, values, known)
    scalar = _scalar_of(name, array)
    kind = value_pb2.ValueType(scalar_type=value_pb2.ScalarType.ValueType(scalar))
    null_rows = np.flatnonzero(np.asarray(array.is_null())) if array.null_count else None
    head = pb.RequestColumn(name=name, value_type=kind, null_rows=null_rows).SerializeToString()
    if scalar in (Scalar.STRING, Scalar.BYTES):
        block, offsets = _parts(array)
        return head + delimited(_VALUES_FIELD, block) + delimited(_OFFSETS_FIELD, offsets)
    return head + delimited(_VALUES_FIELD, _fixed(array, scalar))


def _fixed(array: pa.Array, scalar: Scalar) -> bytes:
    if scalar is Scalar.BOOL:
        array = array.cast(pa.uint8())
    elif scalar in (Scalar.DATE, Scalar.TIMESTAMP_US):
        array = array.view(pa.int32() if scalar is Scalar.DATE else pa.int64())
    filled = array.fill_null(0) if array.null_count else array
    numbers = filled.to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(numbers, dtype=numbers.dtype.newbyteorder("<")).tobytes()


def _parts(array: pa.Array) -> tuple[bytes, bytes]:
    """Bytes of all values one after another, and where each ends."""
    if not len(array):
        return b"", bytes(4)
    _, offsets, block = array.buffers()
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    first, last = int(ends[0]), int(ends[-1])
    return (b"" if block is None else block[first:last].to_pybytes()), (ends - first).astype("<u4").tobytes()


def _array(name: str, values: RequestValues, known: ValueType | None) -> pa.Array:
    wanted = None if known is None else known.arrow
    try:
        if isinstance(values, np.ndarray):
            array = _of_numpy(name, values, wanted)
        elif isinstance(values, pa.Array | pa.ChunkedArray):
            array = values
        elif isinstance(values, Sequence) and not isinstance(values, str | bytes):
            array = pa.array(values, type=wanted)
        elif hasattr(values, "__array__"):  # a pandas Series or Index
            array = pa.array(values, from_pandas=True)
        else:
            raise _wrong_type(name, type(values).__name__)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        return _as_sent(array, known)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise _wrong_type(name, f"not of one type that fits ({error})") from error


def _of_numpy(name: str, values: "np.ndarray[Any, Any]", wanted: pa.DataType | None) -> pa.Array:
    if values.ndim != 1:
        raise _wrong_type(name, f"an array of {values.ndim} dimensions")
    if values.dtype.kind in "OUS":
        return pa.array(values.tolist(), type=wanted)
    return pa.array(values.astype(values.dtype.newbyteorder("="), copy=False))


def _as_sent(array: pa.Array, known: ValueType | None) -> pa.Array:
    """The array in one of the types that fields have; a narrower one is widened where the field is known."""
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_large_string(array.type):
        array = array.cast(pa.string())
    if pa.types.is_large_binary(array.type):
        array = array.cast(pa.binary())
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        array = array.cast(pa.timestamp("us", "UTC"))
    if known is None or array.type == known.arrow:
        return array
    is_narrower = _found_scalar(array.type) in _NARROWER.get(known.scalar, ())
    return array.cast(known.arrow) if is_narrower or pa.types.is_null(array.type) else array


def _found_scalar(kind: pa.DataType) -> Scalar | None:
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return Scalar.TIMESTAMP_US
    return next((scalar for is_it, scalar in _SCALARS if is_it(kind)), None)


def _scalar_of(name: str, array: pa.Array) -> Scalar:
    scalar = _found_scalar(array.type)
    if scalar is not None:
        return scalar
    is_naive = pa.types.is_timestamp(array.type)
    raise _wrong_type(name, "of times without a zone" if is_naive else f"of {array.type}")


def _wrong_type(name: str, given: str) -> InvalidArgument:
    return InvalidArgument(
        f"request column {name} is {given}; pass {_ACCEPTED}",
        reason="REQUEST_DATA_TYPE",
        field=f"request_data[{name}]",
        metadata={"name": name},
    )
