"""The decoder of a feed, by the format that its source names."""

from pathlib import Path

from feature_server.pipeline.arrow_events import ArrowEvents
from feature_server.pipeline.avro_events import avro_reader
from feature_server.pipeline.decoding import Decoder
from feature_server.pipeline.json_events import JsonEvents
from feature_server.pipeline.protobuf_converter import protobuf_reader
from feature_server.pipeline.record_events import RecordEvents, schema_bytes
from feature_server.pipeline.sources import Feed, Format
from headrace.errors import InvalidArgument


def decoder_of(feed: Feed, schemas: Path | None) -> Decoder:
    """Raises InvalidArgument where the schema of the source cannot be read or does not fit its columns."""
    stream = feed.stream
    if stream.format is Format.ARROW:
        return ArrowEvents(feed.columns)
    if stream.format is Format.JSON:
        return JsonEvents(feed.columns)
    if schemas is None:
        raise InvalidArgument(
            f"source {stream.source!r} names the schema {stream.schema!r}, and no folder of schemas is given: "
            "start with --schemas DIR",
            reason="NO_SCHEMA_FOLDER",
            field="schemas",
            metadata={"source": stream.source},
        )
    data = schema_bytes(schemas, stream.schema, stream.source)
    if stream.format is Format.AVRO:
        return RecordEvents(feed.columns, avro_reader(data, feed.columns, stream.source, stream.schema))
    reader = protobuf_reader(data, stream.message, feed.columns, stream.source, stream.schema)
    return RecordEvents(feed.columns, reader)
