"""Plans of views that look features of other views up for their events."""

from dataclasses import replace
from typing import Any

import pytest

from control_plane.domain.plan import plan
from control_plane.domain.retire import retire
from control_plane.store.records import name_row, pin_rows, record_of, version_row
from headrace.convert.registry import state_from_pb, state_to_pb
from headrace.definitions import (
    Change,
    ChangeKind,
    Column,
    DefinitionKind,
    DefinitionSet,
    Entity,
    EntityKey,
    Feature,
    FeatureView,
    OnDemandView,
    ServiceEntry,
    Source,
    SourceKind,
    derived,
    latest,
    load_yaml,
    to_yaml,
    window,
)
from headrace.definitions.enrichment import source_of
from headrace.definitions.functions import Function
from headrace.definitions.lookups import lookup_document, lookup_from_document, lookups_of, without_lookups
from headrace.definitions.plans import compile_plan, event_columns, plan_of
from headrace.definitions.registered import RegisteredView
from headrace.errors import FailedPrecondition
from headrace.names import VersionRef
from tests.unit.control_plane.domain.plan_cases import NOW, applied, only
from tests.unit.headrace import sample_functions

USER, ITEM, CATALOG, SPENDING = "shop.web.user", "shop.web.item", "shop.web.catalog", "shop.web.spending"
PRICES, CLICKS = "shop.web.prices", "shop.web.clicks"
LOOKUP = ServiceEntry(CATALOG, join_key_mapping={"item_id": "item"}, output_prefix="item_")
SPENT = Feature("spent", "f64", window("sum", "item_price * cast(amount as f64)", over="1h", hop="1m"))


def source(name: str, **columns: str) -> Source:
    given = {"event_time": "timestamp_us", **columns}
    return Source(name, owner="shop", columns=[Column(*one) for one in given.items()])


def entity(name: str, **keys: str) -> Entity:
    return Entity(name, owner="shop", join_keys=[EntityKey(*one) for one in keys.items()])


def view(name: str, **fields: Any) -> FeatureView:
    return FeatureView(name, **{"owner": "shop"} | fields)


def catalog(*more: Feature, **fields: Any) -> FeatureView:
    features = [Feature("price", "f64", latest("price"), default=1.0), Feature("label", "string", latest("label"))]
    return view(CATALOG, **{"entity": ITEM, "source": PRICES, "features": [*features, *more]} | fields)


def spending(*features: Feature, **fields: Any) -> FeatureView:
    given = {"entity": USER, "source": CLICKS, "features": features or [SPENT], "lookups": [LOOKUP]}
    return view(SPENDING, **given | fields)


def shop(**kinds: Any) -> DefinitionSet:
    given: dict[str, Any] = {
        "sources": [
            source(PRICES, item_id="string", price="f64", label="string"),
            source(CLICKS, user_id="i64", item="string", amount="i64", other="i64"),
        ],
        "entities": [entity(USER, user_id="i64"), entity(ITEM, item_id="string")],
        # A view stands before the one that it looks up: order in a set means nothing.
        "feature_views": [spending(), catalog()],
    }
    return DefinitionSet(**given | kinds)


BASE = applied(shop())


def registered(name: str, version: int = 1) -> RegisteredView:
    record = BASE.view(VersionRef(name, version))
    assert record is not None
    return record


def outcome(**kinds: Any) -> Change:
    return plan(BASE, only(**kinds), NOW).changes[-1]


def refusal(**kinds: Any) -> tuple[str, str, str]:
    first = plan(BASE, only(**kinds), NOW).problems[0]
    return first.reason, first.field, first.message


def test_lookups_are_pinned_and_name_what_is_read_and_every_key() -> None:
    (entry,) = registered(SPENDING).definition.lookups
    assert entry == ServiceEntry(f"{CATALOG}@v1", ["price"], {"item_id": "item"}, "item_")
    changes = plan(applied(shop(feature_views=[catalog()])), shop(), NOW).changes
    (change,) = [one for one in changes if one.name == SPENDING]
    assert change.details == (f"1 feature of {USER} from {CLICKS}, looking up {CATALOG}@v1 by item for item_price",)


