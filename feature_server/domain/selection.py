"""Selections: which columns a read answers, resolved against the registry and compiled into a plan of the core."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from core_ext.computed import ComputedView
from core_ext.request_core import COLUMN_COUNT_MAX, ON_DEMAND, Plan
from core_ext.row_codec import Schema
from feature_server.domain.layouts import ViewLayout
from feature_server.domain.on_demand_columns import OnDemandColumns, on_demand_columns
from feature_server.domain.selected import AnyColumn, AnyLayout, SelectedColumn, SelectedOnDemand
from headrace.definitions.services import KEY_COLUMN_COUNT_MAX
from headrace.errors import InvalidArgument
from headrace.types import Scalar, ValueType

OF_NO_ROW: Final = -1
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A resolved selection: `feature_service` is empty for a list of features.

    `lookups` and `groups` are the places in the plan where each column finds its entity and its rows; OF_NO_ROW where
    it is computed on demand. `stored` are the columns that are looked up, answered or not.
    """

    feature_service: str
    columns: tuple[AnyColumn, ...]
    join_keys: Mapping[str, Scalar]
    request_fields: Mapping[str, ValueType]
    plan: Plan
    lookups: tuple[int, ...]
    groups: tuple[int, ...]
    stored: tuple[SelectedColumn, ...]

    @property
    def handle(self) -> bytes:
        """Digest of the selection."""
        return self.plan.handle


def prepare(
    feature_service: str, columns: Sequence[AnyColumn], revision: int, views: Mapping[str, AnyLayout]
) -> Prepared:
    """Compiles a selection; `views` are those of the registry.

    Raises InvalidArgument where it is too wide, or one request column would have two types or meanings, and
    FailedPrecondition where something that it reads is not served.
    """
    if len(columns) > COLUMN_COUNT_MAX:
        raise InvalidArgument(
            f"{len(columns)} features in one selection; at most {COLUMN_COUNT_MAX}: split it",
            reason="TOO_MANY_FEATURES",
            field="features",
            metadata={"count": str(len(columns))},
        )
    join_keys = _join_keys(columns)
    on_demand = on_demand_columns(columns, views)
    _check_request_fields(on_demand, join_keys)
    handle = _handle(feature_service, columns, join_keys)
    stored = (*(column for column in columns if isinstance(column, SelectedColumn)), *on_demand.inputs)
    plan, places = _compile(handle, revision, columns, join_keys, on_demand=on_demand, stored=stored)
    lookups, groups = zip(*places, strict=True)
    fields = on_demand.request_fields
    return Prepared(feature_service, tuple(columns), join_keys, fields, plan, lookups, groups, stored)


def _join_keys(columns: Sequence[AnyColumn]) -> dict[str, Scalar]:
    join_keys: dict[str, Scalar] = {}
    for column in columns:
        for name, scalar in zip(column.key_columns, column.key_scalars, strict=True):
            if join_keys.setdefault(name, scalar) is not scalar:
                raise InvalidArgument(
                    f"join key {name!r} is {join_keys[name].name} for one entity and {scalar.name} for "
                    f"{column.keyed!r}: read them in two requests, or map one of them in a feature service",
                    reason="JOIN_KEY_CONFLICT",
                    field="features",
                    metadata={"join_key": name, "entity": column.keyed},
                )
    if len(join_keys) > KEY_COLUMN_COUNT_MAX:
        raise InvalidArgument(
            f"{len(join_keys)} join key columns in one selection; at most {KEY_COLUMN_COUNT_MAX}: split it",
            reason="TOO_MANY_JOIN_KEYS",
            field="features",
            metadata={"count": str(len(join_keys))},
        )
    return join_keys


def _check_request_fields(on_demand: OnDemandColumns, join_keys: Mapping[str, Scalar]) -> None:
    for name in on_demand.request_fields:
        if name in join_keys:
            raise InvalidArgument(
                f"request field {name!r} has the name of a join key: map the key in a feature service",
                reason="JOIN_KEY_CONFLICT",
                field="features",
                metadata={"join_key": name},
            )


def _compile(
    handle: bytes,
    revision: int,
    columns: Sequence[AnyColumn],
    join_keys: Mapping[str, Scalar],
    *,
    on_demand: OnDemandColumns,
    stored: Sequence[SelectedColumn],
) -> tuple[Plan, list[tuple[int, int]]]:
    """The plan, and lookup and group of each column."""
    names = {name: place for place, name in enumerate(join_keys)}
    lookups: dict[tuple[int, tuple[int, ...]], int] = {}
    for column in stored:
        lookups.setdefault(_lookup(column, names), len(lookups))
    groups: dict[tuple[int, int], ViewLayout] = {}
    for column in stored:
        groups[lookups[_lookup(column, names)], column.view.view_id] = column.view
    ordered = sorted(groups)  # the core wants groups in the order of their lookups
    place = {key: number for number, key in enumerate(ordered)}

    def placed(column: AnyColumn) -> tuple[int, int]:
        if isinstance(column, SelectedOnDemand):
            return OF_NO_ROW, OF_NO_ROW
        lookup = lookups[_lookup(column, names)]
        return lookup, place[lookup, column.view.view_id]

    def gathered(column: SelectedColumn) -> tuple[int, int, bytes | None]:
        return placed(column)[1], column.place, column.default

    def answered(column: AnyColumn) -> tuple[str, int, int, bytes | None]:
        if isinstance(column, SelectedOnDemand):
            return column.name, ON_DEMAND, on_demand.programs[column.reference, column.key_columns], None
        return column.name, *gathered(column)

    plan = Plan(
        handle,
        revision,
        [(name, int(scalar)) for name, scalar in join_keys.items()],
        list(lookups),
        [_group(key, groups[key]) for key in ordered],
        [answered(column) for column in columns],
        [gathered(column) for column in on_demand.inputs],
        on_demand.compiled,
    )
    return plan, [placed(column) for column in columns]


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


def _handle(feature_service: str, columns: Sequence[AnyColumn], join_keys: Mapping[str, Scalar]) -> bytes:
    # Everything that decides an answer but the rows, in a form that does not depend on the order of dictionaries.
    document = {
        "feature_service": feature_service,
        "join_keys": [[name, int(scalar)] for name, scalar in join_keys.items()],
        "columns": [list(_digested(column)) for column in columns],
    }
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).digest()


def _digested(column: AnyColumn) -> Iterator[object]:
    definition = column.view.definition
    yield from (column.name, column.reference, str(column.value_type), list(column.key_columns))
    if isinstance(column, SelectedOnDemand):
        # The digest of the transform holds the pinned versions that it reads, and those their own limits.
        feature = column.view.definition.features[column.view.columns[column.feature]]
        yield from (column.view.transform_digest.hex(), int(definition.fallback), repr(feature.default))
        return
    default = column.default
    yield from (column.view.view_id, column.view.schema.schema_id, column.view.transform_digest.hex())
    yield from (_microseconds(column.view.definition.ttl), int(definition.fallback))
    yield None if default is None else default.hex()
