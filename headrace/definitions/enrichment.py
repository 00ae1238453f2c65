"""Resolves the lookups of views and gives their sources the columns that are looked up."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from headrace.definitions.checks import invalid, suggestion
from headrace.definitions.entities import EVENT_TIME, Entity
from headrace.definitions.lookups import KNOWN_TIME, TIME, Lookup, with_lookups
from headrace.definitions.registered import RegisteredView, RegistryState
from headrace.definitions.services import ServiceEntry
from headrace.definitions.sources import Source
from headrace.definitions.transform import read_columns
from headrace.definitions.values import value_document
from headrace.definitions.views import Feature, FeatureView
from headrace.names import VersionRef
from headrace.types import ValueType

_MICROSECOND: Final = timedelta(microseconds=1)


Find = Callable[[VersionRef], RegisteredView | None]
FindEntity = Callable[[str], Entity]


def resolved(view: FeatureView, find: Find, entity: FindEntity) -> FeatureView:
    """The view with lookups that name the features that it reads, and every join key.

    Its lookups are pinned to registered versions. Raises InvalidArgument for features and keys that are not theirs.
    """
    if not view.lookups:
        return view
    read = read_columns(view)
    return replace(view, lookups=[_resolved(at, entry, read, find, entity) for at, entry in enumerate(view.lookups)])


def enriched(view: FeatureView, entity: Entity, source: Source, find: Find, find_entity: FindEntity) -> Source:
    """What a resolved view computes from: its source, with what lookups and functions add.

    Raises InvalidArgument where columns clash, or keys are missing or of another type.
    """
    lookups = []
    types = {column.name: column.type for column in source.columns}
    keys = {key.name: key.type for key in entity.join_keys}
    for at, entry in enumerate(view.lookups):
        record = _found(find, entry)
        wanted = find_entity(record.definition.entity)
        _check_keys(f"lookups[{at}].join_key_mapping", entry, wanted, keys | types, source)
        lookup = _lookup(at, entry, record, wanted)
        _check_names(f"lookups[{at}].output_prefix", lookup, {*types, *keys, EVENT_TIME})
        types |= {**lookup.columns, lookup.known_time: TIME}
        lookups.append(lookup)
    _check_functions(view, types, {*keys, EVENT_TIME})
    return with_lookups(source, lookups, view.functions)


def source_of(record: RegisteredView, state: RegistryState) -> Source:
    """What a registered version computes from."""
    view = record.definition
    entity, source = state.entities[view.entity].definition, state.sources[view.source].definition
    return enriched(view, entity, source, state.view, lambda name: state.entities[name].definition)


def _resolved(at: int, entry: ServiceEntry, read: frozenset[str], find: Find, find_entity: FindEntity) -> ServiceEntry:
    record = _found(find, entry)
    known = [feature.name for feature in record.definition.features]
    for place, name in enumerate(entry.features):
        if name not in known:
            message = f"view {record.ref} has no feature {name!r}{suggestion(name, known)}"
            raise invalid(message, "UNKNOWN_FEATURE", f"lookups[{at}].features[{place}]", feature=name)
    keys = [key.name for key in find_entity(record.definition.entity).join_keys]
    for key in entry.join_key_mapping:
        if key not in keys:
            message = f"{record.ref} has no join key {key!r}{suggestion(key, keys)}"
            raise invalid(message, "UNKNOWN_JOIN_KEY", f"lookups[{at}].join_key_mapping", join_key=key)
    features = [name for name in entry.features or known if entry.output_prefix + name in read]
    if not features:
        message = (
            f"no feature and no filter reads a column {entry.output_prefix}… of {record.ref}; leave the lookup out, or "
            "read one"
        )
        raise invalid(message, "UNEXPECTED", f"lookups[{at}]", feature_view=record.ref)
    mapping = {key: entry.request_column(key) for key in keys}
    return replace(entry, feature_view=str(record.ref), features=features, join_key_mapping=mapping)


def _lookup(at: int, entry: ServiceEntry, record: RegisteredView, entity: Entity) -> Lookup:
    view = record.definition
    features = [_feature(view, name) for name in entry.features]
    identity = {
        "feature_view": str(record.ref),
        "transform": record.transform_digest.hex(),
        "keys": [[key.name, entry.request_column(key.name)] for key in entity.join_keys],
        "columns": sorted([entry.output_prefix + one.name, one.name] for one in features),
        "ttl_us": 0 if view.ttl is None else view.ttl // _MICROSECOND,
        "fallback": int(view.fallback),
        "defaults": {one.name: value_document(one.default) for one in features if one.default is not None},
    }
    return Lookup(
        entry=entry,
        keys=tuple(entry.request_column(key.name) for key in entity.join_keys),
        columns={entry.output_prefix + one.name: one.type for one in features},
        known_time=KNOWN_TIME.format(at + 1),
        identity=identity,
    )


def _check_keys(path: str, entry: ServiceEntry, entity: Entity, types: Mapping[str, ValueType], source: Source) -> None:
    for key in entity.join_keys:
        column = entry.request_column(key.name)
        found = types.get(column)
        if found == key.type:
            continue
        what = "has no such column" if found is None else f"has {found} there"
        remedy = "map the join key to a column of the event" if found is None else "take a column of its type"
        raise invalid(
            f"join key {key.name!r} of {entry.feature_view} is {key.type} in column {column!r}, and source "
            f"{source.name!r} {what}; {remedy}{suggestion(column, types) if found is None else ''}",
            "UNKNOWN_COLUMN" if found is None else "WRONG_TYPE",
            path,
            column=column,
        )


def _check_names(path: str, lookup: Lookup, taken: set[str]) -> None:
    for name in (*lookup.columns, lookup.known_time):
        if name in taken:
            raise invalid(
                f"column {name!r} of the lookup of {lookup.entry.feature_view} is a column of the event already; give "
                "the lookup another output_prefix",
                "DUPLICATE_NAME",
                path,
                name=name,
            )


def _check_functions(view: FeatureView, types: Mapping[str, ValueType], beside: set[str]) -> None:
    read = read_columns(replace(view, functions=()))
    for at, one in enumerate(view.functions):
        for place, column in enumerate(one.columns):
            if column not in types:
                message = f"function {one.path!r} takes column {column!r}, which its events do not have"
                remedy = suggestion(column, types) or "; functions take columns of the source and of lookups"
                raise invalid(message + remedy, "UNKNOWN_COLUMN", f"functions[{at}].columns[{place}]", column=column)
        if one.name in types or one.name in beside:
            message = f"column {one.name!r} of function {one.path!r} is a column of the event already; rename it"
            raise invalid(message, "DUPLICATE_NAME", f"functions[{at}].name", name=one.name)
        if one.name not in read:
            message = f"no feature and no filter reads column {one.name!r}; leave the function out, or read it"
            raise invalid(message, "UNEXPECTED", f"functions[{at}]", name=one.name)


def _found(find: Find, entry: ServiceEntry) -> RegisteredView:
    record = find(entry.view)
    assert record is not None, "references were checked"
    return record


def _feature(view: FeatureView, name: str) -> Feature:
    feature = view.feature(name)
    assert feature is not None, "the lookup was resolved"
    return feature
