"""Samples of served values: canonical bytes back as columns, thinned evenly, compared with references."""

import random
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.offline.roots import Roots
from batch.skew.canonical import column_of, value_bytes
from batch.skew.drift import Drift
from batch.skew.samples import (
    ROWS_MAX,
    Reference,
    Sample,
    Samples,
    judged,
    served_references,
    training_references,
)
from batch.skew.served import Answer, Served
from batch.training.manifest import FeatureOrigin, Manifest
from core_ext import rules
from headrace.errors import DataLoss
from headrace.names import FeatureRef
from headrace.types import Scalar, ValueType, parse_type

F64 = parse_type("f64")
NAME = "shop.users.activity@v1:basket"
REF = FeatureRef("shop.users.activity", 1, "basket")
SCALARS: dict[Scalar, st.SearchStrategy[Any]] = {
    Scalar.BOOL: st.booleans(),
    Scalar.I32: st.integers(-(2**31), 2**31 - 1),
    Scalar.I64: st.integers(-(2**63), 2**63 - 1),
    Scalar.F32: st.floats(width=32, allow_nan=False),
    Scalar.F64: st.floats(allow_nan=False),
    Scalar.STRING: st.text(max_size=5),
    Scalar.BYTES: st.binary(max_size=5),
    Scalar.TIMESTAMP_US: st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    Scalar.DATE: st.dates(date(1900, 1, 1), date(2200, 1, 1)),
}


@st.composite
def typed_columns(draw: st.DrawFn) -> tuple[ValueType, list[Any]]:
    scalar = draw(st.sampled_from(sorted(SCALARS)))
    form = draw(st.sampled_from(["{}", "list<{}>", "list<{},2>"]))
    if scalar in (Scalar.STRING, Scalar.BYTES):
        form = form.replace(",2", "")
    kind = parse_type(form.format(scalar.name.lower()))
    value = SCALARS[scalar]
    if form != "{}":
        value = st.lists(value, min_size=kind.list_size, max_size=kind.list_size or 3)
    return kind, draw(st.lists(st.none() | value, max_size=6))


@given(typed_columns())
def test_canonical_bytes_come_back_as_the_column_that_they_are_of(column: tuple[ValueType, list[Any]]) -> None:
    kind, values = column
    stored = [None if value is None else value_bytes(value, kind) for value in values]
    assert column_of(stored, kind).equals(pa.array(values, kind.arrow))


@pytest.mark.parametrize(
    ("kind", "stored"), [("f64", b"123"), ("string", b"\xff"), ("list<f64>", b"123"), ("list<string>", b"\x05\0\0\0a")]
)
def test_bytes_that_are_no_value_are_refused(kind: str, stored: bytes) -> None:
    with pytest.raises(DataLoss, match="is no"):
        column_of([stored], parse_type(kind))


def test_sample_is_thinned_evenly_and_keeps_count_of_all() -> None:
    sample = Sample(F64)
    total = 3 * ROWS_MAX + 17
    numbers = list(range(total))
    for first in range(0, total, 1_000):
        part = numbers[first : first + 1_000]
        sample.add([b"key"] * len(part), [value_bytes(float(number), F64) for number in part])
    held = pa.concat_arrays(sample.arrays).to_pylist()
    assert sample.row_count == total
    assert held == [float(number) for number in numbers[:: sample.stride]]
    assert ROWS_MAX // 2 < len(held) <= ROWS_MAX


def served(value: float | None, key: bytes = b"k", status: int = rules.PRESENT) -> Served:
    answer = Answer(status if value is not None else rules.MISSING, b"" if value is None else value_bytes(value, F64))
    return Served(key, REF, answer, 0, 0, 1, 0, 1, b"")


def test_empty_slots_are_nulls_and_what_could_not_be_read_is_nothing() -> None:
    samples = Samples({NAME: F64})
    unread = Served(b"k", REF, Answer(rules.UNAVAILABLE), 0, 0, 1, 0, 1, b"")
    other = Served(b"k", FeatureRef("shop.users.activity", 1, "unknown"), Answer(rules.NULL), 0, 0, 1, 0, 1, b"")
    defaulted = Served(b"k", REF, Answer(rules.MISSING | rules.DEFAULTED, value_bytes(0.5, F64)), 0, 0, 1, 0, 1, b"")
    samples.add([served(1.0), served(None), unread, other, defaulted])
    assert samples.by_feature.keys() == {NAME}
    assert pa.concat_arrays(samples.by_feature[NAME].arrays).to_pylist() == [1.0, None, 0.5]


