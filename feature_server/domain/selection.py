"""Selections: which columns a read answers, resolved against the registry and compiled into a plan of the core."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from core_ext.computed import ComputedView
from core_ext.request_core import COLUMN_COUNT_MAX, Plan
from core_ext.row_codec import Schema
from feature_server.domain.layouts import ViewLayout
from feature_server.domain.slot_bytes import slot_bytes
from headrace.errors import InvalidArgument
from headrace.types import Scalar, ValueType

_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class SelectedColumn:
    """One column of an answer. `key_columns` are the request columns that carry the view's entity key."""

    name: str
    view: ViewLayout
    feature: str
    key_columns: tuple[str, ...]

    @property
    def place(self) -> int:
        """Column of the view's schema."""
        return self.view.columns[self.feature]

    @property
    def value_type(self) -> ValueType:
        """Type of the values."""
        return self.view.value_types[self.place]

    @property
    def reference(self) -> str:
        """The feature, "view@v3:feature"."""
        return f"{self.view.ref}:{self.feature}"

    @property
    def default(self) -> bytes | None:
        """Typed default as slot bytes."""
        value = self.view.definition.features[self.place].default
        return None if value is None else slot_bytes(value, self.value_type)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A resolved selection: `feature_service` is empty for a list of features.

    `lookups` and `groups` are the places in the plan where each column finds its entity and its rows.
    """

    feature_service: str
    columns: tuple[SelectedColumn, ...]
    join_keys: Mapping[str, Scalar]
    plan: Plan
    lookups: tuple[int, ...]
    groups: tuple[int, ...]

    @property
    def handle(self) -> bytes:
        """Digest of the selection."""
        return self.plan.handle


def prepare(feature_service: str, columns: Sequence[SelectedColumn], revision: int) -> Prepared:
    """Compiles a selection. Raises InvalidArgument where it is too wide or one request column has two types."""
    if len(columns) > COLUMN_COUNT_MAX:
        raise InvalidArgument(
            f"{len(columns)} features in one selection; at most {COLUMN_COUNT_MAX}: split it",
            reason="TOO_MANY_FEATURES",
            field="features",
            metadata={"count": str(len(columns))},
        )
    join_keys = _join_keys(columns)
    handle = _handle(feature_service, columns, join_keys)
    plan, places = _compile(handle, revision, columns, join_keys)
    lookups, groups = zip(*places, strict=True)
    return Prepared(feature_service, tuple(columns), join_keys, plan, lookups, groups)


def _join_keys(columns: Sequence[SelectedColumn]) -> dict[str, Scalar]:
    join_keys: dict[str, Scalar] = {}
    for column in columns:
        for name, scalar in zip(column.key_columns, column.view.entity.key_scalars, strict=True):
            if join_keys.setdefault(name, scalar) is not scalar:
                raise InvalidArgument(
                    f"join key {name!r} is {join_keys[name].name} for one entity and {scalar.name} for "
                    f"{column.view.entity.name!r}: read them in two requests, or map one of them in a feature service",
                    reason="JOIN_KEY_CONFLICT",
                    field="features",
                    metadata={"join_key": name, "entity": column.view.entity.name},
                )
    return join_keys


def _compile(
    handle: bytes, revision: int, columns: Sequence[SelectedColumn], join_keys: Mapping[str, Scalar]
) -> tuple[Plan, list[tuple[int, int]]]:
    """The plan, and lookup and group of each column."""
    names = {name: place for place, name in enumerate(join_keys)}
    lookups: dict[tuple[int, tuple[int, ...]], int] = {}
    for column in columns:
        lookups.setdefault(_lookup(column, names), len(lookups))
    groups: dict[tuple[int, int], ViewLayout] = {}
    for column in columns:
        groups[lookups[_lookup(column, names)], column.view.view_id] = column.view
    ordered = sorted(groups)  # the core wants groups in the order of their lookups
    place = {key: number for number, key in enumerate(ordered)}
    looked_up = [lookups[_lookup(item, names)] for item in columns]
    places = [(at, place[at, item.view.view_id]) for at, item in zip(looked_up, columns, strict=True)]
    outputs = [(item.name, group, item.place, item.default) for (_, group), item in zip(places, columns, strict=True)]
    plan = Plan(
        handle,
        revision,
        [(name, int(scalar)) for name, scalar in join_keys.items()],
        list(lookups),
        [_group(key, groups[key]) for key in ordered],
        outputs,
    )
    return plan, places


def _lookup(column: SelectedColumn, names: Mapping[str, int]) -> tuple[int, tuple[int, ...]]:
    return column.view.entity.entity_id, tuple(names[name] for name in column.key_columns)


def _group(key: tuple[int, int], view: ViewLayout) -> tuple[int, int, Schema, int, int, int, ComputedView | None]:
    definition = view.definition
    limits = (_microseconds(definition.ttl), _microseconds(definition.freshness_sla))
    computed = None if view.computed is None else view.computed.view
    return (key[0], view.view_id, view.schema, *limits, int(definition.fallback), computed)


def _microseconds(duration: timedelta | None) -> int:
    # 0 means no limit to the core; definitions allow no limit of 0.
    return 0 if duration is None else duration // _MICROSECOND


def _handle(feature_service: str, columns: Sequence[SelectedColumn], join_keys: Mapping[str, Scalar]) -> bytes:
    # Everything that decides an answer but the rows, in a form that does not depend on the order of dictionaries.
    document = {
        "feature_service": feature_service,
        "join_keys": [[name, int(scalar)] for name, scalar in join_keys.items()],
        "columns": [list(_digested(column)) for column in columns],
    }
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).digest()


def _digested(column: SelectedColumn) -> Iterator[object]:
    definition, default = column.view.definition, column.default
    yield from (column.name, column.reference, str(column.value_type), list(column.key_columns))
    yield from (column.view.view_id, column.view.schema.schema_id, column.view.transform_digest.hex())
    yield from (_microseconds(definition.ttl), int(definition.fallback), None if default is None else default.hex())
