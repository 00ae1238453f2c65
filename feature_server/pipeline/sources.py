"""Streams as definitions name them: `kafka:TOPIC?format=json`, and which views and entities each one feeds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl

import pyarrow as pa

from feature_server.domain.layouts import EntityLayout, ViewLayout, entity_layout
from headrace.definitions.entities import EVENT_TIME
from headrace.definitions.registered import RegisteredSource, RegistryState
from headrace.definitions.sources import SourceKind
from headrace.definitions.transforms import Latest
from headrace.errors import HeadraceError, InvalidArgument
from headrace.types import ValueType

SCHEME: Final = "kafka:"
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # what Kafka takes
_FILE: Final = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,127}")  # in the folder of schemas, never outside of it


class Format(StrEnum):
    """What the value of a message is."""

    JSON = "json"
    AVRO = "avro"
    PROTOBUF = "protobuf"
    ARROW = "arrow"


@dataclass(frozen=True, slots=True)
class Stream:
    """A source as a consumer takes it. `schema` is a file of the folder of schemas, `message` a protobuf type."""

    source: str
    source_id: int
    topic: str
    format: Format
    schema: str
    message: str
    event_time: str
    types: Mapping[str, ValueType]


@dataclass(frozen=True, slots=True)
class Feed:
    """What one stream feeds: its columns that any view reads, keys and event time included, and their entities.

    `views` are the ids of the views by entity, as the registry of `revision` has them.
    """

    stream: Stream
    columns: Mapping[str, ValueType]
    entities: Sequence[EntityLayout]
    views: Mapping[str, Sequence[int]] = field(default_factory=dict)
    revision: int = field(default=0, compare=False)  # read anew for other views alone


def stream_of(record: RegisteredSource) -> Stream:
    """The stream of a registered source. Raises InvalidArgument where its URI names none."""
    source = record.definition
    place, _, query = source.uri.removeprefix(SCHEME).partition("?")
    if not _TOPIC.fullmatch(place):
        raise _bad_uri(source.uri, "it names no topic", source.name)
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        form = Format(options.pop("format", Format.JSON))
    except ValueError as error:
        raise _bad_uri(source.uri, f"formats are {', '.join(Format)}", source.name) from error
    schema, message = options.pop("schema", ""), options.pop("message", "")
    if options:
        raise _bad_uri(source.uri, f"{', '.join(options)} is none of format, schema and message", source.name)
    has_schema = form in {Format.AVRO, Format.PROTOBUF}
    if has_schema != bool(_FILE.fullmatch(schema)) or (form is Format.PROTOBUF) != bool(message):
        needed = "avro needs schema=FILE.avsc, protobuf schema=FILE.desc and message=package.Name, others none of both"
        raise _bad_uri(source.uri, needed, source.name)
    types = {column.name: column.type for column in source.columns}
    return Stream(source.name, record.source_id, place, form, schema, message, source.event_time_column, types)


def feeds_of(state: RegistryState, views: Mapping[str, ViewLayout]) -> tuple[dict[str, Feed], dict[str, HeadraceError]]:
    """By source the streams that views read, and by source why one cannot be read."""
    found: dict[str, Feed] = {}
    refused: dict[str, HeadraceError] = {}
    for name, record in state.sources.items():
        fed = [view for view in views.values() if view.definition.source == name and takes_stream(view, state)]
        if not fed:
            continue
        try:
            stream = stream_of(record)
        except HeadraceError as error:
            refused[name] = error
            continue
        entities = {view.entity.name: entity_layout(state.entities[view.entity.name]) for view in fed}
        names = {stream.event_time, *(column for view in fed for column in columns_of(view).values())}
        names |= {key for entity in entities.values() for key in entity.key_names}
        missing = names - stream.types.keys()
        if missing:
            refused[name] = _lacks(name, sorted(missing)[0])
            continue
        columns = {column: stream.types[column] for column in sorted(names)}
        ids = {entity: sorted(view.view_id for view in fed if view.entity.name == entity) for entity in entities}
        found[name] = Feed(stream, columns, [*entities.values()], ids, state.revision)
    return found, refused


def takes_stream(view: ViewLayout, state: RegistryState) -> bool:
    """Whether a view version takes the events of a stream here and now."""
    source = state.sources.get(view.definition.source)
    return (
        view.is_active and view.refusal is None and source is not None and source.definition.kind is SourceKind.STREAM
    )


def columns_of(view: ViewLayout) -> dict[str, str]:
    """What a write of the view is made of, besides keys and event time: its columns, and those of the source."""
    if view.computed is not None:
        return {name: name for name in view.computed.given}
    features = view.definition.features
    return {one.name: one.transform.column for one in features if isinstance(one.transform, Latest)}


def view_batch(batch: pa.RecordBatch, view: ViewLayout, state: RegistryState) -> pa.RecordBatch | None:
    """Columns of a write of the view, out of those of the source; None where one is missing."""
    source = state.sources[view.definition.source].definition
    wanted = {**{name: name for name in view.key_names}, **columns_of(view)}
    wanted[EVENT_TIME] = source.event_time_column
    if not set(wanted.values()) <= set(batch.schema.names):
        return None
    return pa.RecordBatch.from_arrays([batch.column(name) for name in wanted.values()], names=list(wanted))


def _bad_uri(uri: str, why: str, source: str) -> InvalidArgument:
    return InvalidArgument(
        f"uri {uri!r} of source {source!r} names no stream: {why}; write kafka:TOPIC?format=json",
        reason="BAD_STREAM_URI",
        field="uri",
        metadata={"source": source, "uri": uri},
    )


def _lacks(source: str, column: str) -> InvalidArgument:
    return InvalidArgument(
        f"source {source!r} has no column {column!r}, which is a join key of a view that it feeds: add the column",
        reason="UNKNOWN_COLUMN",
        field="columns",
        metadata={"source": source, "column": column},
    )