def test_a_key_that_is_not_mapped_is_the_column_of_its_name() -> None:
    own = spending(entity=ITEM, lookups=[replace(LOOKUP, join_key_mapping={})])
    clicks = source(CLICKS, item_id="string", amount="i64")
    state = applied(shop(sources=[shop().sources[0], clicks], feature_views=[catalog(), own]))
    (entry,) = state.view(VersionRef(SPENDING)).definition.lookups  # type: ignore[union-attr]
    assert entry.join_key_mapping == {"item_id": "item_id"}


def test_the_plan_knows_what_events_bring_and_what_they_get() -> None:
    record = registered(SPENDING)
    made = plan_of(record, BASE)
    assert made.columns == {"item_price", "amount"}
    assert made.given == {"item", "amount"}
    assert event_columns(made, BASE.entities[USER].definition) == ("_known_time_1", "amount", "item", "item_price")


def test_the_same_set_changes_nothing_and_a_newer_view_makes_the_next_version() -> None:
    assert plan(BASE, shop(), NOW).after is BASE
    newer = catalog(Feature("copy", "f64", latest("price")))
    made = plan(BASE, shop(feature_views=[spending(), newer]), NOW)
    (change,) = [one for one in made.changes if one.name == SPENDING]
    assert (change.change_kind, change.version) == (ChangeKind.NEW_VERSION, 2)
    assert f"lookup of {CATALOG}@v2 by item for item_price is added" in change.details
    pinned = replace(LOOKUP, feature_view=f"{CATALOG}@v1")
    made = plan(BASE, shop(feature_views=[spending(lookups=[pinned]), newer]), NOW)
    assert [one.change_kind for one in made.changes if one.name == SPENDING] == [ChangeKind.UNCHANGED]


@pytest.mark.parametrize(
    "changed",
    [
        catalog(ttl=None, features=[Feature("price", "f64", latest("price"), default=2.0), *catalog().features[1:]]),
        catalog(filter="price > 0.0"),
    ],
)
def test_what_decides_a_looked_up_value_is_part_of_the_identity(changed: FeatureView) -> None:
    state = applied(shop(feature_views=[spending(), changed]))
    other = state.view(VersionRef(SPENDING))
    assert other is not None and other.transform_digest != registered(SPENDING).transform_digest


def test_the_identity_is_golden() -> None:
    golden = "9e02831acea41f219d00c716445981c7555765bf6e8766f5329e47ea1c0e7fbb"
    assert registered(SPENDING).transform_digest.hex() == golden


def test_definitions_travel_as_yaml_messages_and_rows(tmp_path: Any) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(to_yaml(shop()))
    assert load_yaml(file) == shop()
    assert state_from_pb(state_to_pb(BASE)) == BASE
    record = registered(SPENDING)
    assert record_of({**name_row([record]), **version_row(record)}) == record
    targets = [(row["pinned_name"], row["pinned_version"]) for row in pin_rows(record)]
    assert (CATALOG, 1) in targets


def test_an_enriched_source_stands_without_a_registry() -> None:
    record = registered(SPENDING)
    source_made = source_of(record, BASE)
    (lookup,) = lookups_of(source_made)
    assert lookup_from_document(lookup_document(lookup)) == lookup
    assert without_lookups(source_made) == BASE.sources[CLICKS].definition
    entity_made = BASE.entities[USER].definition
    assert compile_plan(record.definition, entity_made, source_made).digest == record.transform_digest


def test_a_view_that_is_looked_up_is_not_retired() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        retire(BASE, DefinitionKind.FEATURE_VIEW, f"{CATALOG}@v1", NOW)
    assert caught.value.reason == "PINNED"
    assert f"pinned by feature view {SPENDING}@v1" in caught.value.message
    after = retire(BASE, DefinitionKind.FEATURE_VIEW, f"{SPENDING}@v1", NOW).after
    assert retire(after, DefinitionKind.FEATURE_VIEW, f"{CATALOG}@v1", NOW).records


