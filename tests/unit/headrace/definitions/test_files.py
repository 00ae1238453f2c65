"""Definition files: Python, YAML, folders."""

from pathlib import Path

import pytest
from hypothesis import given

from headrace.definitions import DefinitionSet, Model, load, load_python, load_yaml, to_yaml
from headrace.definitions import files as module
from headrace.definitions.document_reading import set_from_document
from headrace.definitions.documents import set_document
from headrace.definitions.plans import compile_plan
from headrace.definitions.transform import canonical_json
from headrace.errors import InvalidArgument
from headrace.names import VersionRef
from tests.unit.control_plane.domain.plan_cases import applied
from tests.unit.headrace.definitions.samples import entity, sets, source, view, whole_set

PYTHON = """
from datetime import timedelta
from headrace.definitions import Column, Entity, EntityKey, Feature, FeatureView, Source, latest

departures = Source("flights.ops.departures", owner="flights",
                    columns=[Column("event_time", "timestamp_us"), Column("dep_delay", "f32")])
others = [Entity("flights.ops.airport", owner="flights", join_keys=[EntityKey("airport", "string")])]
again = departures
text = "not a definition"
"""


VIEW = "feature_views: [{name: a.b.c, owner: a, entity: a.b.d, source: a.b.e, "


@given(sets())
def test_yaml_text_comes_back_to_an_equal_set(tmp_path_factory: pytest.TempPathFactory, wanted: DefinitionSet) -> None:
    file = tmp_path_factory.mktemp("yaml") / "set.yaml"
    file.write_text(to_yaml(wanted), encoding="utf-8")
    assert load(file) == wanted


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "a\u2029", "a\r\nb", "\r", "a\n b", "\ufeff", "'\"", " a "])
def test_line_breaks_of_every_kind_come_back_from_yaml(tmp_path: Path, text: str) -> None:
    wanted = DefinitionSet(models=[Model("a.b.c", owner="a", feature_service="a.b.s@v1", description=f"x{text}y")])
    (tmp_path / "set.yaml").write_bytes(to_yaml(wanted).encode())
    assert load(tmp_path / "set.yaml") == wanted


@given(sets())
def test_document_comes_back_and_is_canonical_json(wanted: DefinitionSet) -> None:
    document = set_document(wanted)
    assert set_from_document(document) == wanted
    assert canonical_json(set_document(set_from_document(document))) == canonical_json(document)


@pytest.mark.parametrize("language", ["python", "yaml"])
def test_examples_of_the_guide_are_loaded_and_agree(tmp_path: Path, repository: Path, language: str) -> None:
    guide = (repository / "docs" / "definitions.md").read_text(encoding="utf-8")
    block = guide.split(f"```{language}\n")[1].split("```")[0]
    file = tmp_path / f"guide.{'py' if language == 'python' else 'yaml'}"
    file.write_text(block, encoding="utf-8")
    names = [definition.name for _, definition in load(file).located()]
    assert names == [
        "flights.ops.departures",
        "flights.ops.airport",
        "flights.ops.traffic",
        "flights.ml.delay",
        "flights.ml.departure_delay",
    ]


def test_examples_of_windows_agree_and_fit_their_source(tmp_path: Path, repository: Path) -> None:
    guide = (repository / "docs" / "definitions.md").read_text(encoding="utf-8")
    found = []
    for language, ending in (("python", "py"), ("yaml", "yaml")):
        for part in ("", " windows", " sessions"):
            file = tmp_path / f"{language}{len(part)}.{ending}"
            file.write_text(guide.split(f"```{language}{part}\n")[1].split("```")[0], encoding="utf-8")
        found += [load(tmp_path / f"{language}{length}.{ending}").feature_views[0] for length in (8, 9)]
    assert found[:2] == found[2:]
    base = load(tmp_path / "yaml0.yaml")
    counts = [len(compile_plan(one, base.entities[0], base.sources[0]).windows) for one in found[:2]]
    assert counts == [3, 4]


