"""GetOnlineFeatures in plain Python: the oracle of core_ext.request_core."""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from core_ext.twin import rules
from core_ext.twin.on_demand import ON_DEMAND, Cell, Columns, OnDemand, compute, result_slot
from core_ext.twin.request_data import BadColumnError, bound_columns, column_values, slot_value
from core_ext.twin.requests import KeyColumn, Refusal, Request, parse

_FIXED_WIDTHS = {1: 1, 2: 4, 3: 8, 4: 4, 5: 8, 8: 8, 9: 4}  # by element type; STRING and BYTES have none
_VARIABLE_LIST = 2
_I64, _STRING = 3, 6
_BITMAP, _HEAP_START = 64, 52
_TOMBSTONE = 1
_KEY_BYTES_MAX = 1024
_RESPONSE_BYTES_MAX = 64 << 20

Row: TypeAlias = bytes | int | None
"""A row, None where none is stored, or the cause why it cannot be read."""


@dataclass(frozen=True)
class Computed:
    """How a view is answered that is not answered as it is stored.

    `stored` are the columns of its rows, and `image` makes a row of all columns for a read time. `columns` have values
    of their own where no row is stored; with none of them there is no image either.
    """

    stored: Sequence[tuple[int, int, int]]
    image: Callable[[bytes | None, int], bytes]
    columns: frozenset[int]


@dataclass(frozen=True)
class Group:
    """One view version read through one lookup; columns as (element type, shape, list size)."""

    lookup: int
    view_id: int
    schema_id: int
    schema: Sequence[tuple[int, int, int]]
    ttl_us: int
    stale_us: int
    fallback: int
    computed: Computed | None = None


@dataclass(frozen=True)
class Output:
    """One column of the answer: column `index` of its group's schema; of the group ON_DEMAND, program `index`."""

    name: str
    group: int
    index: int
    default: bytes | None


@dataclass(frozen=True)
class Plan:
    """The same as core_ext.request_core.Plan."""

    handle: bytes
    revision: int
    join_keys: Sequence[tuple[str, int]]
    lookups: Sequence[tuple[int, Sequence[int]]]
    groups: Sequence[Group]
    outputs: Sequence[Output]
    inputs: Sequence[Output] = ()
    on_demand: OnDemand | None = None


@dataclass
class _Column:
    """One column being answered."""

    values: list[bytes] = field(default_factory=list)
    statuses: bytearray = field(default_factory=bytearray)
    event_times: list[int] = field(default_factory=list)
    is_filled: list[bool] = field(default_factory=list)


def serve(request: bytes, plan: Plan, rows: Mapping[bytes, Row], read_time_us: int) -> bytes:
    """Response bytes from rows by storage key. Raises Refusal, and KeyError for a row that is not given."""
    parsed = parse(request)
    keys = _bound(parsed, plan)
    data = _bound_data(parsed, plan)
    prefixes = [_prefixes(lookup, keys) for lookup in plan.lookups]
    stored = [_stored(group, prefixes[group.lookup], rows) for group in plan.groups]

    def answered(output: Output, include_expired: bool) -> _Column:
        group = plan.groups[output.group]
        named = [prefix is not None for prefix in prefixes[group.lookup]]
        given = list(zip(stored[output.group], named, strict=True))
        return _answered(parsed, group, output, given, read_time_us=read_time_us, include_expired=include_expired)

    results = _results(parsed, plan, data, [answered(output, False) for output in plan.inputs])
    messages = []
    for output in plan.outputs:
        if output.group == ON_DEMAND:
            column, kind = results[output.index]
        else:
            column = answered(output, parsed.include_expired)
            kind = plan.groups[output.group].schema[output.index]
        messages.append(_delimited(1, _encoded(parsed, kind, output, column)))
        if sum(map(len, messages)) > _RESPONSE_BYTES_MAX:
            raise Refusal("RESPONSE_TOO_LARGE", "")
    tail = [_number(2, parsed.row_count), _number(3, plan.revision), _number(4, read_time_us)]
    return b"".join(messages + tail)


