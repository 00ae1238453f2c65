"""Python functions of views: what pins them, what is refused, and what they give."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.convert.definitions import view_from_pb, view_to_pb
from headrace.definitions import DefinitionSet, Feature, FeatureView, latest, load_yaml, to_yaml
from headrace.definitions.functions import Function
from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument
from headrace.function_source import function_path, load_function, source_digest
from headrace.functions import MEASURED_ROWS, LoadedFunction, loaded_functions, made_up, measured
from headrace.types import Scalar, Shape, ValueType, parse_type
from tests.unit.headrace import sample_functions as sample

HERE = "tests.unit.headrace.sample_functions"
TYPES = {"price": parse_type("f64"), "quantity": parse_type("i64")}
MODULE = """
LIMIT = {limit}
OTHER = [1]


def helper(batch):
    return batch.column({column})


def used(batch):
    # {comment}
    return helper(batch).fill_null(LIMIT)


def apart(batch):
    return OTHER
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("sample_of_a_test")]:
        del sys.modules[name]


def digest_of(folder: Path, name: str, **fields: Any) -> str:
    module = f"sample_of_a_test_{name}"
    text = MODULE.format(**{"limit": 1.5, "column": 0, "comment": "x"} | fields)
    (folder / f"{module}.py").write_text(text)
    return source_digest(__import__(module).used)


def function(call: Any = sample.band, kind: str = "string", columns: tuple[str, ...] = ("price",)) -> Function:
    return Function("band", kind, call, columns)


def refused(call: Any) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        call()
    return caught.value


def test_the_digest_covers_the_function_and_what_it_names_in_its_module(folder: Path) -> None:
    base = digest_of(folder, "a")
    assert base == digest_of(folder, "b")
    others = [
        digest_of(folder, "limit", limit=2.5),
        digest_of(folder, "column", column=1),
        digest_of(folder, "comment", comment="y"),
    ]
    assert len({base, *others}) == 4


@pytest.mark.parametrize(
    ("call", "reason", "part"),
    [
        (lambda batch: batch.column(0), "NOT_A_FUNCTION", "top of a module"),
        (sample.made(), "NOT_A_FUNCTION", "top of a module"),
        (sample.Kept.method, "NOT_A_FUNCTION", "top of a module"),
        (len, "NOT_A_FUNCTION", "no Python function"),
        (sample.generating, "NOT_A_FUNCTION", "does not return its array"),
        (sample.remembering, "NOT_PURE", "'CALLS', a list that may change"),
        (sample.counting, "NOT_PURE", "writes the global 'LIMIT'"),
    ],
)
def test_what_cannot_be_pinned_is_refused(call: Any, reason: str, part: str) -> None:
    error = refused(lambda: function(call))
    assert (error.reason, error.field) == (reason, "function")
    assert part in error.message


def test_source_that_cannot_be_had_is_refused() -> None:
    names: dict[str, Any] = {"__name__": "made_of_text"}
    exec("def typed(batch):\n    return batch.column(0)\n", names)
    error = refused(lambda: function(names["typed"]))
    assert error.reason == "SOURCE_NOT_HAD" and "put it into a .py file" in error.message
    names["typed"].__module__ = "__main__"
    assert refused(lambda: function(names["typed"])).reason == "NOT_IMPORTABLE"


def test_functions_are_imported_from_allowed_modules_with_the_pinned_source_alone() -> None:
    digest = source_digest(sample.band)
    path = function_path(sample.band)
    assert path == f"{HERE}:band"
    for allowed in (None, frozenset({HERE}), frozenset({"tests.unit", "other"})):
        assert load_function(path, digest, allowed) is sample.band
    for allowed, wanted, at, reason in (
        (frozenset[str](), digest, path, "FUNCTION_NOT_ALLOWED"),
        (frozenset({"tests.uni"}), digest, path, "FUNCTION_NOT_ALLOWED"),
        (None, "0" * 64, path, "FUNCTION_CHANGED"),
        (None, digest, f"{HERE}:gone", "FUNCTION_NOT_FOUND"),
        (None, digest, "no.such.module:f", "FUNCTION_NOT_FOUND"),
    ):
        error = refused(lambda at=at, wanted=wanted, allowed=allowed: load_function(at, wanted, allowed))
        assert isinstance(error, FailedPrecondition) and error.reason == reason


def test_a_column_is_what_the_function_gives_and_of_the_declared_type() -> None:
    (made,) = loaded_functions([function()], TYPES, None)
    prices = pa.array([1.0, None, 20.0, 30.0])
    assert made.column({"price": prices, "more": prices}, 4).to_pylist() == ["low", None, "middle", "high"]


