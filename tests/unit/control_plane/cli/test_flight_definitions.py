"""The definitions of the demonstration: large enough, and the same in Python and YAML."""

from datetime import timedelta
from pathlib import Path

from control_plane.cli.demo import definitions as demo_definitions
from headrace.definitions import Window, load
from headrace.definitions.sets import KINDS

FOLDER = Path("examples/flights")
SHIPPED = load(Path(demo_definitions.__file__))


def test_python_and_yaml_examples_are_the_definitions_of_the_demo(repository: Path) -> None:
    for name in ("definitions.py", "definitions.yaml"):
        found = load(repository / FOLDER / name)
        for kind in KINDS:
            shipped = {definition.name: definition for definition in getattr(SHIPPED, kind)}
            assert {definition.name: definition for definition in getattr(found, kind)} == shipped, name


def test_service_has_two_hundred_features_and_one_entity_in_two_roles() -> None:
    views = {view.name: view for view in SHIPPED.feature_views}
    service = next(one for one in SHIPPED.feature_services if one.name == "flights.delay.departure")
    names = [
        f"{entry.output_prefix}{feature.name}"
        for entry in service.entries
        for feature in views[entry.view.name].features
    ]
    assert len(names) >= 200
    assert len(set(names)) == len(names)
    roles = {entry.request_column("airport") for entry in service.entries if entry.join_key_mapping.get("airport")}
    assert roles == {"origin", "dest"}


def test_windows_are_an_hour_to_thirty_days_of_four_entities() -> None:
    windows = {
        (view.entity, feature.transform.over)
        for view in SHIPPED.feature_views
        for feature in view.features
        if isinstance(feature.transform, Window)
    }
    spans = [timedelta(hours=1), timedelta(hours=6), timedelta(days=1), timedelta(days=7), timedelta(days=30)]
    assert windows == {(entity.name, span) for entity in SHIPPED.entities for span in spans}
