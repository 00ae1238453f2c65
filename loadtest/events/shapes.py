"""Shapes of events, and the sources, entities and views over them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from headrace.definitions import (
    Column,
    DefinitionSet,
    Entity,
    EntityKey,
    Feature,
    FeatureService,
    FeatureView,
    ServiceEntry,
    Source,
    SourceKind,
    latest,
    window,
)

OWNER: Final = "bench"
NEWSFEED_ITEMS: Final = 500  # of one call, beside one user


class Shape(StrEnum):
    """What happens."""

    CLICKS = "clicks"
    TRANSACTIONS = "transactions"
    SENSORS = "sensors"


@dataclass(frozen=True, slots=True)
class ShapeColumns:
    """Columns besides event_time; `keys` are those that entities are made of, with how many there are by default."""

    types: Mapping[str, str]
    keys: Mapping[str, int]


COLUMNS: Final[Mapping[Shape, ShapeColumns]] = {
    Shape.CLICKS: ShapeColumns(
        {
            "user_id": "i64",
            "item_id": "i64",
            "page": "string",
            "position": "i32",
            "dwell_ms": "i64",
            "is_purchase": "bool",
            "price": "f64",
        },
        {"user_id": 100_000, "item_id": 20_000},
    ),
    Shape.TRANSACTIONS: ShapeColumns(
        {
            "account_id": "i64",
            "merchant_id": "string",
            "cents": "i64",
            "currency": "string",
            "is_declined": "bool",
            "risk": "f32",
        },
        {"account_id": 100_000, "merchant_id": 5_000},
    ),
    Shape.SENSORS: ShapeColumns(
        {"sensor_id": "i64", "celsius": "f64", "volts": "f32", "is_alarm": "bool", "firmware": "string"},
        {"sensor_id": 10_000},
    ),
}
TEXT_KEYS: Final = frozenset({"merchant_id"})


def entity_of(key: str) -> str:
    """Entity of a key column."""
    return f"{OWNER}.events.{key.removesuffix('_id')}"


def source_name(shape: Shape) -> str:
    """Source of a shape."""
    return f"{OWNER}.events.{shape}"


def view_name(shape: Shape, key: str) -> str:
    """View of a shape over the entity of a key."""
    return f"{OWNER}.events.{shape}_by_{key.removesuffix('_id')}"


def definitions(shape: Shape, topic: str, form: str) -> DefinitionSet:
    """All of a shape: a stream source, its entities, a view of 20 features for each, and for clicks the newsfeed."""
    described = COLUMNS[shape]
    columns = [Column("event_time", "timestamp_us"), *(Column(*one) for one in described.types.items())]
    source = Source(
        source_name(shape),
        owner=OWNER,
        kind=SourceKind.STREAM,
        uri=f"kafka:{topic}?format={form}",
        columns=columns,
        event_time_column="event_time",
    )
    entities = [
        Entity(entity_of(key), owner=OWNER, join_keys=[EntityKey(key, described.types[key])]) for key in described.keys
    ]
    views = [
        FeatureView(
            view_name(shape, key), owner=OWNER, entity=entity_of(key), source=source.name, features=_features(shape)
        )
        for key in described.keys
    ]
    services = []
    if shape is Shape.CLICKS:
        entries = [ServiceEntry(f"{view.name}@v1", output_prefix=f"{view.name.rpartition('_')[2]}_") for view in views]
        services = [FeatureService(f"{OWNER}.events.newsfeed", owner=OWNER, entries=entries)]
    return DefinitionSet(sources=[source], entities=entities, feature_views=views, feature_services=services)


_VALUES: Final = {
    Shape.CLICKS: ("dwell_ms", "price", "is_purchase", "page"),
    Shape.TRANSACTIONS: ("cents", "risk", "is_declined", "currency"),
    Shape.SENSORS: ("volts", "celsius", "is_alarm", "firmware"),
}
_SPANS: Final = {"5m": "10s", "1h": "1m", "1d": "30m", "7d": "6h"}


def _features(shape: Shape) -> list[Feature]:
    """Twenty: counts, sums, means and extremes over four spans, and the newest values."""
    first, second, flag, text = _VALUES[shape]
    types = {"event_time": "timestamp_us", **COLUMNS[shape].types}
    found = []
    for over, hop in _SPANS.items():
        found += [
            Feature(f"count_{over}", "i64", window("count", over=over, hop=hop)),
            Feature(f"sum_{over}", _summed(types[first]), window("sum", first, over=over, hop=hop)),
            Feature(f"mean_{over}", "f64", window("avg", second, over=over, hop=hop)),
            Feature(f"most_{over}", types[first], window("max", first, over=over, hop=hop)),
        ]
    return [
        *found,
        Feature("last_value", types[first], latest(first)),
        Feature("last_flag", "bool", latest(flag)),
        Feature("last_text", "string", latest(text)),
        Feature("flags_1d", "i64", window("sum", f"if({flag}, 1, 0)", over="1d", hop="30m")),
    ]


def _summed(kind: str) -> str:
    return "i64" if kind in {"i32", "i64"} else "f64"
