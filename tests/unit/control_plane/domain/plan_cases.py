"""The table of plan outcomes: one case per kind of definition and change."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from control_plane.domain.plan import plan
from headrace.definitions import (
    ChangeKind,
    DefinitionSet,
    Fallback,
    Feature,
    RegistryState,
    ServiceEntry,
    SourceKind,
    latest,
)
from tests.unit.headrace.definitions.samples import (
    COLUMNS,
    SERVICE,
    SOURCE,
    VIEW,
    count,
    delay,
    entity,
    model,
    service,
    source,
    view,
    whole_set,
)

EARLIER = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 2, 1, tzinfo=UTC)
UNCHANGED, CREATE, NEW_VERSION = ChangeKind.UNCHANGED, ChangeKind.CREATE, ChangeKind.NEW_VERSION
UPDATE, REFUSED = ChangeKind.UPDATE, ChangeKind.REFUSED


def applied(*sets: DefinitionSet) -> RegistryState:
    state = RegistryState()
    for wanted in sets:
        made = plan(state, wanted, EARLIER)
        made.require_possible()
        state = made.after
    return state


def only(**kinds: Any) -> DefinitionSet:
    return DefinitionSet(**{kind: [definition] for kind, definition in kinds.items()})


BASE = applied(whole_set())


@dataclass(frozen=True)
class Case:
    name: str
    wanted: DefinitionSet
    change: ChangeKind
    version: int
    detail: str = ""
    reason: str = ""
    path: str = ""
    state: RegistryState = field(default_factory=lambda: BASE)


SOURCE_CASES = [
    Case("same", only(sources=source()), UNCHANGED, 0),
    Case(
        "owner within the team", only(sources=source(owner="flights.oncall")), UPDATE, 0, "owner changes from 'flights'"
    ),
    Case("text", only(sources=source(description="x")), UPDATE, 0, "description changes"),
    Case("tags", only(sources=source(tags={"a": "b"})), UPDATE, 0, "tag 'a' is added"),
    Case(
        "added column", only(sources=source(columns={**COLUMNS, "new": "f32"})), UPDATE, 0, "column 'new' of type f32"
    ),
    Case(
        "removed column that no view uses",
        only(sources=source(columns={name: kind for name, kind in COLUMNS.items() if name != "spare"})),
        UPDATE,
        0,
        "column 'spare' is removed",
    ),
    Case(
        "other type of a column that no view uses",
        only(sources=source(columns={**COLUMNS, "spare": "i64"})),
        UPDATE,
        0,
        "type of column 'spare' changes from 'i32' to 'i64'",
    ),
    Case("order of columns", only(sources=source(columns=dict(sorted(COLUMNS.items())))), UPDATE, 0, "their order"),
    Case(
        "availability delay",
        only(sources=source(availability_delay=timedelta(hours=1))),
        UPDATE,
        0,
        "availability delay changes from 0s to 1h",
    ),
    Case(
        "other type of a column in use",
        only(sources=source(columns={**COLUMNS, "dep_delay": "f64"})),
        REFUSED,
        0,
        "'dep_delay' changes its type from f32 to f64, and is in use by flights.ops.traffic@v1; "
        "this change is incompatible and needs a new name",
        "INCOMPATIBLE_CHANGE",
        "sources[0].columns",
    ),
    Case(
        "removed column in use",
        only(sources=source(columns={"event_time": "timestamp_us"})),
        REFUSED,
        0,
        "'dep_delay' is removed",
        "INCOMPATIBLE_CHANGE",
        "sources[0].columns",
    ),
    Case(
        "other kind in use",
        only(sources=source(kind=SourceKind.STREAM, uri="departures")),
        REFUSED,
        0,
        "kind changes from push to stream",
        "INCOMPATIBLE_CHANGE",
        "sources[0].kind",
    ),
    Case(
        "other event time in use",
        only(sources=source(columns={**COLUMNS, "at": "timestamp_us"}, event_time_column="at")),
        REFUSED,
        0,
        "event time column changes from 'event_time' to 'at'",
        "INCOMPATIBLE_CHANGE",
        "sources[0].event_time_column",
    ),
]
ENTITY_CASES = [
    Case("same", only(entities=entity()), UNCHANGED, 0),
    Case("text", only(entities=entity(description="x")), UPDATE, 0, "description changes"),
    Case(
        "other join keys",
        only(entities=entity(keys={"airport": "i64"})),
        REFUSED,
        0,
        "join keys change from airport string to airport i64",
        "INCOMPATIBLE_CHANGE",
        "entities[0].join_keys",
    ),
]
VIEW_CASES = [
    Case("same", only(feature_views=view()), UNCHANGED, 1),
    Case(
        "added feature",
        only(feature_views=view(features=[delay(), count()])),
        NEW_VERSION,
        2,
        "'flight_count' of type i64 is added",
    ),
    Case(
        "other ttl",
        only(feature_views=view(ttl=timedelta(days=2))),
        NEW_VERSION,
        2,
        "time to live changes from none to 2d",
    ),
    Case(
        "kept online", only(feature_views=view(offline=False)), NEW_VERSION, 2, "offline changes from 'true' to 'false'"
    ),
    Case("other fallback", only(feature_views=view(fallback=Fallback.DEFAULT)), NEW_VERSION, 2, "fallback changes"),
    Case(
        "other default",
        only(feature_views=view(features=[delay(default=0.0)])),
        NEW_VERSION,
        2,
        "default of feature 'dep_delay' changes from none to 0.0",
    ),
    Case("freshness limit", only(feature_views=view(freshness_sla=timedelta(hours=1))), UPDATE, 1, "none to 1h"),
    Case("owner within the team", only(feature_views=view(owner="flights.a")), UPDATE, 1, "owner changes"),
    Case(
        "text of a feature",
        only(feature_views=view(features=[delay(description="x")])),
        UPDATE,
        1,
        "description of feature 'dep_delay' changes",
    ),
    Case(
        "frozen and mutable parts at once",
        only(feature_views=view(ttl=timedelta(days=2), tags={"a": "b"})),
        NEW_VERSION,
        2,
        "tag 'a' is added",
    ),
    Case(
        "removed feature",
        only(feature_views=view(features=[count()])),
        REFUSED,
        1,
        "feature 'dep_delay' is removed; this change is incompatible and needs a new name",
        "INCOMPATIBLE_CHANGE",
        "feature_views[0].features",
    ),
    Case(
        "other type of a feature",
        only(
            sources=source(columns={**COLUMNS, "delay_64": "f64"}),
            feature_views=view(features=[Feature("dep_delay", "f64", latest("delay_64"))]),
        ),
        REFUSED,
        1,
        "type of feature 'dep_delay' changes from f32 in flights.ops.traffic@v1 to f64",
        "INCOMPATIBLE_CHANGE",
        "feature_views[0].features[0].type",
    ),
    Case(
        "other entity",
        only(entities=entity("flights.ops.other"), feature_views=view(entity="flights.ops.other")),
        REFUSED,
        1,
        "entity changes",
        "INCOMPATIBLE_CHANGE",
        "feature_views[0].entity",
    ),
    Case(
        "unknown entity",
        only(feature_views=view("flights.ops.new", entity="flights.ops.none")),
        REFUSED,
        0,
        "no entity 'flights.ops.none' is registered",
        "UNKNOWN_REFERENCE",
        "feature_views[0].entity",
    ),
    Case(
        "entity that is a source",
        only(feature_views=view("flights.ops.new", entity=SOURCE)),
        REFUSED,
        0,
        "it is a source",
        "UNKNOWN_REFERENCE",
        "feature_views[0].entity",
    ),
    Case(
        "unknown source",
        only(feature_views=view("flights.ops.new", source="flights.ops.none")),
        REFUSED,
        0,
        "no source 'flights.ops.none'",
        "UNKNOWN_REFERENCE",
        "feature_views[0].source",
    ),
    Case(
        "unknown column",
        only(feature_views=view("flights.ops.new", features=[Feature("a", "f32", latest("dep_dealy"))])),
        REFUSED,
        0,
        "did you mean 'dep_delay'",
        "UNKNOWN_COLUMN",
        "feature_views[0].features[0].transform",
    ),
    Case(
        "type other than the column's",
        only(feature_views=view("flights.ops.new", features=[Feature("a", "f64", latest("dep_delay"))])),
        REFUSED,
        0,
        "a type is never cast",
        "WRONG_TYPE",
        "feature_views[0].features[0].type",
    ),
    Case(
        "feature with the name of a join key",
        only(feature_views=view("flights.ops.new", features=[Feature("airport", "f32", latest("dep_delay"))])),
        REFUSED,
        0,
        "name of a join key",
        "RESERVED_NAME",
        "feature_views[0].features[0].name",
    ),
    Case(
        "name of another kind",
        only(feature_views=view(SOURCE)),
        REFUSED,
        0,
        "belongs to a source",
        "NAME_TAKEN",
        "feature_views[0].name",
    ),
]
TWICE = [ServiceEntry(VIEW, output_prefix="a_"), ServiceEntry(VIEW, (), {"airport": "dest"}, "b_")]
SERVICE_CASES = [
    Case("same, unpinned and unnamed", only(feature_services=service()), UNCHANGED, 1),
    Case("same, pinned", only(feature_services=service(entries=[ServiceEntry(f"{VIEW}@v1")])), UNCHANGED, 1),
    Case("same, named", only(feature_services=service(entries=[ServiceEntry(VIEW, ["dep_delay"])])), UNCHANGED, 1),
    Case("text", only(feature_services=service(description="x")), UPDATE, 1, "description changes"),
    Case(
        "one entity twice", only(feature_services=service(entries=TWICE)), NEW_VERSION, 2, "traffic@v1 as a_* is added"
    ),
    Case(
        "newer version of an unpinned view",
        DefinitionSet(feature_views=[view(features=[delay(), count()])], feature_services=[service()]),
        NEW_VERSION,
        2,
        "entry flights.ops.traffic@v2 is added",
    ),
    Case(
        "unknown view",
        only(feature_services=service(entries=[ServiceEntry("flights.ops.none")])),
        REFUSED,
        1,
        "no feature view 'flights.ops.none'",
        "UNKNOWN_REFERENCE",
        "feature_services[0].entries[0].feature_view",
    ),
    Case(
        "unknown version",
        only(feature_services=service(entries=[ServiceEntry(f"{VIEW}@v2")])),
        REFUSED,
        1,
        "its newest is v1",
        "UNKNOWN_REFERENCE",
        "feature_services[0].entries[0].feature_view",
    ),
    Case(
        "unknown feature",
        only(feature_services=service(entries=[ServiceEntry(VIEW, ["dep_dely"])])),
        REFUSED,
        1,
        "did you mean 'dep_delay'",
        "UNKNOWN_FEATURE",
        "feature_services[0].entries[0].features[0]",
    ),
    Case(
        "unknown join key",
        only(feature_services=service(entries=[ServiceEntry(VIEW, (), {"airprt": "dest"})])),
        REFUSED,
        1,
        "did you mean 'airport'",
        "UNKNOWN_JOIN_KEY",
        "feature_services[0].entries[0].join_key_mapping",
    ),
    Case(
        "output name twice",
        only(feature_services=service(entries=[ServiceEntry(VIEW), ServiceEntry(f"{VIEW}@v1", (), {"airport": "d"})])),
        REFUSED,
        1,
        "output name 'dep_delay' stands twice",
        "DUPLICATE_OUTPUT",
        "feature_services[0].entries[1].output_prefix",
    ),
    Case(
        "output name too long",
        only(feature_services=service(entries=[ServiceEntry(VIEW, output_prefix="a" * 127 + "_")])),
        REFUSED,
        1,
        "longer than 128",
        "TOO_LONG",
        "feature_services[0].entries[0].output_prefix",
    ),
    Case(
        "request column of two types",
        DefinitionSet(
            entities=[entity("flights.ops.tail", keys={"airport": "i64"})],
            feature_views=[view("flights.ops.planes", entity="flights.ops.tail")],
            feature_services=[
                service(entries=[ServiceEntry(VIEW), ServiceEntry("flights.ops.planes", output_prefix="plane_")])
            ],
        ),
        REFUSED,
        1,
        "request column 'airport' would be string for one entry and i64 for another",
        "WRONG_TYPE",
        "feature_services[0].entries[1].join_key_mapping",
    ),
    Case(
        "two join keys on one request column",
        DefinitionSet(
            entities=[entity("flights.ops.route", keys={"origin": "string", "dest": "string"})],
            feature_views=[view("flights.ops.routes", entity="flights.ops.route")],
            feature_services=[
                service("flights.ml.routes", entries=[ServiceEntry("flights.ops.routes", (), {"dest": "origin"})])
            ],
        ),
        REFUSED,
        0,
        "mapped to one request column",
        "DUPLICATE_NAME",
        "feature_services[0].entries[0].join_key_mapping",
    ),
    Case(
        "more features than an answer holds",
        DefinitionSet(
            sources=[source(columns={**COLUMNS, **{f"c{i}": "bool" for i in range(1_001)}})],
            feature_views=[
                view("flights.ops.wide", features=[Feature(f"c{i}", "bool", latest(f"c{i}")) for i in range(1_001)])
            ],
            feature_services=[
                service(
                    entries=[
                        ServiceEntry("flights.ops.wide", output_prefix="a_"),
                        ServiceEntry("flights.ops.wide", (), {"airport": "b"}, "b_"),
                    ]
                )
            ],
        ),
        REFUSED,
        1,
        "2002 features; at most 2000",
        "TOO_MANY",
        "feature_services[0].entries",
    ),
]
TWO_SERVICES = applied(whole_set(), only(feature_services=service(entries=TWICE)))
MODEL_CASES = [
    Case("same", only(models=model()), UNCHANGED, 1),
    Case("tags", only(models=model(tags={"a": "b"})), UPDATE, 1, "tag 'a' is added"),
    Case(
        "other service version",
        only(models=model(pins=f"{SERVICE}@v2")),
        NEW_VERSION,
        2,
        "feature service changes from 'flights.ml.delay@v1' to 'flights.ml.delay@v2'",
        state=TWO_SERVICES,
    ),
    Case(
        "unknown service",
        only(models=model(pins="flights.ml.none@v1")),
        REFUSED,
        1,
        "no feature service 'flights.ml.none'",
        "UNKNOWN_REFERENCE",
        "models[0].feature_service",
    ),
    Case(
        "unknown service version",
        only(models=model(pins=f"{SERVICE}@v2")),
        REFUSED,
        1,
        "its newest is v1",
        "UNKNOWN_REFERENCE",
        "models[0].feature_service",
    ),
]
CASES = [
    *(("source", case) for case in SOURCE_CASES),
    *(("entity", case) for case in ENTITY_CASES),
    *(("view", case) for case in VIEW_CASES),
    *(("service", case) for case in SERVICE_CASES),
    *(("model", case) for case in MODEL_CASES),
]
