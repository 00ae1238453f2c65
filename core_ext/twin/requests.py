"""GetOnlineFeaturesRequest parsed and judged in plain Python: first half of the oracle of core_ext.request_core."""

import struct
from dataclasses import dataclass, field

from core_ext.twin.request_data import COLUMN_COUNT_MAX, DataColumn, data_column
from core_ext.wire import MalformedError, int32_of, typed_fields, unsigned_to_signed, varint

_VARINT, _FIXED64, _DELIMITED = 0, 1, 2
_I64, _STRING, _BYTES = 3, 6, 7
_VALUE_NAMES = {_I64: "int64_values", _STRING: "string_values", _BYTES: "bytes_values"}
_ROW_COUNT_MAX = 10_000
_FEATURE_COUNT_MAX = 2000
_COLUMN_COUNT_MAX = 64
_OFFSET_COUNT_MAX = 1024
_HANDLE_BYTES = 32
_STALENESS_SECONDS_MAX = 315_576_000_000


class Refusal(Exception):
    """The request is wrong."""

    def __init__(self, reason: str, field_path: str) -> None:
        super().__init__(reason, field_path)
        self.reason = reason
        self.field = field_path


@dataclass
class KeyColumn:
    """One join key column."""

    number: int
    join_key: str = ""
    kind: int = 0
    values: list[int | bytes] = field(default_factory=list)
    nulls: list[int] = field(default_factory=list)

    def path(self, row: int) -> str:
        """Field path of one key."""
        return f"entity_columns[{self.number}].{_VALUE_NAMES[self.kind]}[{row}]"


@dataclass
class Request:
    """A request; `staleness_nanos` is None where no limit is set."""

    service: str = ""
    handle: bytes = b""
    features: list[str] = field(default_factory=list)
    columns: list[KeyColumn] = field(default_factory=list)
    data_columns: list[DataColumn] = field(default_factory=list)
    offset_count: int = 0
    include_event_times: bool = False
    include_expired: bool = False
    include_names: bool = False
    partial_policy: int = 0
    staleness: tuple[int, int] | None = None

    @property
    def row_count(self) -> int:
        """Rows of every column."""
        return len(self.columns[0].values)

    @property
    def staleness_nanos(self) -> int | None:
        """The freshness limit of the caller."""
        return None if self.staleness is None else self.staleness[0] * 1_000_000_000 + self.staleness[1]


def parse(data: bytes) -> Request:
    """The request, field by field in the order sent. Raises Refusal for the first thing wrong."""
    request = Request()
    try:
        for number, kind, value in typed_fields(data):
            if kind == _DELIMITED and isinstance(value, bytes):
                _take(request, number, value)
    except (MalformedError, UnicodeDecodeError) as error:
        raise Refusal("MALFORMED_REQUEST", "") from error
    _judge(request)
    return request


def _take(request: Request, number: int, value: bytes) -> None:
    if number == 1:
        request.service = value.decode()
    elif number == 2:
        request.handle = value
    elif number == 3:
        request.features.append(value.decode())
    elif number == 4:
        if len(request.columns) == _COLUMN_COUNT_MAX:
            raise Refusal("TOO_MANY_ENTITY_COLUMNS", "entity_columns")
        request.columns.append(_key_column(len(request.columns), value))
    elif number == 5:
        if len(request.data_columns) == COLUMN_COUNT_MAX:
            raise Refusal("TOO_MANY_REQUEST_COLUMNS", "request_columns")
        request.data_columns.append(data_column(value))
    elif number == 6:
        _take_options(request, value)


def _key_column(number: int, data: bytes) -> KeyColumn:
    column = KeyColumn(number)
    values: dict[int, list[int | bytes]] = {_I64: [], _STRING: [], _BYTES: []}
    nulls: list[int] = []
    for field_number, kind, value in typed_fields(data, level=1):
        if field_number == 1 and isinstance(value, bytes):
            column.join_key = value.decode()
        elif field_number == 2 and kind == _FIXED64 and isinstance(value, int):
            values[_I64].append(unsigned_to_signed(value))
        elif field_number == 2 and isinstance(value, bytes):
            values[_I64] += _sfixed64s(value)
        elif field_number in (3, 4) and isinstance(value, bytes):
            values[_STRING if field_number == 3 else _BYTES].append(value)
        elif field_number == 5 and kind == _VARINT and isinstance(value, int):
            nulls.append(int32_of(value))
        elif field_number == 5 and isinstance(value, bytes):
            nulls += _int32s(value)
    _judge_values(column, values)
    _judge_nulls(column, nulls)
    return column