def _bound(request: Request, plan: Plan) -> list[KeyColumn]:
    """The request's column of each join key, in the order of the plan."""
    bound = []
    for name, kind in plan.join_keys:
        found = [number for number, column in enumerate(request.columns) if column.join_key == name]
        if found and request.columns[found[0]].kind != kind:
            raise Refusal("WRONG_KEY_TYPE", f"entity_columns[{found[0]}]")
        if len(found) > 1:
            raise Refusal("DUPLICATE_JOIN_KEY", f"entity_columns[{found[1]}].join_key")
        if not found:
            raise Refusal("MISSING_JOIN_KEY", "entity_columns")
        bound.append(request.columns[found[0]])
    known = [name for name, _ in plan.join_keys]
    for number, column in enumerate(request.columns):
        if column.join_key not in known:
            raise Refusal("UNKNOWN_JOIN_KEY", f"entity_columns[{number}].join_key")
    return bound


def _bound_data(request: Request, plan: Plan) -> list[int]:
    fields = [] if plan.on_demand is None else plan.on_demand.request_fields
    try:
        return bound_columns(request.data_columns, fields)
    except BadColumnError as error:
        raise Refusal(error.reason, error.path) from error


def _results(
    request: Request, plan: Plan, data: Sequence[int], inputs: Sequence[_Column]
) -> list[tuple[_Column, tuple[int, int, int]]]:
    """Column and type of every on-demand program."""
    if plan.on_demand is None:
        return []
    features = [
        [_cell(column, row, plan.groups[output.group].schema[output.index][0]) for row in range(request.row_count)]
        for output, column in zip(plan.inputs, inputs, strict=True)
    ]
    requests = []
    for number, (_, scalar) in zip(data, plan.on_demand.request_fields, strict=True):
        try:
            values = column_values(request.data_columns[number], number, scalar, request.row_count)
        except BadColumnError as error:
            raise Refusal(error.reason, error.path) from error
        requests.append([Cell(value, rules.NULL if value is None else rules.PRESENT) for value in values])
    found = []
    try:
        results = compute(plan.on_demand, Columns(features, requests), request.row_count)
    except OverflowError as error:
        raise Refusal("RESPONSE_TOO_LARGE", "") from error
    for program, cells in zip(plan.on_demand.programs, results, strict=True):
        values = [result_slot(program, cell) for cell in cells]
        column = _Column(values, bytearray(cell.status for cell in cells), [cell.event_time_us for cell in cells])
        found.append((column, (program.program.result_type, 0, 0)))
    return found


def _cell(column: _Column, row: int, scalar: int) -> Cell:
    value = slot_value(scalar, column.values[row]) if column.is_filled[row] else None
    return Cell(value, column.statuses[row], column.event_times[row])


def _prefixes(lookup: tuple[int, Sequence[int]], keys: Sequence[KeyColumn]) -> list[bytes | None]:
    """Entity prefix of every row; None for a null key."""
    entity_id, numbers = lookup
    columns = [keys[number] for number in numbers]
    prefixes: list[bytes | None] = []
    for row in range(len(columns[0].values)):
        parts = [_part(column, row) for column in columns if row not in column.nulls]
        if len(parts) < len(columns):
            prefixes.append(None)
            continue
        if sum(map(len, parts)) > _KEY_BYTES_MAX:
            last = [column for column in columns if column.kind != _I64][-1]
            raise Refusal("ENTITY_KEY_TOO_LONG", last.path(row))
        prefixes.append(struct.pack(">I", entity_id) + b"".join(parts))
    return prefixes


def _stored(group: Group, prefixes: Sequence[bytes | None], rows: Mapping[bytes, Row]) -> list[Row]:
    view = struct.pack(">I", group.view_id)
    return [None if prefix is None else rows[prefix + view] for prefix in prefixes]


def _part(column: KeyColumn, row: int) -> bytes:
    value = column.values[row]
    if isinstance(value, int):
        return b"\x01" + struct.pack(">Q", value + (1 << 63))
    if not value:
        raise Refusal("EMPTY_ENTITY_KEY", column.path(row))
    if len(value) > _KEY_BYTES_MAX:
        raise Refusal("ENTITY_KEY_TOO_LONG", column.path(row))
    return bytes([2 if column.kind == _STRING else 3]) + struct.pack(">H", len(value)) + value