def test_examples_of_lookups_agree_and_are_registered(tmp_path: Path, repository: Path) -> None:
    guide = (repository / "docs" / "definitions.md").read_text(encoding="utf-8")
    for language, ending in (("python", "py"), ("yaml", "yaml")):
        file = tmp_path / f"lookups.{ending}"
        file.write_text(guide.split(f"```{language} lookups\n")[1].split("```")[0], encoding="utf-8")
    (tmp_path / "base.yaml").write_text(guide.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    assert load(tmp_path / "lookups.py") == load(tmp_path / "lookups.yaml")
    found = load(tmp_path / "lookups.py").feature_views[0]
    assert found.lookups[0].features == ("dep_delay",) and not found.is_plain
    state = applied(load(tmp_path / "base.yaml"), load(tmp_path / "lookups.yaml"))
    assert state.view(VersionRef(found.name)) is not None


def test_python_file_gives_what_stands_at_its_module_level_once(tmp_path: Path) -> None:
    file = tmp_path / "defs.py"
    file.write_text(PYTHON)
    found = load(file)
    assert [definition.name for _, definition in found.located()] == ["flights.ops.departures", "flights.ops.airport"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["defs.py"], "loading writes nothing"


def test_files_of_a_folder_import_each_other_and_are_merged(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "parts.py").write_text(PYTHON)
    (tmp_path / "views.py").write_text(
        "from common.parts import departures\n"
        "from headrace.definitions import Feature, FeatureView, latest\n"
        'traffic = FeatureView("flights.ops.traffic", owner="flights", entity="flights.ops.airport",\n'
        '                      source=departures.name, features=[Feature("dep_delay", "f32", latest("dep_delay"))])\n'
    )
    (tmp_path / "service.yaml").write_text(to_yaml(DefinitionSet(feature_services=whole_set().feature_services)))
    (tmp_path / ".hidden.yaml").write_text("[")
    (tmp_path / "notes.txt").write_text("no definitions")
    for _ in range(2):
        found = load(tmp_path)
        assert [len(kind) for kind in (found.sources, found.feature_views, found.feature_services)] == [1, 1, 1]


def test_loading_leaves_no_module_and_no_path_behind(tmp_path: Path) -> None:
    import sys

    (tmp_path / "parts_of_this_test.py").write_text("x = 1")
    file = tmp_path / "defs.py"
    file.write_text("import parts_of_this_test\nimport headrace.definitions\n")
    before = (set(sys.modules), list(sys.path))
    load(file)
    assert (set(sys.modules), list(sys.path)) == before


def test_same_name_defined_differently_in_two_files_is_refused_with_both(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(to_yaml(DefinitionSet(sources=[source()])))
    (tmp_path / "b.yaml").write_text(to_yaml(DefinitionSet(sources=[source(description="other")])))
    with pytest.raises(InvalidArgument) as caught:
        load(tmp_path)
    assert caught.value.reason == "DUPLICATE_NAME"
    assert "a.yaml" in caught.value.message and "b.yaml" in caught.value.message


@pytest.mark.parametrize(
    ("text", "reason", "field"),
    [
        ("modelz: []", "UNKNOWN_FIELD", "modelz"),
        ("sources: {}", "WRONG_TYPE", "sources"),
        ("sources: [5]", "WRONG_TYPE", "sources[0]"),
        ("- 1", "WRONG_TYPE", ""),
        ("models: [{name: a.b.c, owner: a}]", "REQUIRED", "models[0].feature_service"),
        ("models: [{name: a.b.c, owner: a, feature_service: }]", "REQUIRED", "models[0].feature_service"),
        ("models: [{name: 5, owner: a, feature_service: a.b.d@v1}]", "WRONG_TYPE", "models[0].name"),
        (
            VIEW + "features: [{name: x, type: f33, latest: x}]}]",
            "UNKNOWN_TYPE",
            "feature_views[0].features[0].type",
        ),
        (
            VIEW + "features: [{name: x, type: f32, latest: x, default: 1}]}]",
            "WRONG_TYPE",
            "feature_views[0].features[0].default",
        ),
        (
            VIEW + "features: [{name: x, type: timestamp_us, latest: x, default: 2013-01-01T00:00:00}]}]",
            "NAIVE_TIME",
            "feature_views[0].features[0].default",
        ),
        (
            VIEW + "ttl: 7, features: [{name: x, type: f32, latest: x}]}]",
            "INVALID_DURATION",
            "feature_views[0].ttl",
        ),
        (
            "sources: [{name: a.b.c, owner: a, kind: pusch, columns: [{name: event_time, type: timestamp_us}]}]",
            "UNKNOWN_VALUE",
            "sources[0].kind",
        ),
        (
            "sources: [{name: a.b.c, owner: a, columns: [{name: x, typ: f32}]}]",
            "UNKNOWN_FIELD",
            "sources[0].columns[0].typ",
        ),
        ("a: 1\na: 2", "INVALID_YAML", ""),
        ("[", "INVALID_YAML", ""),
        ("[" * 5_000, "INVALID_YAML", ""),
        ("x: !!python/object/apply:os.system [id]", "INVALID_YAML", ""),
        ("x: *unknown", "INVALID_YAML", ""),
        ("\x00", "INVALID_YAML", ""),
    ],
)
def test_wrong_yaml_is_refused_with_file_reason_and_field(tmp_path: Path, text: str, reason: str, field: str) -> None:
    file = tmp_path / "set.yaml"
    file.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        load_yaml(file)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert str(file) in caught.value.message


def test_unknown_field_is_answered_with_the_object_and_the_nearest_field(tmp_path: Path) -> None:
    file = tmp_path / "set.yaml"
    file.write_text("sources: [{name: a.b.c, owner: a, colums: []}]")
    with pytest.raises(InvalidArgument, match=r"'a\.b\.c'.*did you mean 'columns'"):
        load(file)


def test_nested_aliases_cost_no_more_than_their_text(tmp_path: Path) -> None:
    file = tmp_path / "set.yaml"
    levels = ["a: &a [x, x]"] + [
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]" for i in range(20)
    ]
    file.write_text("\n".join(levels))
    with pytest.raises(InvalidArgument) as caught:
        load(file)
    assert caught.value.reason == "UNKNOWN_FIELD"


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("\nraise RuntimeError('x')", "DEFINITION_FILE_FAILED", 2),
        ("import nothing_of_this_name", "DEFINITION_FILE_FAILED", 1),
        ("\n\n(", "DEFINITION_FILE_FAILED", 3),
        ("from headrace.definitions import Column\n\nColumn('a', 'f33')", "UNKNOWN_TYPE", 3),
    ],
)
def test_failing_python_file_is_named_with_its_line(tmp_path: Path, text: str, reason: str, line: int) -> None:
    file = tmp_path / "defs.py"
    file.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        load_python(file)
    assert caught.value.reason == reason
    assert f"{file}:{line}:" in caught.value.message


