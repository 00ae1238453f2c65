"""Definitions that cannot be wrong: every refusal at construction."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import timedelta

import pytest

import headrace.definitions
from headrace.definitions import (
    Column,
    DefinitionSet,
    EntityKey,
    Feature,
    FeatureView,
    ServiceEntry,
    SourceKind,
    latest,
)
from headrace.definitions.checks import located
from headrace.definitions.layout import FEATURE_COUNT_MAX
from headrace.errors import InvalidArgument
from headrace.types import ValueType, parse_type
from tests.unit.headrace.definitions.samples import (
    COLUMNS,
    ENTITY,
    SOURCE,
    count,
    delay,
    entity,
    model,
    service,
    source,
    view,
    whole_set,
)

Case = tuple[Callable[[], object], str, str]

COMMON: list[Case] = [
    (lambda: source("departures"), "INVALID_NAME", "name"),
    (lambda: source("Flights.ops.departures"), "INVALID_NAME", "name"),
    (lambda: source(""), "REQUIRED", "name"),
    (lambda: source(5), "WRONG_TYPE", "name"),  # type: ignore[arg-type]
    (lambda: source("x" * 500), "TOO_LONG", "name"),
    (lambda: source(owner=""), "REQUIRED", "owner"),
    (lambda: source(owner="weather"), "FOREIGN_PREFIX", "owner"),
    (lambda: source(owner="flight"), "FOREIGN_PREFIX", "owner"),
    (lambda: source(owner="flights.a.b"), "INVALID_NAME", "owner"),
    (lambda: source(owner="flights."), "INVALID_NAME", "owner"),
    (lambda: source(owner=None), "WRONG_TYPE", "owner"),
    (lambda: source(description="x" * 4097), "TOO_LONG", "description"),
    (lambda: source(description="\ud800"), "INVALID_TEXT", "description"),
    (lambda: source(tags={"a": 1}), "WRONG_TYPE", "tags.a"),
    (lambda: source(tags=["a"]), "WRONG_TYPE", "tags"),
    (lambda: source(tags={str(i): "" for i in range(65)}), "TOO_MANY", "tags"),
    (lambda: source(tags={"": "x"}), "REQUIRED", "tags"),
]
SOURCES: list[Case] = [
    (lambda: source(columns={}), "REQUIRED", "columns"),
    (lambda: source(columns={"a": "f32"}), "UNKNOWN_COLUMN", "event_time_column"),
    (lambda: source(columns={"event_time": "i64"}), "WRONG_TYPE", "event_time_column"),
    (lambda: source(event_time_column="spare"), "WRONG_TYPE", "event_time_column"),
    (lambda: source(uri="data.parquet"), "UNEXPECTED", "uri"),
    (lambda: source(kind=SourceKind.FILE), "REQUIRED", "uri"),
    (lambda: source(kind=2), "WRONG_TYPE", "kind"),
    (lambda: source(availability_delay=timedelta(seconds=-1)), "OUT_OF_RANGE", "availability_delay"),
    (lambda: source(availability_delay=3600), "WRONG_TYPE", "availability_delay"),
    (lambda: Column("a", "f33"), "UNKNOWN_TYPE", "type"),
    (lambda: Column("a", "list<f32,0>"), "UNKNOWN_TYPE", "type"),
    (lambda: Column("a", 4), "WRONG_TYPE", "type"),  # type: ignore[arg-type]
    (lambda: Column("", "f32"), "REQUIRED", "name"),
    (lambda: Column("a\nb", "f32"), "INVALID_NAME", "name"),
]
ENTITIES: list[Case] = [
    (lambda: entity(keys={f"k{i}": "i64" for i in range(9)}), "TOO_MANY", "join_keys"),
    (lambda: EntityKey("a", "f32"), "WRONG_TYPE", "type"),
    (lambda: EntityKey("a", "list<i64>"), "WRONG_TYPE", "type"),
    (lambda: EntityKey("A", "i64"), "INVALID_NAME", "name"),
    (lambda: EntityKey("event_time", "i64"), "RESERVED_NAME", "name"),
]
VIEWS: list[Case] = [
    (lambda: view(features=[]), "REQUIRED", "features"),
    (lambda: view(features=[delay(), count(), delay()]), "DUPLICATE_NAME", "features[2].name"),
    (lambda: view(features=[delay()] * (FEATURE_COUNT_MAX + 1)), "TOO_MANY", "features"),
    (lambda: view(features=["dep_delay"]), "WRONG_TYPE", "features[0]"),  # type: ignore[list-item]
    (lambda: view(ttl=timedelta(0)), "OUT_OF_RANGE", "ttl"),
    (lambda: view(ttl=timedelta(days=36_501)), "OUT_OF_RANGE", "ttl"),
    (lambda: view(freshness_sla="1h"), "WRONG_TYPE", "freshness_sla"),
    (lambda: view(fallback="default"), "WRONG_TYPE", "fallback"),
    (lambda: view(offline="no"), "WRONG_TYPE", "offline"),
    (lambda: view(entity="airport"), "INVALID_NAME", "entity"),
    (lambda: view(entity=f"{ENTITY}@v1"), "VERSION_REFUSED", "entity"),
    (lambda: view(source=""), "REQUIRED", "source"),
    (lambda: Feature("Delay", "f32", latest("a")), "INVALID_NAME", "name"),
    (lambda: Feature("event_time", "timestamp_us", latest("a")), "RESERVED_NAME", "name"),
    (lambda: Feature("a", "f32", "dep_delay"), "WRONG_TYPE", "transform"),  # type: ignore[arg-type]
    (lambda: Feature("a", "f32", latest("")), "REQUIRED", "transform.column"),
    (lambda: Feature("a", "f32", latest("a"), default=0), "WRONG_TYPE", "default"),
    (
        lambda: view(features=[Feature(f"f{i}", "list<f64,65535>", latest("a")) for i in range(3)]),
        "ROW_TOO_LARGE",
        "features",
    ),
]
SERVICES: list[Case] = [
    (lambda: service(entries=[]), "REQUIRED", "entries"),
    (lambda: ServiceEntry("traffic"), "INVALID_NAME", "feature_view"),
    (lambda: ServiceEntry("a.b.c@v0"), "INVALID_NAME", "feature_view"),
    (lambda: ServiceEntry("a.b.c", ["a", "a"]), "DUPLICATE_NAME", "features[1]"),
    (lambda: ServiceEntry("a.b.c", ["A"]), "INVALID_NAME", "features[0]"),
    (lambda: ServiceEntry("a.b.c", "abc"), "WRONG_TYPE", "features"),
    (lambda: ServiceEntry("a.b.c", (), {"a": "B"}), "INVALID_NAME", "join_key_mapping.a"),
    (lambda: ServiceEntry("a.b.c", (), {f"k{i}": "a" for i in range(9)}), "TOO_MANY", "join_key_mapping"),
    (lambda: ServiceEntry("a.b.c", output_prefix="Origin"), "INVALID_NAME", "output_prefix"),
    (lambda: ServiceEntry("a.b.c", output_prefix="a__"), "INVALID_NAME", "output_prefix"),
    (lambda: model(pins="flights.ml.delay"), "VERSION_REQUIRED", "feature_service"),
    (lambda: model(pins="delay@v1"), "INVALID_NAME", "feature_service"),
]
SETS: list[Case] = [
    (lambda: DefinitionSet(sources=[source(), source()]), "DUPLICATE_NAME", "sources[1].name"),
    (lambda: whole_set(entities=[entity(SOURCE)]), "DUPLICATE_NAME", "entities[0].name"),
    (lambda: DefinitionSet(sources=[entity()]), "WRONG_TYPE", "sources[0]"),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("make", "reason", "field"), COMMON + SOURCES + ENTITIES + VIEWS + SERVICES + SETS)
def test_wrong_definition_is_refused_with_reason_and_field(make: Callable[[], object], reason: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_types_are_given_as_text_or_value() -> None:
    assert Column("a", "list<f32,8>").type == Column("a", parse_type("list<f32,8>")).type
    assert isinstance(delay().type, ValueType)


def test_lists_are_copied_so_that_nothing_changes_later() -> None:
    features = [delay()]
    made = view(features=features)
    features.append(count())
    assert len(made.features) == 1
    with pytest.raises(FrozenInstanceError):
        made.ttl = None  # type: ignore[misc]


def test_equal_definitions_are_equal_and_hash_alike() -> None:
    assert whole_set() == whole_set()
    assert hash(view(tags={"a": "b"})) == hash(view(tags={"a": "b"}))
    assert view(features=[delay(default=float("nan"))]) == view(features=[delay(default=float("nan"))])


def test_etag_does_not_make_a_definition_another() -> None:
    assert view(etag="a") == view()


def test_lookups_find_by_name() -> None:
    wanted = whole_set()
    assert wanted.feature_views[0].feature("dep_delay") == delay()
    assert wanted.feature_views[0].feature("none") is None
    assert wanted.sources[0].column("spare") == Column("spare", COLUMNS["spare"])
    assert len(wanted) == 5


def test_entry_knows_its_view_and_request_columns() -> None:
    entry = ServiceEntry("a.b.c@v2", (), {"airport": "dest"})
    assert (entry.view.name, entry.view.version) == ("a.b.c", 2)
    assert (entry.request_column("airport"), entry.request_column("other")) == ("dest", "other")


def test_paths_of_nested_errors_are_joined() -> None:
    with pytest.raises(InvalidArgument) as caught, located("feature_views[2]"), located("features[0]"):
        Feature("a", "f33", latest("a"))
    assert caught.value.field == "feature_views[2].features[0].type"


def test_everything_public_is_named_and_sorted() -> None:
    names = headrace.definitions.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(headrace.definitions, name) for name in names)
    assert issubclass(FeatureView, headrace.definitions.Definition)
