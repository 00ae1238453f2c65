"""Files of every form as the same rows, and clear errors for the others."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as pa_feather
import pyarrow.parquet as pa_parquet
import pytest

from control_plane.cli.tables import read_rows
from headrace.errors import InvalidArgument

SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.int64()),
        pa.field("event_time", pa.timestamp("us", tz="UTC")),
        pa.field("country", pa.string()),
        pa.field("visits", pa.int32()),
        pa.field("basket", pa.float64()),
    ]
)
ROWS = pa.table(
    {
        "user_id": [1, 2],
        "event_time": pa.array([datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=UTC)]),
        "country": ["DE", None],
        "visits": [3, None],
        "basket": [0.5, None],
    },
    SCHEMA,
)
CSV = """country,user_id,event_time,visits,basket,extra
DE,1,2026-01-01T00:00:00Z,3,0.5,x
,2,2026-01-01T02:00:00+01:00,,,x
"""


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        pa_parquet.write_table(ROWS.append_column("extra", pa.array([1, 2])), path)
    elif path.suffix == ".feather":
        pa_feather.write_feather(ROWS, str(path))
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
            writer.write_table(ROWS)
    elif path.suffix == ".csv":
        path.write_text(CSV)
    else:
        rows = [{**row, "event_time": row["event_time"].isoformat()} for row in ROWS.to_pylist()]
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def read(path: Path, schema: pa.Schema = SCHEMA) -> pa.Table:
    return pa.concat_tables(read_rows(path, schema).batches)


@pytest.mark.parametrize("name", ["r.parquet", "r.feather", "r.arrow", "r.csv", "r.jsonl", "r.ndjson"])
def test_every_form_holds_the_same_rows(tmp_path: Path, name: str) -> None:
    assert read(write(tmp_path / name)).equals(ROWS)


def test_row_count_is_known_where_the_file_says_it(tmp_path: Path) -> None:
    assert read_rows(write(tmp_path / "r.parquet"), SCHEMA).row_count == 2
    assert read_rows(write(tmp_path / "r.csv"), SCHEMA).row_count is None


def test_quoted_empty_text_is_text_and_unquoted_is_null(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text('country,user_id\n"",1\n,2\n')
    schema = pa.schema([SCHEMA.field("user_id"), SCHEMA.field("country")])
    assert read(tmp_path / "r.csv", schema)["country"].to_pylist() == ["", None]


def test_wider_integers_are_taken_when_they_fit_and_refused_when_not(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("visits", pa.int32())])
    pa_parquet.write_table(pa.table({"visits": pa.array([7], pa.int64())}), tmp_path / "r.parquet")
    assert read(tmp_path / "r.parquet", schema)["visits"].to_pylist() == [7]
    pa_parquet.write_table(pa.table({"visits": pa.array([2**40], pa.int64())}), tmp_path / "r.parquet")
    with pytest.raises(InvalidArgument, match="column visits does not hold int32"):
        read(tmp_path / "r.parquet", schema)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1.0]), pa.int64()),
        (pa.array([1]), pa.float64()),
        (pa.array([1.0]), pa.float32()),
        (pa.array([True]), pa.int32()),
        (pa.array([1]), pa.string()),
    ],
)
def test_other_types_are_never_cast(tmp_path: Path, column: pa.Array, kind: pa.DataType) -> None:
    pa_parquet.write_table(pa.table({"x": column}), tmp_path / "r.parquet")
    with pytest.raises(InvalidArgument, match="column x is") as caught:
        read(tmp_path / "r.parquet", pa.schema([pa.field("x", kind)]))
    assert caught.value.reason == "COLUMN_TYPE"


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet"])
def test_naive_times_are_refused_in_every_form(tmp_path: Path, name: str) -> None:
    path, schema = tmp_path / name, pa.schema([SCHEMA.field("event_time")])
    if path.suffix == ".parquet":
        pa_parquet.write_table(pa.table({"event_time": pa.array([0], pa.timestamp("us"))}), path)
    else:
        text = "2026-01-01T00:00:00"
        path.write_text(f"event_time\n{text}\n" if path.suffix == ".csv" else json.dumps({"event_time": text}))
    with pytest.raises(InvalidArgument) as caught:
        read(path, schema)
    assert caught.value.reason == "NAIVE_TIME"
    assert "event_time" in caught.value.message


def test_missing_column_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InvalidArgument, match="no column user_id; it has a, b") as caught:
        read(tmp_path / "r.csv")
    assert caught.value.reason == "COLUMN_MISSING"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("r.xlsx", b"", "FILE_FORM"),
        ("r.parquet", b"not parquet", "FILE_NOT_READABLE"),
        ("r.arrow", b"not arrow", "FILE_NOT_READABLE"),
        ("r.jsonl", b"{", "FILE_NOT_READABLE"),
        ("r.csv", b"user_id\n1,2\n", "FILE_NOT_READABLE"),
        ("r.csv", b"", "FILE_NOT_READABLE"),
        ("r.csv", b"user_id\nabc\n", "FILE_NOT_READABLE"),
    ],
)
def test_files_that_cannot_be_read_are_one_clear_error(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidArgument) as caught:
        read(tmp_path / name, pa.schema([SCHEMA.field("user_id")]))
    assert caught.value.reason == reason
    assert name in caught.value.message


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="is no file"):
        read_rows(tmp_path / "none.csv", SCHEMA)