def test_python_file_with_a_name_twice_is_refused_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "defs.py"
    file.write_text(PYTHON + "twice = [Entity(departures.name, owner='flights', join_keys=others[0].join_keys)]\n")
    with pytest.raises(InvalidArgument, match="stands twice") as caught:
        load(file)
    assert str(file) in caught.value.message


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.yaml", None, "FILE_NOT_READABLE"),
        ("missing.py", None, "FILE_NOT_READABLE"),
        ("set.txt", b"", "UNKNOWN_FILE_TYPE"),
        ("set.yaml", b"\xff\xfe\x00", "INVALID_TEXT"),
    ],
)
def test_file_that_is_none_is_refused(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidArgument) as caught:
        load(tmp_path / name)
    assert caught.value.reason == reason


def test_empty_folder_is_refused_and_empty_file_is_an_empty_set(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(tmp_path)
    assert caught.value.reason == "NO_DEFINITIONS"
    (tmp_path / "empty.yaml").write_text("")
    assert load(tmp_path) == DefinitionSet()


def test_oversized_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "set.yaml"
    file.write_text("# " + "x" * 100)
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 100)
    with pytest.raises(InvalidArgument) as caught:
        load(file)
    assert caught.value.reason == "TOO_LONG"


def test_merge_keeps_the_order_of_files() -> None:
    first, second = DefinitionSet(entities=[entity()]), DefinitionSet(entities=[entity("flights.ops.a")])
    merged = module.merge([(Path("a"), first), (Path("b"), second), (Path("c"), first)])
    assert merged == DefinitionSet(entities=[entity(), entity("flights.ops.a")])
    assert view() not in merged.feature_views
