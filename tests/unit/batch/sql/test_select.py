"""Sources that are a SELECT: what they give, in which types, and that they reach nothing but their inputs."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.offline import columns as system
from batch.sql import select as module
from batch.sql.select import selected, without_erased
from headrace.convert.definitions import source_from_pb, source_to_pb
from headrace.definitions import Column, DefinitionSet, Source, SourceKind, load_yaml, to_yaml
from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument
from headrace.names import VersionRef

UTC = pa.timestamp("us", "UTC")
QUERY = "SELECT user_id, max(event_time) AS event_time, sum(amount)::BIGINT AS total FROM orders GROUP BY user_id"


def source(query: str = QUERY, **fields: Any) -> Source:
    columns = [Column("user_id", "i64"), Column("event_time", "timestamp_us"), Column("total", "i64")]
    given: dict[str, Any] = {"kind": SourceKind.SQL, "columns": columns, "inputs": {"orders": "orders/*.parquet"}}
    return Source("shop.web.totals", owner="shop", query=query, **given | fields)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "orders").mkdir()
    for part, users in enumerate(([1, 1, 2], [2, 3])):
        count = len(users)
        table = pa.table(
            {
                "user_id": pa.array(users, pa.int32()),
                "event_time": pa.array(range(part * 10, part * 10 + count), UTC),
                "amount": pa.array(range(1, count + 1), pa.int64()),
            }
        )
        pq.write_table(table, tmp_path / "orders" / f"{part}.parquet")
    return tmp_path


def nothing(ref: VersionRef) -> pa.Table:
    raise AssertionError(f"no lake is read, and {ref} was")


def rows(wanted: Source, folder: Path, **options: Any) -> pa.Table:
    with selected(wanted, folder, options.pop("lake", nothing), **options) as reader:
        return reader.read_all()


def refused(wanted: Source, folder: Path, **options: Any) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        rows(wanted, folder, **options)
    return caught.value


def test_rows_come_in_the_declared_types(folder: Path) -> None:
    found = rows(source(), folder).sort_by("user_id")
    assert found.schema.types == [pa.int64(), UTC, pa.int64()]
    assert found["user_id"].to_pylist() == [1, 2, 3]
    assert found["total"].to_pylist() == [3, 4, 2]
    assert found["event_time"].cast(pa.int64()).to_pylist() == [1, 10, 11]


def test_names_that_the_select_makes_itself_are_no_inputs(folder: Path) -> None:
    made = "WITH big AS (FROM orders WHERE amount > 1), again AS (FROM big)"
    query = f"{made} SELECT *, amount AS total FROM again JOIN big USING (user_id, event_time, amount)"
    found = rows(source(query), folder)
    assert sorted(found["total"].to_pylist()) == [2, 2, 3]


def test_an_absolute_path_and_a_file_uri_are_read(folder: Path) -> None:
    for place in (f"{folder}/orders/*.parquet", f"file://{folder}/orders/*.parquet"):
        assert rows(source(inputs={"orders": place}), Path("/")).num_rows == 3


@pytest.mark.parametrize(
    ("query", "reason", "part"),
    [
        ("SELEC 1 FROM orders", "INVALID_SQL", "no SQL that DuckDB reads"),
        ("SELECT 1; SELECT 2 FROM orders", "NOT_ONE_SELECT", "2 statements"),
        ("INSERT INTO orders VALUES (1)", "NOT_ONE_SELECT", "INSERT; a source only reads"),
        ("COPY (SELECT * FROM orders) TO 'x.parquet'", "NOT_ONE_SELECT", "COPY"),
        ("ATTACH 'x.db'", "NOT_ONE_SELECT", "ATTACH"),
        ("SET threads = 1", "NOT_ONE_SELECT", "SET"),
        ("SELECT * FROM order_s", "UNKNOWN_INPUT", "did you mean 'orders'"),
        ("SELECT * FROM orders, '{folder}/orders/0.parquet'", "UNKNOWN_INPUT", "none of its inputs"),
        ("SELECT 1 AS user_id", "UNEXPECTED", "does not read the input 'orders'"),
        ("SELECT * FROM orders, read_parquet('{folder}/orders/0.parquet')", "SQL_FAILED", "Cannot access file"),
        ("SELECT * FROM orders, read_text('{folder}/orders/0.parquet')", "SQL_FAILED", "Cannot access file"),
        ("SELECT * FROM orders, glob('{folder}/*')", "SQL_FAILED", "Cannot access file"),
        ("SELECT nothing FROM orders", "SQL_FAILED", "nothing"),
        ("SELECT user_id, event_time FROM orders", "UNKNOWN_COLUMN", "gives no column 'total'; it gives user_id"),
        ("SELECT *, amount::DOUBLE AS total FROM orders", "WRONG_TYPE", "is double, and i64 is declared; cast it"),
        ("SELECT user_id, now()::TIMESTAMP AS event_time, amount AS total FROM orders", "WRONG_TYPE", "timestamp_us"),
        ("SELECT 9223372036854775807::UBIGINT + 1 AS total, user_id, event_time FROM orders", "WRONG_TYPE",
         "does not hold int64"),
        ("SELECT *, error('no such order')::BIGINT AS total FROM orders", "SQL_FAILED", "no such order"),
    ],
)  # fmt: skip
def test_what_is_no_select_over_its_inputs_is_refused(folder: Path, query: str, reason: str, part: str) -> None:
    error = refused(source(query.replace("{folder}", str(folder))), folder)
    assert error.reason == reason, error.message
    assert part in error.message


def test_no_variable_of_the_process_is_read(folder: Path) -> None:
    secret = pa.table({"user_id": [1]})
    assert refused(source("SELECT *, 1 AS total FROM secret JOIN orders USING (user_id)"), folder).reason == (
        "UNKNOWN_INPUT"
    )
    assert secret.num_rows == 1


def test_files_that_are_not_there_or_no_parquet_are_named(folder: Path) -> None:
    missing = refused(source(inputs={"orders": "none/*.parquet"}), folder)
    assert (missing.reason, missing.field) == ("FILE_NOT_READABLE", "inputs.orders")
    (folder / "orders" / "x.parquet").write_bytes(b"PAR1 not at all")
    broken = refused(source(inputs={"orders": "orders/x.parquet"}), folder)
    assert (broken.reason, broken.field) == ("FILE_NOT_READABLE", "inputs.orders")


def test_a_memory_limit_that_is_too_small_is_told(folder: Path) -> None:
    query = (
        "SELECT user_id, event_time, list(r)[1] AS total FROM orders, range(30000000) t(r) GROUP BY user_id, event_time"
    )
    error = refused(source(query), folder, memory_bytes=30_000_000)
    assert error.reason == "SQL_OUT_OF_MEMORY"


def test_without_the_engine_the_remedy_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_engine", lambda: False)
    error = refused(source(), folder)
    assert isinstance(error, FailedPrecondition) and "install headrace[sql]" in error.message


def lake_table(rows: list[tuple[int, int, int | None, bool]]) -> pa.Table:
    """User, event time, amount, tombstone."""
    users, times, amounts, gone = zip(*rows, strict=True)
    columns: dict[str, pa.Array] = {
        system.EVENT_TIME: pa.array(times, UTC),
        system.WRITE_TIME: pa.array(times, UTC),
        system.AVAILABLE_TIME: pa.array(times, UTC),
        system.SOURCE_ID: pa.array([0] * len(rows), pa.int64()),
        system.PARTITION: pa.array([0] * len(rows), pa.int32()),
        system.OFFSET: pa.array(range(len(rows)), pa.int64()),
        system.TOMBSTONE: pa.array(gone),
    }
    fields = [pa.field("user_id", pa.int64(), nullable=False), pa.field("amount", pa.int64())]
    fields += [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
    return pa.table([pa.array(users), pa.array(amounts, pa.int64()), *columns.values()], schema=pa.schema(fields))


def test_a_view_in_the_lake_is_read_without_what_was_erased(folder: Path) -> None:
    table = lake_table([(1, 5, 10, False), (2, 6, 20, False), (1, 7, None, True), (1, 6, 30, False), (1, 8, 40, False)])
    assert without_erased(table)["amount"].to_pylist() == [20, 40]
    query = f"SELECT user_id, {system.EVENT_TIME} AS event_time, amount AS total FROM v ORDER BY user_id"
    asked = []

    def lake(ref: VersionRef) -> pa.Table:
        asked.append(str(ref))
        return table

    found = rows(source(query, inputs={"v": "lake:shop.web.orders@v2"}), folder, lake=lake)
    assert found["total"].to_pylist() == [40, 20]
    assert asked == ["shop.web.orders@v2"]


def test_definitions_travel_in_every_form(tmp_path: Path) -> None:
    wanted = DefinitionSet(sources=[source()])
    (tmp_path / "set.yaml").write_text(to_yaml(wanted))
    assert load_yaml(tmp_path / "set.yaml") == wanted
    assert source_from_pb(source_to_pb(source())) == source()


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"query": ""}, "REQUIRED", "query"),
        ({"inputs": {}}, "REQUIRED", "inputs"),
        ({"inputs": {"Orders": "x"}}, "INVALID_NAME", "inputs"),
        ({"inputs": {"orders": ""}}, "REQUIRED", "inputs.orders"),
        ({"inputs": {"orders": "lake:shop.web.v"}}, "VERSION_REQUIRED", "inputs.orders"),
        ({"uri": "x"}, "UNEXPECTED", "uri"),
        ({"kind": SourceKind.PUSH}, "UNEXPECTED", "query"),
        ({"kind": SourceKind.PUSH, "query": ""}, "UNEXPECTED", "inputs"),
    ],
)
def test_a_definition_that_is_not_whole_is_refused(fields: dict[str, Any], reason: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        source(**fields)
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_erasures_hide_what_is_not_newer_for_every_key(seed: int) -> None:
    choose = random.Random(seed)
    for count in (1, 8, 300):
        names = [(choose.randrange(4), choose.choice(["", "a", "a\tb"])) for _ in range(count)]
        # Few moments, so that many rows are told apart by their offsets alone.
        times = [choose.randrange(5) for _ in range(count)]
        gone = [choose.random() < 0.2 for _ in range(count)]
        table = lake_table([(user, at, 7, erases) for (user, _), at, erases in zip(names, times, gone, strict=True)])
        shop = pa.field("shop", pa.string(), nullable=False)
        table = table.add_column(1, shop, pa.array([name for _, name in names]))
        hidden = {
            row
            for row in range(count)
            for other in range(count)
            if gone[other] and names[other] == names[row] and (times[other], other) >= (times[row], row)
        }
        kept = pa.array([row not in hidden for row in range(count)])
        chunked = pa.concat_tables([table.slice(0, count // 3), table.slice(count // 3)])
        for held in (table, chunked):
            assert without_erased(held).equals(table.filter(kept))