@pytest.mark.parametrize(
    ("call", "reason", "part"),
    [
        (sample.as_float, "FUNCTION_RESULT", "gave float, and f64 (double) is declared"),
        (sample.shorter, "FUNCTION_RESULT", "gave 1 values for 2 events"),
        (sample.listed, "FUNCTION_RESULT", "gave a list; it must return a pyarrow.Array"),
        (sample.failing, "FUNCTION_FAILED", "KeyError: 'no such thing'"),
    ],
)
def test_what_a_function_does_wrong_is_named(call: Any, reason: str, part: str) -> None:
    made = LoadedFunction(function(call, "f64"), call, {"price": TYPES["price"]})
    error = refused(lambda: made.column({"price": pa.array([1.0, None])}, 2))
    assert (error.reason, error.field) == (reason, "arrow_ipc")
    assert part in error.message and HERE in error.message


def test_another_type_is_refused_before_there_are_events() -> None:
    error = refused(lambda: loaded_functions([function(sample.as_float, "f64")], TYPES, None))
    assert isinstance(error, FailedPrecondition) and error.reason == "FUNCTION_RESULT"


def test_the_cost_is_measured_and_rows_stand_alone() -> None:
    (made,) = loaded_functions([Function("paid", "i64", sample.paid, ["price", "quantity"])], TYPES, None)
    cost = measured(made)
    assert cost.us_per_row is not None and 0 < cost.us_per_row < 1_000
    (sums,) = loaded_functions([function(sample.so_far, "f64")], TYPES, None)
    error = refused(lambda: measured(sums))
    assert error.reason == "NOT_ROW_BY_ROW"
    fails = LoadedFunction(function(sample.failing, "f64"), sample.failing, {"price": TYPES["price"]})
    assert measured(fails).us_per_row is None
    assert "no such thing" in measured(fails).note


def test_times_are_seen_in_utc_whatever_zone_they_came_in() -> None:
    (made,) = loaded_functions(
        [Function("hour", "i64", sample.hour_of, ["at"])], {"at": parse_type("timestamp_us")}, None
    )
    for zone in ("UTC", "Asia/Tokyo", "+02:00"):
        times = pa.array([0, 7_200_000_000], pa.timestamp("us", zone))
        assert made.column({"at": times}, 2).to_pylist() == [0, 2]


@pytest.mark.parametrize("scalar", Scalar)
@pytest.mark.parametrize(("shape", "size"), [(Shape.SINGLE, 0), (Shape.VARIABLE, 0), (Shape.FIXED, 3)])
def test_values_of_every_type_can_be_made_up(scalar: Scalar, shape: Shape, size: int) -> None:
    import numpy as np

    if shape is Shape.FIXED and scalar in {Scalar.STRING, Scalar.BYTES}:
        with pytest.raises(ValueError, match="fixed"):  # no type of ours: nothing is left out here
            ValueType(scalar, shape, size)
        return
    kind = ValueType(scalar, shape, size)
    found = made_up(kind, 100, np.random.default_rng(1))
    assert found.type == kind.arrow and len(found) == 100


def view(**fields: Any) -> FeatureView:
    given = {"entity": "shop.web.user", "source": "shop.web.clicks", "functions": [function()]}
    features = [Feature("band", "string", latest("band"))]
    return FeatureView("shop.web.v", **{"owner": "shop", "features": features} | given | fields)


def test_a_view_with_functions_travels_in_every_form(tmp_path: Path) -> None:
    wanted = DefinitionSet(feature_views=[view()])
    (tmp_path / "set.yaml").write_text(to_yaml(wanted))
    assert load_yaml(tmp_path / "set.yaml") == wanted
    assert view_from_pb(view_to_pb(view())) == view()
    assert not view().is_plain


@pytest.mark.parametrize(
    ("text", "reason", "field"),
    [
        ("digest: x", "INVALID_TEXT", "digest"),
        ("description: x", "UNKNOWN_FIELD", "description"),
        ("", "REQUIRED", "digest"),
    ],
)
def test_a_path_needs_its_digest(tmp_path: Path, text: str, reason: str, field: str) -> None:
    more = f", {text}" if text else ""
    (tmp_path / "set.yaml").write_text(
        "feature_views: [{name: a.b.c, owner: a, entity: a.b.d, source: a.b.e, "
        f"functions: [{{name: x, type: i64, function: 'm:f', columns: [y]{more}}}], "
        "features: [{name: x, type: i64, latest: x}]}]"
    )
    error = refused(lambda: load_yaml(tmp_path / "set.yaml"))
    assert (error.reason, error.field) == (reason, f"feature_views[0].functions[0].{field}")


def test_a_path_is_a_module_and_a_function() -> None:
    for path in ("m", "m:", ":f", "m:f.g", "m/n:f", "m: f"):
        with pytest.raises(InvalidArgument) as caught:
            Function("x", "i64", path, ["y"], digest="0" * 64)
        assert caught.value.reason == "INVALID_NAME"
    assert MEASURED_ROWS > 0


@pytest.mark.parametrize("call", [sample.not_text, sample.past_its_end])
def test_a_damaged_array_is_named(call: Any) -> None:
    made = LoadedFunction(function(call), call, {"price": TYPES["price"]})
    error = refused(lambda: made.column({"price": pa.array([1.0, None])}, 2))
    assert (error.reason, error.field) == ("FUNCTION_RESULT", "arrow_ipc")
    assert "gave an array that is damaged" in error.message and HERE in error.message
