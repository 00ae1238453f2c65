"""Enriched streams: what lookups of other views, and functions, add to the events of a source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace.definitions.checks import check_type
from headrace.definitions.functions import Function
from headrace.definitions.services import ServiceEntry
from headrace.definitions.sources import Column, Source
from headrace.types import Scalar, ValueType

KNOWN_TIME: Final = "_known_time_{}"
"""Column of an event that says up to which write time its lookup of a number has seen the view that it reads."""

TIME: Final = ValueType(Scalar.TIMESTAMP_US)


@dataclass(frozen=True, slots=True)
class Lookup:
    """One lookup of a registered view: pinned, its features named and every join key mapped.

    `keys` are the columns of the event that hold the join keys, in the order of the entity. `columns` are what the
    event gets, by the names that it gets, and `known_time` is the column of the write time up to which the lookup had
    seen the view. `identity` is what of the pinned version decides the values, as JSON.
    """

    entry: ServiceEntry
    keys: tuple[str, ...]
    columns: Mapping[str, ValueType]
    known_time: str
    identity: Mapping[str, Any]  # Any: JSON values


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichedSource(Source):
    """A source with the columns that lookups and functions add to its events."""

    lookups: tuple[Lookup, ...] = ()
    functions: tuple[Function, ...] = ()

    @property
    def added(self) -> dict[str, ValueType]:
        """Columns that are not those of the source."""
        return added_columns(self.lookups, self.functions)


def added_columns(lookups: Sequence[Lookup], functions: Sequence[Function]) -> dict[str, ValueType]:
    """Columns that events get, with their types."""
    looked = {name: kind for one in lookups for name, kind in (*one.columns.items(), (one.known_time, TIME))}
    return looked | {one.name: one.type for one in functions}


def with_lookups(source: Source, lookups: Sequence[Lookup], functions: Sequence[Function]) -> Source:
    """The source with what lookups and functions add."""
    if not lookups and not functions:
        return source
    added = [Column(name, kind) for name, kind in added_columns(lookups, functions).items()]
    fields = {name: getattr(source, name) for name in Source.__dataclass_fields__}
    made = {"columns": [*source.columns, *added], "lookups": tuple(lookups), "functions": tuple(functions)}
    return EnrichedSource(**fields | made)


def lookups_of(source: Source) -> tuple[Lookup, ...]:
    """Lookups of a source, none of a plain one."""
    return source.lookups if isinstance(source, EnrichedSource) else ()


def without_lookups(source: Source) -> Source:
    """The source as it was registered."""
    if not isinstance(source, EnrichedSource):
        return source
    fields = {name: getattr(source, name) for name in Source.__dataclass_fields__}
    return Source(**fields | {"columns": [column for column in source.columns if column.name not in source.added]})


def lookup_document(lookup: Lookup) -> dict[str, Any]:  # Any: JSON values
    """JSON form, which needs no registry to be read."""
    entry = lookup.entry
    return {
        "feature_view": entry.feature_view,
        "features": list(entry.features),
        "join_key_mapping": dict(entry.join_key_mapping),
        "output_prefix": entry.output_prefix,
        "keys": list(lookup.keys),
        "columns": {name: str(kind) for name, kind in lookup.columns.items()},
        "known_time": lookup.known_time,
        "identity": dict(lookup.identity),
    }


def lookup_from_document(fields: Mapping[str, Any]) -> Lookup:  # Any: JSON values
    """Lookup of its JSON form."""
    names = ("feature_view", "features", "join_key_mapping", "output_prefix")
    return Lookup(
        entry=ServiceEntry(**{name: fields[name] for name in names}),
        keys=tuple(fields["keys"]),
        columns={name: check_type(kind) for name, kind in fields["columns"].items()},
        known_time=fields["known_time"],
        identity=fields["identity"],
    )
