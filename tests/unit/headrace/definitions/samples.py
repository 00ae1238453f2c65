"""Small definitions that fit together, and strategies for random ones."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from headrace.definitions import (
    Column,
    DefinitionSet,
    Entity,
    EntityKey,
    Fallback,
    Feature,
    FeatureService,
    FeatureView,
    Model,
    ServiceEntry,
    Source,
    SourceKind,
    latest,
)
from headrace.types import Scalar, Shape, ValueType

SOURCE = "flights.ops.departures"
ENTITY = "flights.ops.airport"
VIEW = "flights.ops.traffic"
SERVICE = "flights.ml.delay"
MODEL = "flights.ml.departure_delay"
COLUMNS: Mapping[str, str] = {"event_time": "timestamp_us", "dep_delay": "f32", "flight_count": "i64", "spare": "i32"}


def source(name: str = SOURCE, *, columns: Mapping[str, str] = COLUMNS, **fields: Any) -> Source:
    given = [Column(column, type_text) for column, type_text in columns.items()]
    return Source(name, **{"owner": "flights", "columns": given} | fields)


def entity(name: str = ENTITY, *, keys: Mapping[str, str] | None = None, **fields: Any) -> Entity:
    join_keys = [EntityKey(key, type_text) for key, type_text in (keys or {"airport": "string"}).items()]
    return Entity(name, **{"owner": "flights", "join_keys": join_keys} | fields)


def delay(**fields: Any) -> Feature:
    return Feature("dep_delay", "f32", latest("dep_delay"), **fields)


def count(**fields: Any) -> Feature:
    return Feature("flight_count", "i64", latest("flight_count"), **fields)


def view(name: str = VIEW, *, features: Sequence[Feature] | None = None, **fields: Any) -> FeatureView:
    given = [delay()] if features is None else features
    return FeatureView(name, **{"owner": "flights", "entity": ENTITY, "source": SOURCE, "features": given} | fields)


def service(name: str = SERVICE, *, entries: Sequence[ServiceEntry] | None = None, **fields: Any) -> FeatureService:
    given = [ServiceEntry(VIEW)] if entries is None else entries
    return FeatureService(name, **{"owner": "flights", "entries": given} | fields)


def model(name: str = MODEL, *, pins: str = f"{SERVICE}@v1", **fields: Any) -> Model:
    return Model(name, **{"owner": "flights", "feature_service": pins} | fields)


def whole_set(**replaced: Any) -> DefinitionSet:
    kinds: dict[str, Any] = {
        "sources": [source()],
        "entities": [entity()],
        "feature_views": [view()],
        "feature_services": [service()],
        "models": [model()],
    }
    return DefinitionSet(**kinds | replaced)


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
TAGS = st.dictionaries(st.sampled_from(["tier", "pii", "Ünïcode"]), TEXTS, max_size=2)
DURATIONS = st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=36_500))
VALUES: Mapping[Scalar, st.SearchStrategy[Any]] = {
    Scalar.BOOL: st.booleans(),
    Scalar.I32: st.integers(-(2**31), 2**31 - 1),
    Scalar.I64: st.integers(-(2**63), 2**63 - 1),
    Scalar.F32: st.floats(width=32),
    Scalar.F64: st.floats(),
    Scalar.STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    Scalar.BYTES: st.binary(max_size=8),
    Scalar.TIMESTAMP_US: st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC)),
    Scalar.DATE: st.dates(date(1, 1, 1), date(9999, 12, 31)),
}


@st.composite
def value_types(draw: st.DrawFn) -> ValueType:
    scalar = draw(st.sampled_from(Scalar))
    shape = draw(st.sampled_from(Shape))
    if shape is Shape.FIXED and scalar not in (Scalar.STRING, Scalar.BYTES):
        return ValueType(scalar, shape, draw(st.integers(1, 4)))
    return ValueType(scalar, Shape.VARIABLE if shape is Shape.FIXED else shape)


def values_of(value_type: ValueType) -> st.SearchStrategy[Any]:
    element = VALUES[value_type.scalar]
    if value_type.shape is Shape.SINGLE:
        return element
    size = value_type.list_size
    return st.lists(element, min_size=size, max_size=size or 4).map(tuple)


@st.composite
def sets(draw: st.DrawFn) -> DefinitionSet:
    """A whole set whose parts fit together, of one of a few names each, so that drawn sets clash and evolve."""
    chosen = draw(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), value_types(), min_size=1))
    columns = {"event_time": ValueType(Scalar.TIMESTAMP_US), **chosen}
    common: dict[str, Any] = {"owner": draw(st.sampled_from(["flights", "flights.oncall"])), "tags": draw(TAGS)}
    features = []
    for name, value_type in chosen.items():
        default = draw(st.none() | values_of(value_type))
        features.append(Feature(name, value_type, latest(name), default=default, description=draw(TEXTS)))
    feature_view = FeatureView(
        draw(st.sampled_from([VIEW, "flights.ops.other"])),
        entity=ENTITY,
        source=SOURCE,
        features=draw(st.permutations(features)),
        ttl=draw(st.none() | DURATIONS),
        fallback=draw(st.sampled_from(Fallback)),
        freshness_sla=draw(st.none() | DURATIONS),
        offline=draw(st.booleans()),
        description=draw(TEXTS),
        **common,
    )
    kind = draw(st.sampled_from(SourceKind))
    return DefinitionSet(
        sources=[
            source(
                columns={name: str(value_type) for name, value_type in columns.items()},
                kind=kind,
                uri="" if kind in (SourceKind.PUSH, SourceKind.SQL) else "data/departures.parquet",
                query=draw(st.sampled_from(["SELECT * FROM rows", "FROM rows"])) if kind is SourceKind.SQL else "",
                inputs={"rows": "data/departures.parquet"} if kind is SourceKind.SQL else {},
                availability_delay=draw(DURATIONS),
                **common,
            )
        ],
        entities=[entity(**common)],
        feature_views=[feature_view],
        feature_services=[service(entries=[ServiceEntry(feature_view.name, output_prefix="p_")], **common)],
        models=[model(**common)],
    )
