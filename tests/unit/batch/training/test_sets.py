"""Training sets over real tables: made, verified, rebuilt after the history went on, told apart."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.historical import FeatureColumn, HistoryInput, JoinReport, KeyColumn, join_to_parquet
from batch.offline.catalogue import Catalogue
from batch.offline.maintenance import compact, expire
from batch.training.manifest import DOCUMENT_BYTES_MAX, FeatureOrigin, Manifest, decode_manifest, differences
from batch.training.sets import MANIFEST_SUFFIX, TrainingSets
from batch.training.verify import verify
from headrace.errors import AlreadyExists, DataLoss, InvalidArgument, NotFound
from headrace.types import Scalar
from tests.unit.batch.offline.parts import NOW_US, VIEW, catalogue_of, range_of, rows_of

WANTED = {name: kind for name, kind in VIEW.features if name != "codes"}


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    table = opened.view_table(VIEW)
    table.append(rows_of(range(12)), [range_of(0, 12)])
    yield opened
    opened.close()


def join(catalogue: Catalogue, result: str, snapshot_id: int | None, cutoff_us: int = NOW_US) -> JoinReport:
    history = HistoryInput(
        name="profile",
        columns=tuple(FeatureColumn(name, kind) for name, kind in WANTED.items()),
        keys=(KeyColumn("user_id", "user_id", Scalar.I64), KeyColumn("site", "site", Scalar.STRING)),
        event_time="_event_time",
        write_time="_write_time",
        available_time="_available_time",
        source_id="_source_id",
        partition="_log_partition",
        offset="_offset",
        tombstone="_tombstone",
        rows=catalogue.view_table(VIEW).read(snapshot_id=snapshot_id),
    )
    spine = pa.table(
        {
            "user_id": [3, 4, 40, 5, 10],
            "site": ["a"] * 5,
            "at": pa.array([NOW_US + 200] * 5, pa.timestamp("us", "UTC")),
        }
    )
    return join_to_parquet(spine, [history], result, time_column="at", cutoff_us=cutoff_us)


def made(catalogue: Catalogue, folder: Path, name: str = "delays") -> Manifest:
    result = str(folder / "warehouse" / f"{name}.parquet")
    snapshot_id = catalogue.view_table(VIEW).snapshot_id
    assert snapshot_id is not None
    report = join(catalogue, result, snapshot_id)
    origins = tuple(
        FeatureOrigin(f"profile__{column}", str(kind), str(VIEW.ref), column, snapshot_id, "ab" * 32)
        for column, kind in WANTED.items()
    )
    return Manifest(
        name=name,
        run_id="run",
        create_time_us=NOW_US,
        cutoff_us=NOW_US,
        kernel_version="1",
        entity_digest="0" * 64,
        features=origins,
        result=result,
        row_count=report.rows,
        digest=report.digest.sha256,
        column_hashes=report.digest.columns,
    )


def test_set_verifies_and_is_rebuilt_after_the_history_went_on(catalogue: Catalogue, tmp_path: Path) -> None:
    manifest = made(catalogue, tmp_path)
    TrainingSets(catalogue).create(manifest)
    table = catalogue.view_table(VIEW)
    # A backfill, late rows, a merge and an expiry: the pinned snapshot holds what the set was made of.
    for number in range(5):
        table.append(rows_of([12 + number]), [range_of(12 + number, 13 + number)])
    compact(lambda: catalogue.load(VIEW.identifier))
    expire(lambda: catalogue.load(VIEW.identifier), 2**52)
    assert verify(manifest).is_same
    snapshot = manifest.snapshots[str(VIEW.ref)]
    again = join(catalogue, str(tmp_path / "again.parquet"), snapshot)
    assert (again.digest.sha256, again.digest.columns) == (manifest.digest, dict(manifest.column_hashes))


def test_changed_value_is_found_and_its_column_named(catalogue: Catalogue, tmp_path: Path) -> None:
    manifest = made(catalogue, tmp_path)
    rows = pq.read_table(manifest.result)
    place = rows.column_names.index("profile__age")
    changed = pa.array([value and value + 1 for value in rows["profile__age"].to_pylist()], pa.int32())
    pq.write_table(rows.set_column(place, "profile__age", changed), manifest.result)
    verdict = verify(manifest)
    assert (verdict.is_same, verdict.changed_columns) == (False, ("profile__age",))


def test_other_order_or_fewer_rows_are_found(catalogue: Catalogue, tmp_path: Path) -> None:
    manifest = made(catalogue, tmp_path)
    rows = pq.read_table(manifest.result)
    pq.write_table(rows.take([1, 0, 2, 3, 4]), manifest.result)
    verdict = verify(manifest)
    assert (verdict.is_same, verdict.changed_columns) == (False, ())
    pq.write_table(rows.slice(1), manifest.result)
    assert verify(manifest).row_count == 4
    assert not verify(manifest).is_same


def test_other_file_bytes_with_the_same_values_verify(catalogue: Catalogue, tmp_path: Path) -> None:
    manifest = made(catalogue, tmp_path)
    pq.write_table(pq.read_table(manifest.result), manifest.result, compression="zstd", row_group_size=2)
    assert verify(manifest).is_same


def test_missing_and_corrupt_results_give_an_error_and_no_verdict(catalogue: Catalogue, tmp_path: Path) -> None:
    manifest = made(catalogue, tmp_path)
    Path(manifest.result).write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(DataLoss):
        verify(manifest)
    Path(manifest.result).unlink()
    with pytest.raises(NotFound):
        verify(manifest)


def test_name_is_given_once(catalogue: Catalogue, tmp_path: Path) -> None:
    sets = TrainingSets(catalogue)
    assert sets.list() == []
    manifest = made(catalogue, tmp_path)
    sets.create(manifest)
    sets.create(manifest)
    assert sets.list() == [manifest]
    with pytest.raises(AlreadyExists):
        sets.create(dataclasses.replace(manifest, cutoff_us=1))
    assert decode_manifest(Path(manifest.result + MANIFEST_SUFFIX).read_bytes()) == manifest
    assert catalogue.view_table(VIEW).pins() == {"delays": manifest.snapshots[str(VIEW.ref)]}
    with pytest.raises(NotFound):
        sets.get("other")


def test_result_outside_the_roots_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    manifest = dataclasses.replace(made(catalogue, tmp_path), result=str(tmp_path / "elsewhere.parquet"))
    with pytest.raises(InvalidArgument):
        TrainingSets(catalogue).create(manifest)
    assert TrainingSets(catalogue).list() == []


def test_differences_name_what_changed_and_why(catalogue: Catalogue, tmp_path: Path) -> None:
    first = made(catalogue, tmp_path)
    late = rows_of([100])
    late = late.set_column(0, "user_id", pa.array([4]))
    catalogue.view_table(VIEW).append(late, [range_of(100, 101)])
    second = made(catalogue, tmp_path, "delays_later")
    found = differences(first, second)
    assert differences(first, dataclasses.replace(first, name="other")) == []
    assert {item.cause for item in found} == {"late events or backfill", "values"}
    changed = {item.what for item in found if item.cause == "values"}
    assert changed == {"profile__age values", "profile__name values", "profile__pair values"}
    fewer = [origin for origin in first.features if origin.feature != "age"]
    hashes = {origin.output: first.column_hashes[origin.output] for origin in fewer}
    other = dataclasses.replace(first, features=tuple(fewer), column_hashes=hashes, kernel_version="2")
    causes = {(item.what, item.cause) for item in differences(first, other)}
    assert causes == {("kernel", "code"), ("profile__age", "feature list")}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: data.replace(b'"row_count":5', b'"row_count":6'),
        lambda data: data.replace(b'"layout":1', b'"layout":2'),
        lambda data: b"[]",
        lambda data: b" " * (DOCUMENT_BYTES_MAX + 1),
    ],
    ids=["cut", "changed", "newer", "no object", "too long"],
)
def test_damaged_manifest_is_refused(catalogue: Catalogue, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    data = made(catalogue, tmp_path).encode()
    assert decode_manifest(data).encode() == data
    with pytest.raises(DataLoss):
        decode_manifest(damage(data))


@pytest.mark.parametrize(
    "change", [{"name": "Two words"}, {"digest": "xyz"}, {"features": ()}, {"column_hashes": {}}], ids=str
)
def test_impossible_manifests_are_refused(catalogue: Catalogue, tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        dataclasses.replace(made(catalogue, tmp_path), **change)  # type: ignore[arg-type]
