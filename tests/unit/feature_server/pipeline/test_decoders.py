"""Events in Arrow, Avro and protobuf: the columns of the source, and why a message is none of its events."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from feature_server.domain.layouts import view_layouts
from feature_server.pipeline.decoders import decoder_of
from feature_server.pipeline.decoding import EVENT_BYTES_MAX, Decoded, Decoder
from feature_server.pipeline.sources import Feed, Format, Stream, feeds_of
from headrace.errors import InvalidArgument
from headrace.types import parse_type
from tests.unit.feature_server.parts import ipc, state_of
from tests.unit.feature_server.pipeline.streams import SOURCE, UTC, definitions

TYPES = {
    "user_id": "i64",
    "at": "timestamp_us",
    "cents": "i32",
    "price": "f64",
    "share": "f32",
    "shop": "string",
    "raw": "bytes",
    "paid": "bool",
    "day": "date",
    "codes": "list<i64>",
    "pair": "list<f32,2>",
}
COLUMNS = {name: parse_type(kind) for name, kind in TYPES.items()}
EVENT: dict[str, Any] = {
    "user_id": 2**53 + 1,
    "at": 1_760_000_000_000_123,
    "cents": -5,
    "price": 0.1,
    "share": 0.5,
    "shop": "größe",
    "raw": b"\0\xff",
    "paid": True,
    "day": -1,
    "codes": [1, 2, 3],
    "pair": [0.25, -0.5],
}
AVRO: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "user_id", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "cents", "type": ["null", "int"]},
        {"name": "price", "type": "double"},
        {"name": "share", "type": "float"},
        {"name": "shop", "type": ["null", "string"]},
        {"name": "raw", "type": "bytes"},
        {"name": "paid", "type": "boolean"},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "codes", "type": {"type": "array", "items": "long"}},
        {"name": "pair", "type": {"type": "array", "items": "float"}},
        {"name": "unread", "type": {"type": "map", "values": "string"}},
    ],
}
PLAIN = json.loads(json.dumps(AVRO).replace('"logicalType"', '"ignored"'))


def feed(form: Format, schema: str = "", message: str = "") -> Feed:
    stream = Stream(SOURCE, 1, "orders", form, schema, message, "at", COLUMNS)
    return Feed(stream, COLUMNS, [])


def rows(decoded: Decoded) -> list[dict[str, Any]]:
    plain = {
        name: one.cast(pa.int64()) if name == "at" else one.cast(pa.int32()) if name == "day" else one
        for name, one in decoded.columns.items()
    }
    for name, column in decoded.columns.items():
        assert column.type == COLUMNS[name].arrow
        column.validate(full=True)
    found: list[dict[str, Any]] = pa.RecordBatch.from_pydict(plain).to_pylist()
    return found


def avro(folder: Path, schema: dict[str, Any] = AVRO) -> Decoder:
    (folder / "orders.avsc").write_text(json.dumps(schema))
    return decoder_of(feed(Format.AVRO, "orders.avsc"), folder)


def avro_bytes(**changes: Any) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(PLAIN), {**EVENT, "unread": {"a": "b"}, **changes})
    return body.getvalue()


def test_avro_records_are_events_bare_and_as_single_objects(tmp_path: Path) -> None:
    mark = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(AVRO), "CRC-64-AVRO"))
    decoded = avro(tmp_path).decode([avro_bytes(), mark + avro_bytes(shop=None, cents=None)])
    assert rows(decoded) == [EVENT, {**EVENT, "shop": None, "cents": None}]


@pytest.mark.parametrize("at", range(0, 40, 3))
def test_a_damaged_avro_record_is_refused_alone(tmp_path: Path, at: int) -> None:
    good = avro_bytes()
    decoded = avro(tmp_path).decode([good, good[:at], good, good + b"x"])
    assert [(one.message, one.reason) for one in decoded.rejected] == [(1, "MALFORMED_AVRO"), (3, "MALFORMED_AVRO")]
    assert decoded.messages.tolist() == [0, 2]
    assert rows(decoded) == [EVENT, EVENT]


def test_an_avro_list_of_another_length_is_refused(tmp_path: Path) -> None:
    decoded = avro(tmp_path).decode([avro_bytes(pair=[1.0])])
    assert [one.reason for one in decoded.rejected] == ["LIST_SIZE"]
    assert rows(decoded) == []


def test_an_avro_int_of_more_bits_than_it_has_is_refused(tmp_path: Path) -> None:
    wide = json.loads(json.dumps(PLAIN).replace('["null", "int"]', '["null", "long"]'))
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(wide), {**EVENT, "unread": {}, "cents": 2**40})
    assert [one.reason for one in avro(tmp_path).decode([body.getvalue()]).rejected] == ["OUT_OF_RANGE"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "cents", "type": "long"}, "no i32"),
        ({"name": "at", "type": "long"}, "no timestamp_us"),
        ({"name": "codes", "type": "long"}, "no list<i64>"),
        ({"name": "unread", "type": {"type": "array", "items": "null"}}, "a few bytes could hold billions"),
    ],
)
def test_an_avro_schema_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    fields = [change if one["name"] == change["name"] else one for one in AVRO["fields"]]
    with pytest.raises(InvalidArgument, match=why):
        avro(tmp_path, {**AVRO, "fields": fields})


def test_a_schema_that_lacks_a_column_or_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no field 'pair'"):
        avro(tmp_path, {**AVRO, "fields": AVRO["fields"][:-2]})
    (tmp_path / "orders.avsc").write_text("{")
    with pytest.raises(InvalidArgument, match="no Avro schema"):
        decoder_of(feed(Format.AVRO, "orders.avsc"), tmp_path)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        decoder_of(feed(Format.AVRO, "other.avsc"), tmp_path)
    with pytest.raises(InvalidArgument, match="--schemas"):
        decoder_of(feed(Format.AVRO, "orders.avsc"), None)


def descriptors() -> descriptor_pb2.FileDescriptorSet:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="orders.proto", package="shop", syntax="proto3")
    message = file.message_type.add(name="Order")
    types = {
        "user_id": kinds.TYPE_INT64,
        "at": kinds.TYPE_INT64,
        "cents": kinds.TYPE_SINT32,
        "price": kinds.TYPE_DOUBLE,
        "share": kinds.TYPE_FLOAT,
        "shop": kinds.TYPE_STRING,
        "raw": kinds.TYPE_BYTES,
        "paid": kinds.TYPE_BOOL,
        "codes": kinds.TYPE_INT64,
        "pair": kinds.TYPE_FLOAT,
    }
    for number, (name, kind) in enumerate(types.items(), start=1):
        repeated = name in {"codes", "pair"}
        field = message.field.add(name=name, number=number, type=kind)
        field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        if name == "shop":
            field.proto3_optional = True
            field.oneof_index = 0
            message.oneof_decl.add(name="_shop")
    return descriptor_pb2.FileDescriptorSet(file=[file])


def protobuf_feed() -> Feed:
    columns = {name: kind for name, kind in COLUMNS.items() if name != "day"}
    return Feed(Stream(SOURCE, 1, "orders", Format.PROTOBUF, "o.desc", "shop.Order", "at", columns), columns, [])


def test_protobuf_messages_are_events(tmp_path: Path) -> None:
    (tmp_path / "o.desc").write_bytes(descriptors().SerializeToString())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptors().file[0])
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))
    event = {name: value for name, value in EVENT.items() if name != "day"}
    good = made(**event).SerializeToString()
    unset = {name: value for name, value in event.items() if name not in {"shop", "cents"}}
    payloads = [
        good,
        b"\x0a\xff\xff",
        made(**unset).SerializeToString(),
        made(**{**event, "pair": []}).SerializeToString(),
    ]
    decoded = decoder_of(protobuf_feed(), tmp_path).decode(payloads)
    assert rows(decoded) == [event, {**event, "shop": None, "cents": 0}]
    assert [(one.message, one.reason) for one in decoded.rejected] == [(1, "MALFORMED_PROTOBUF"), (3, "LIST_SIZE")]


def test_a_descriptor_set_without_the_message_or_a_field_is_refused(tmp_path: Path) -> None:
    (tmp_path / "o.desc").write_bytes(b"\xff\xff")
    with pytest.raises(InvalidArgument, match="does not describe"):
        decoder_of(protobuf_feed(), tmp_path)
    (tmp_path / "o.desc").write_bytes(descriptors().SerializeToString())
    with pytest.raises(InvalidArgument, match="no field 'day'"):
        decoder_of(feed(Format.PROTOBUF, "o.desc", "shop.Order"), tmp_path)


def arrow_batch(**changes: pa.Array) -> pa.RecordBatch:
    columns = {name: pa.array([EVENT[name]] * 2, pa.int64()).cast(UTC) if name == "at" else None for name in TYPES}
    for name in TYPES:
        if name == "day":
            columns[name] = pa.array([EVENT[name]] * 2, pa.int32()).cast(pa.date32())
        elif columns[name] is None:
            columns[name] = pa.array([EVENT[name]] * 2, COLUMNS[name].arrow)
    return pa.RecordBatch.from_pydict({**columns, **changes})


def test_arrow_messages_hold_many_events_each(tmp_path: Path) -> None:
    decoder = decoder_of(feed(Format.ARROW), None)
    two, extra = arrow_batch(), arrow_batch(unread=pa.array([1, 2]))
    decoded = decoder.decode([ipc(two), b"no arrow", ipc(extra, extra), ipc(two.drop_columns(["cents"]))])
    assert rows(decoded) == [EVENT] * 6
    assert decoded.messages.tolist() == [0, 0, 2, 2, 2, 2]
    assert decoded.rows.tolist() == [0, 1, 0, 1, 2, 3]
    assert [(one.message, one.reason) for one in decoded.rejected] == [(1, "MALFORMED_ARROW"), (3, "UNKNOWN_COLUMN")]


def test_arrow_columns_of_another_type_or_damaged_texts_are_refused() -> None:
    decoder = decoder_of(feed(Format.ARROW), None)
    wrong = arrow_batch(cents=pa.array([1, 2], pa.int64()))
    naive = arrow_batch(at=pa.array([1, 2], pa.timestamp("us")))
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xff")]
    )
    decoded = decoder.decode([ipc(wrong), ipc(naive), ipc(arrow_batch(shop=broken))])
    assert [one.reason for one in decoded.rejected] == ["WRONG_TYPE", "WRONG_TYPE", "MALFORMED_ARROW"]
    assert rows(decoded) == []


def test_oversized_messages_are_not_looked_at(tmp_path: Path) -> None:
    decoded = avro(tmp_path).decode([b"x" * (EVENT_BYTES_MAX + 1), avro_bytes()])
    assert [(one.message, one.reason) for one in decoded.rejected] == [(0, "EVENT_TOO_LARGE")]
    assert decoded.messages.tolist() == [1]


def test_the_decoder_of_a_registered_source_is_that_of_its_format() -> None:
    state = state_of(definitions("kafka:orders?format=json"))
    found = feeds_of(state, view_layouts(state))[0][SOURCE]
    decoded = decoder_of(found, None).decode([b'{"user_id": 1, "at": 5, "cents": 7}', b"{}"])
    assert decoded.columns["cents"].to_pylist() == [7, None]