CASES: list[tuple[str, FeatureView, str, str, str]] = [
    ("unknown view", spending(lookups=[replace(LOOKUP, feature_view="shop.web.none")]), "UNKNOWN_REFERENCE",
     "lookups[0].feature_view", "no feature view 'shop.web.none'"),
    ("unknown version", spending(lookups=[replace(LOOKUP, feature_view=f"{CATALOG}@v7")]), "UNKNOWN_REFERENCE",
     "lookups[0].feature_view", "its newest is v1"),
    ("unknown feature", spending(lookups=[replace(LOOKUP, features=["prise"])]), "UNKNOWN_FEATURE",
     "lookups[0].features[0]", "did you mean 'price'"),
    ("unknown key", spending(lookups=[replace(LOOKUP, join_key_mapping={"item_di": "item"})]), "UNKNOWN_JOIN_KEY",
     "lookups[0].join_key_mapping", "did you mean 'item_id'"),
    ("no column for the key", spending(lookups=[replace(LOOKUP, join_key_mapping={"item_id": "itme"})]),
     "UNKNOWN_COLUMN", "lookups[0].join_key_mapping", "did you mean 'item'"),
    ("column of another type", spending(lookups=[replace(LOOKUP, join_key_mapping={"item_id": "other"})]),
     "WRONG_TYPE", "lookups[0].join_key_mapping", "item_id' of shop.web.catalog@v1 is string in column 'other'"),
    ("nothing read", spending(Feature("n", "i64", window("count", over="1h", hop="1m"))), "UNEXPECTED",
     "lookups[0]", "leave the lookup out"),
    ("reads itself", spending(lookups=[LOOKUP, ServiceEntry(SPENDING, output_prefix="own_")]), "CYCLE", "lookups",
     f"'{SPENDING}' reads itself: {SPENDING} reads {SPENDING}"),
    ("type of what is looked up", spending(Feature("price", "f32", latest("item_price"))), "WRONG_TYPE",
     "features[0].type", "a type is never cast"),
    ("expression over it", spending(Feature("spent", "i64", window("sum", "item_prise", over="1h", hop="1m"))),
     "UNEXPECTED", "lookups[0]", "reads a column item_"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "reason", "field", "part"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_lookup_that_does_not_fit_is_refused(wanted: FeatureView, reason: str, field: str, part: str) -> None:
    found = refusal(feature_views=wanted)
    assert found[:2] == (reason, f"feature_views[0].{field}")
    assert part in found[2]


def test_a_column_that_the_event_has_is_refused_as_name_of_a_lookup() -> None:
    clicks = source(CLICKS, user_id="i64", item="string", amount="i64", item_price="f64")
    made = plan(applied(shop(sources=[shop().sources[0], clicks], feature_views=[catalog()])), shop(sources=[]), NOW)
    assert [(one.reason, one.field) for one in made.problems] == [
        ("DUPLICATE_NAME", "feature_views[0].lookups[0].output_prefix")
    ]


def banded(**fields: Any) -> FeatureView:
    band = Function("band", "string", sample_functions.band, ["item_price"])
    return spending(Feature("band", "string", latest("band")), **{"functions": [band]} | fields)


def test_functions_over_what_is_looked_up_are_pinned_and_marked_as_not_native() -> None:
    made = plan(applied(shop(feature_views=[catalog()])), shop(feature_views=[banded()]), NOW)
    (change,) = [one for one in made.changes if one.name == SPENDING]
    assert f"function band string by {sample_functions.__name__}:band(item_price), source" in change.details[1]
    assert change.details[1].endswith("native: no")
    record = made.after.view(VersionRef(SPENDING))
    assert record is not None and record.definition.lookups[0].features == ("price",)
    planned = plan_of(record, made.after)
    assert planned.columns == {"band"} and planned.given == {"item"}
    columns = event_columns(planned, made.after.entities[USER].definition)
    assert columns == ("_known_time_1", "band", "item", "item_price")
    other = Function("band", "string", banded().functions[0].path, ["item_price"], digest="0" * 64)
    change = plan(made.after, only(feature_views=banded(functions=[other])), NOW).changes[-1]
    assert change.change_kind is ChangeKind.NEW_VERSION
    assert "source 000000000000, native: no is added" in "; ".join(change.details)
    assert plan(made.after, only(feature_views=banded()), NOW).changes[-1].change_kind is ChangeKind.UNCHANGED


@pytest.mark.parametrize(
    ("changed", "reason", "field"),
    [
        ({"columns": ["item_prise"]}, "UNKNOWN_COLUMN", "functions[0].columns[0]"),
        ({"name": "amount"}, "DUPLICATE_NAME", "functions[0].name"),
        ({"name": "user_id"}, "DUPLICATE_NAME", "functions[0].name"),
        ({"name": "unread"}, "UNEXPECTED", "functions[0]"),
        ({"type": "i64"}, "WRONG_TYPE", "features[1].type"),
    ],
)
def test_a_function_that_does_not_fit_is_refused(changed: dict[str, Any], reason: str, field: str) -> None:
    given = {"name": "band", "type": "string", "columns": ["item_price"]} | changed
    one = Function(given["name"], given["type"], sample_functions.band, given["columns"])
    features = [SPENT, Feature("band", "string", latest(one.name if one.name == "amount" else "band"))]
    wanted = spending(*features, functions=[one])
    assert refusal(feature_views=wanted)[:2] == (reason, f"feature_views[0].{field}")


def test_a_view_as_source_is_refused_with_the_way_to_read_it() -> None:
    reason, field, message = refusal(feature_views=spending(source=CATALOG, lookups=[]))
    assert (reason, field) == ("UNKNOWN_REFERENCE", "feature_views[0].source")
    assert message.endswith(
        f"it is a feature view: name its source '{PRICES}' and look the features of the view up, by lookups"
    )


def test_an_on_demand_view_is_not_looked_up() -> None:
    on_demand = OnDemandView("shop.web.dear", owner="shop", sources=[CATALOG],
                             features=[Feature("dear", "bool", derived("price > 9.0"))])  # fmt: skip
    state = applied(shop(on_demand_views=[on_demand]))
    looked_up = [replace(LOOKUP, feature_view="shop.web.dear")]
    wanted = spending(Feature("spent", "f64", latest("item_dear")), lookups=looked_up)
    (problem, *_) = plan(state, only(feature_views=wanted), NOW).problems
    assert (problem.reason, problem.field) == ("WRONG_KIND", "feature_views[0].lookups[0].feature_view")


def test_a_cycle_through_a_registered_view_is_refused() -> None:
    below = ServiceEntry(SPENDING, join_key_mapping={"user_id": "user_id"}, output_prefix="own_")
    back = catalog(Feature("spent", "f64", latest("own_spent")), lookups=[below])
    prices = source(PRICES, item_id="string", price="f64", label="string", user_id="i64")
    made = plan(BASE, DefinitionSet(sources=[prices], feature_views=[back]), NOW)
    (problem,) = made.problems
    assert problem.reason == "CYCLE"
    assert f"{CATALOG} reads {SPENDING} reads {CATALOG}" in problem.message


def test_columns_of_the_source_that_a_lookup_needs_are_in_use() -> None:
    gone = source(CLICKS, user_id="i64", amount="i64", other="i64")
    assert "'item' is removed, and is in use by shop.web.spending@v1" in "; ".join(outcome(sources=gone).details)
    clash = source(CLICKS, user_id="i64", item="string", amount="i64", other="i64", item_price="f64")
    assert refusal(sources=clash)[:2] == ("DUPLICATE_NAME", "sources[0].columns[5].name")


@pytest.mark.parametrize(
    ("wanted", "reason", "field"),
    [
        (spending(), "LOOKUPS_OF_STREAM", "lookups"),
        (
            spending(
                Feature("band", "string", latest("band")),
                functions=[Function("band", "string", sample_functions.band, ["amount"])],
                lookups=[],
            ),
            "FUNCTIONS_OF_STREAM",
            "functions",
        ),
    ],
    ids=["lookups", "functions"],
)
def test_a_view_of_a_stream_looks_nothing_up_and_calls_nothing(wanted: FeatureView, reason: str, field: str) -> None:
    prices, clicks = shop().sources
    streamed = replace(clicks, kind=SourceKind.STREAM, uri="kafka:clicks")
    made = plan(applied(shop(feature_views=[catalog()], sources=[prices, streamed])), only(feature_views=wanted), NOW)
    assert [(one.reason, one.field) for one in made.problems] == [(reason, f"feature_views[0].{field}")]
    assert CLICKS in made.problems[0].message
