"""Sources that lie in a topic, as the registry names them: `kafka:TOPIC?format=json`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl

from batch.offline.event_columns import PLACE_NAMES, EventColumns
from headrace.definitions import Source, SourceKind
from headrace.errors import InvalidArgument
from headrace.types import ValueType

SCHEME: Final = "kafka:"
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # what Kafka takes


class Format(StrEnum):
    """What the value of a message is."""

    JSON = "json"
    ARROW = "arrow"


@dataclass(frozen=True, slots=True)
class EventStream:
    """A topic and what its messages hold."""

    topic: str
    format: Format
    event_time: str
    columns: EventColumns

    @property
    def types(self) -> Mapping[str, ValueType]:
        """Columns of the source."""
        return self.columns.types


def is_stream(source: Source) -> bool:
    """Whether a source lies in a topic."""
    return source.kind is SourceKind.STREAM and source.uri.startswith(SCHEME)


def stream_of(source: Source) -> EventStream:
    """Raises InvalidArgument where the sink cannot take the source."""
    topic, _, query = source.uri.removeprefix(SCHEME).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    form = options.get("format", Format.JSON)
    if not _TOPIC.fullmatch(topic) or form not in [*Format]:
        raise InvalidArgument(
            f"uri {source.uri!r} of source {source.name!r} is not kept offline: the sink takes topics of the formats "
            f"{', '.join(Format)}; send one of those",
            reason="BAD_STREAM_URI",
            field="uri",
            metadata={"source": source.name, "uri": source.uri},
        )
    types = {column.name: column.type for column in source.columns}
    taken = sorted(PLACE_NAMES & types.keys())
    if taken:
        raise InvalidArgument(
            f"column {taken[0]!r} of source {source.name!r} has the name of a column that the offline store adds; "
            "rename it",
            reason="RESERVED_NAME",
            field="columns",
            metadata={"source": source.name, "column": taken[0]},
        )
    return EventStream(topic, Format(form), source.event_time_column, EventColumns(source.name, types))