def _answered(
    request: Request,
    group: Group,
    output: Output,
    rows: Sequence[tuple[Row, bool]],
    *,
    read_time_us: int,
    include_expired: bool,
) -> _Column:
    """Rows come with whether their key names an entity."""
    column = _Column()
    slots, _ = _slots(group.schema)
    _, end = _slots(group.schema if group.computed is None else group.computed.stored)
    start, width = slots[output.index]
    variable = _is_variable(group.schema[output.index])
    for row, is_named in rows:
        usable, status = _settled(request, group, end, row, read_time_us)
        if group.computed is not None and is_named and status & rules.STATE_MASK != rules.UNAVAILABLE:
            has_value = output.index in group.computed.columns
            if usable is not None or group.computed.columns:
                usable = group.computed.image(usable, read_time_us)
            status = rules.PRESENT if has_value and status & rules.STATE_MASK == rules.MISSING else status
        value = None if usable is None else _value(usable, output.index, start, None if variable else width)
        is_null = usable is not None and value is None
        has_default = output.default is not None
        status, slot = rules.value_status(status, is_null, group.fallback, has_default, include_expired)
        empty = b"" if variable else bytes(width)
        column.values.append({rules.SLOT_VALUE: value, rules.SLOT_DEFAULT: output.default}.get(slot) or empty)
        column.statuses.append(status)
        column.is_filled.append(slot != rules.SLOT_EMPTY)
        column.event_times.append(0 if usable is None else _event_time_us(usable))
    return column


def _settled(request: Request, group: Group, end: int, row: Row, read_time_us: int) -> tuple[bytes | None, int]:
    """The row where its columns, which take `end` bytes, can be read, and the status of its values."""
    if isinstance(row, int):
        return None, rules.UNAVAILABLE | row
    status = rules.row_status(row, read_time_us, group.ttl_us, group.stale_us)
    if row is None or _u16(row, 2) & _TOMBSTONE:
        return None, status
    if _u32(row, 8) != group.schema_id or len(row) < end + 4:
        return None, rules.UNAVAILABLE | rules.CAUSE_QUARANTINED
    age_us = max(0, read_time_us - _event_time_us(row))
    if request.staleness_nanos is not None and 1000 * age_us > request.staleness_nanos:
        status |= rules.STALE
    return row, status


def _value(row: bytes, index: int, start: int, width: int | None) -> bytes | None:
    """What the slot at `start` holds: `width` bytes, or where those of a variable value lie."""
    if row[_BITMAP + index // 8] >> index % 8 & 1:
        return None
    if width is not None:
        return row[start : start + width]
    at = _u32(row, _HEAP_START) + _u32(row, start)
    return row[at : at + _u32(row, start + 4)]


def _slots(schema: Sequence[tuple[int, int, int]]) -> tuple[list[tuple[int, int]], int]:
    """Start and width of each column's fixed slot, and the end of them all."""
    end = _BITMAP + (len(schema) + 63) // 64 * 8
    slots = []
    for column in schema:
        element = 4 if _is_variable(column) else _FIXED_WIDTHS[column[0]]
        width = 8 if _is_variable(column) else element * max(column[2], 1)
        start = (end + element - 1) // element * element
        slots.append((start, width))
        end = start + width
    return slots, (end + 7) // 8 * 8


def _is_variable(column: tuple[int, int, int]) -> bool:
    return column[1] == _VARIABLE_LIST or column[0] not in _FIXED_WIDTHS


def _encoded(request: Request, kind: tuple[int, int, int], output: Output, column: _Column) -> bytes:
    """A FeatureColumn."""
    names = request.include_names or not request.handle
    out = _delimited(1, output.name.encode()) if names and output.name else b""
    values = b"".join(column.values)
    out += _delimited(2, values) if values else b""
    if _is_variable(kind):
        out += _delimited(3, b"".join(struct.pack("<I", end) for end in _ends(column.values)))
    out += _delimited(4, bytes(column.statuses))
    if request.include_event_times:
        out += _delimited(5, b"".join(struct.pack("<q", event_time) for event_time in column.event_times))
    value_type = b"".join(_number(number, part) for number, part in enumerate(kind, start=1))
    return out + (_delimited(6, value_type) if names else b"")


def _ends(values: Sequence[bytes]) -> Iterator[int]:
    end = 0
    yield end
    for value in values:
        end += len(value)
        yield end


def _delimited(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value) if value else b""


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _event_time_us(row: bytes) -> int:
    return int.from_bytes(row[16:24], "little", signed=True)


def _u16(row: bytes, at: int) -> int:
    return int.from_bytes(row[at : at + 2], "little")


def _u32(row: bytes, at: int) -> int:
    return int.from_bytes(row[at : at + 4], "little")
