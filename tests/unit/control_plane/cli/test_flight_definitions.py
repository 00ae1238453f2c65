"""The definitions of the demonstration: large enough, and the same in Python and YAML."""

from pathlib import Path

from control_plane.cli.demo import definitions as demo_definitions
from headrace.definitions import load
from headrace.definitions.sets import KINDS

FOLDER = Path("examples/flights")
SHIPPED = load(Path(demo_definitions.__file__))


def test_python_and_yaml_examples_are_the_definitions_of_the_demo(repository: Path) -> None:
    for name in ("definitions.py", "definitions.yaml"):
        found = load(repository / FOLDER / name)
        for kind in KINDS:
            shipped = {definition.name: definition for definition in getattr(SHIPPED, kind)}
            assert {definition.name: definition for definition in getattr(found, kind)} == shipped, name


def test_service_has_forty_features_and_one_entity_in_two_roles() -> None:
    views = {view.name: view for view in SHIPPED.feature_views}
    (service,) = SHIPPED.feature_services
    names = [
        f"{entry.output_prefix}{feature.name}"
        for entry in service.entries
        for feature in views[entry.view.name].features
    ]
    assert len(names) >= 40
    assert len(set(names)) == len(names)
    roles = {entry.request_column("airport") for entry in service.entries if entry.join_key_mapping.get("airport")}
    assert roles == {"origin", "dest"}