def _sfixed64s(packed: bytes) -> list[int]:
    if len(packed) % 8:
        raise MalformedError("packed fixed64 values end early")
    return list(struct.unpack(f"<{len(packed) // 8}q", packed))


def _int32s(packed: bytes) -> list[int]:
    at, values = 0, []
    while at < len(packed):
        value, at = varint(packed, at)
        values.append(int32_of(value))
    return values


def _judge_values(column: KeyColumn, values: dict[int, list[int | bytes]]) -> None:
    path = f"entity_columns[{column.number}]"
    kinds = [kind for kind, found in values.items() if found]
    if len(kinds) > 1:
        raise Refusal("TWO_KEY_TYPES", path)
    if not kinds:
        raise Refusal("NO_ROWS", path)
    column.kind, column.values = kinds[0], values[kinds[0]]
    if len(column.values) > _ROW_COUNT_MAX:
        raise Refusal("TOO_MANY_ROWS", path)
    for row, value in enumerate(column.values):
        if column.kind == _STRING and isinstance(value, bytes) and not _is_utf8(value):
            raise Refusal("ENTITY_KEY_NOT_UTF8", column.path(row))


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _judge_nulls(column: KeyColumn, nulls: list[int]) -> None:
    if nulls != sorted(set(nulls)) or any(not 0 <= row < len(column.values) for row in nulls):
        raise Refusal("BAD_NULL_ROWS", f"entity_columns[{column.number}].null_rows")
    column.nulls = nulls


def _take_options(request: Request, data: bytes) -> None:
    for number, kind, value in typed_fields(data, level=1):
        if kind == _VARINT and isinstance(value, int):
            _take_choice(request, number, value)
        elif number == 5 and isinstance(value, bytes):
            _take_staleness(request, value)
        elif number == 6 and isinstance(value, bytes):
            request.offset_count += 1
            if request.offset_count > _OFFSET_COUNT_MAX:
                raise Refusal("TOO_MANY_MIN_OFFSETS", "options.min_offsets")
            list(typed_fields(value, level=2))


def _take_choice(request: Request, number: int, value: int) -> None:
    if number == 1:
        request.include_event_times = value != 0
    elif number == 2:
        request.include_expired = value != 0
    elif number == 3:
        request.include_names = value != 0
    elif number == 4:
        request.partial_policy = int32_of(value)


def _take_staleness(request: Request, data: bytes) -> None:
    seconds, nanos = request.staleness or (0, 0)
    for number, kind, value in typed_fields(data, level=2):
        if kind == _VARINT and isinstance(value, int):
            seconds = unsigned_to_signed(value) if number == 1 else seconds
            nanos = int32_of(value) if number == 2 else nanos
    request.staleness = (seconds, nanos)


def _judge(request: Request) -> None:
    selections = [bool(request.service), bool(request.handle), bool(request.features)]
    if sum(selections) == 0:
        raise Refusal("NO_SELECTION", "feature_service")
    if sum(selections) > 1:
        raise Refusal("TWO_SELECTIONS", "feature_service")
    if request.handle and len(request.handle) != _HANDLE_BYTES:
        raise Refusal("BAD_HANDLE", "handle")
    if len(request.features) > _FEATURE_COUNT_MAX:
        raise Refusal("TOO_MANY_FEATURES", "features")
    if not request.columns:
        raise Refusal("NO_ROWS", "entity_columns[0]")
    for column in request.columns:
        if len(column.values) != request.row_count:
            raise Refusal("ROW_COUNT_MISMATCH", f"entity_columns[{column.number}]")
    if request.partial_policy not in (0, 1, 2):
        raise Refusal("BAD_PARTIAL_POLICY", "options.partial_policy")
    if request.staleness is not None and not _is_duration(*request.staleness):
        raise Refusal("BAD_STALENESS", "options.max_staleness_duration")


def _is_duration(seconds: int, nanos: int) -> bool:
    return 0 <= seconds <= _STALENESS_SECONDS_MAX and 0 <= nanos < 1_000_000_000