def sampled(numbers: list[float | None], keys: int | None = None) -> Samples:
    samples = Samples({NAME: F64})
    samples.add(served(number, str(at % keys if keys else at).encode()) for at, number in enumerate(numbers))
    return samples


def normal(count: int, seed: int, shift: float = 0.0) -> list[float | None]:
    source = random.Random(seed)
    return [source.gauss(shift, 1) for _ in range(count)]


@pytest.mark.parametrize(("shift", "drift"), [(0.0, Drift.STEADY), (0.5, Drift.DRIFTED)])
def test_answers_served_before_are_a_reference(shift: float, drift: Drift) -> None:
    before = served_references(sampled(normal(5_000, 1)))
    [found] = judged(before, sampled(normal(2_000, 2, shift)))
    assert (found.feature, found.drift) == (NAME, drift)


def test_entities_that_repeat_themselves_are_worth_less() -> None:
    few = [number for number in normal(20, 3) for _ in range(100)]
    live = sampled([few[(at % 20) * 100] for at in range(2_000)], keys=20)
    assert live.by_feature[NAME].design_effect == 100
    before = served_references(sampled(normal(5_000, 1)))
    assert judged(before, live)[0].drift is not Drift.DRIFTED, "20 entities tell nothing"
    apart = sampled([few[(at % 20) * 100] for at in range(2_000)])
    assert judged(before, apart)[0].drift is Drift.DRIFTED, "2,000 would"


def test_training_set_is_a_reference(tmp_path: Path) -> None:
    result = tmp_path / "result.parquet"
    pq.write_table(pa.table({"spent": pa.array(normal(5_000, 1), pa.float64())}), result, row_group_size=700)
    origin = FeatureOrigin("spent", "f64", "shop.users.activity@v1", "basket", 1, "")
    manifest = Manifest("week", "run", 0, 0, "1", "0" * 64, (origin,), str(result), 5_000, "0" * 64, {"spent": 1})
    references = training_references(manifest, Roots([str(tmp_path)]))
    assert judged(references, sampled(normal(2_000, 2)))[0].drift is Drift.STEADY
    assert judged(references, sampled(normal(2_000, 2, 0.5)))[0].drift is Drift.DRIFTED
    result.write_bytes(b"no parquet")
    with pytest.raises(DataLoss, match="verify or rebuild"):
        judged(references, sampled(normal(2_000, 2)))


def test_feature_that_is_joined_twice_has_the_values_of_both_columns_as_reference(tmp_path: Path) -> None:
    result = tmp_path / "result.parquet"
    buyers, sellers = normal(1_500, 1), normal(1_500, 2, 4)
    table = pa.table({"buyer_spent": buyers, "score": normal(1_500, 3), "seller_spent": sellers})
    pq.write_table(table, result, row_group_size=700)
    origins = tuple(
        FeatureOrigin(output, "f64", "shop.users.activity@v1", feature, 1, "")
        for output, feature in (("buyer_spent", "basket"), ("score", "score"), ("seller_spent", "basket"))
    )
    counts = dict.fromkeys(table.column_names, 0)
    manifest = Manifest("week", "run", 0, 0, "1", "0" * 64, origins, str(result), 1_500, "0" * 64, counts)
    references = training_references(manifest, Roots([str(tmp_path)]))
    other = "shop.users.activity@v1:score"
    assert references.keys() == {NAME, other}
    assert pa.concat_arrays(references[other].columns).to_pylist() == table["score"].to_pylist()
    for _ in range(2):  # read from the beginning by every loop
        assert Counter(pa.concat_arrays(references[NAME].columns).to_pylist()) == Counter([*buyers, *sellers])
    both = [*normal(1_000, 4), *normal(1_000, 5, 4)]
    assert judged(references, sampled(both))[0].drift is Drift.STEADY
    assert judged(references, sampled(normal(2_000, 6, 4)))[0].drift is Drift.DRIFTED


def test_feature_of_another_type_or_without_a_reference_is_not_judged() -> None:
    live = sampled(normal(100, 1))
    assert judged({}, live) == []
    assert judged({NAME: Reference(parse_type("i64"), [pa.array([1])])}, live) == []
