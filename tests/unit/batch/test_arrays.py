"""Arrays of numbers without a copy, and that a join does not load pandas for them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.arrays import arrow_numbers, numbers_of

UTC_US: Final = pa.timestamp("us", "UTC")
RUN: Final = """
import runpy, sys
sys.argv = ["batch.historical", sys.argv[1]]
try:
    runpy.run_module("batch.historical", run_name="__main__")
except SystemExit as ended:
    sys.exit(ended.code or int("pandas" in sys.modules))
"""


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint8(), pa.uint32(), pa.int32(), UTC_US], ids=str)
@pytest.mark.parametrize(("start", "count"), [(0, 5), (2, 3), (5, 0)])
def test_numbers_are_those_of_the_slice(kind: pa.DataType, start: int, count: int) -> None:
    array = pa.array([7, 1, 5, 3, 9], pa.int64()).cast(kind).slice(start, count)
    assert numbers_of(array).tolist() == [7, 1, 5, 3, 9][start : start + count]


def test_an_empty_array_has_no_numbers() -> None:
    assert numbers_of(pa.array([], pa.int64())).dtype == np.int64


@pytest.mark.parametrize("values", [[], [1, 2, 255]])
def test_numbers_become_an_array(values: list[int]) -> None:
    assert arrow_numbers(np.array(values, np.uint8), pa.uint8()).equals(pa.array(values, pa.uint8()))


def test_a_join_does_not_load_pandas(tmp_path: Path) -> None:
    times = pa.array([1, 2], UTC_US)
    pq.write_table(pa.table({"id": [1, 2], "at": times}), tmp_path / "spine.parquet")
    pq.write_table(
        pa.table({"id": [1, 2], "at": times, "f": pa.array([1, 2], pa.float32())}), tmp_path / "rows.parquet"
    )
    view: dict[str, Any] = {"name": "v", "files": [str(tmp_path / "rows.parquet")], "event_time": "at"}
    view |= {"keys": [["id", "id", "i64"]], "columns": [["f", "f32"]]}
    job = {"spine": str(tmp_path / "spine.parquet"), "views": [view], "time_column": "at", "cutoff_us": 9}
    (tmp_path / "job.json").write_text(json.dumps(job | {"output": str(tmp_path / "out.parquet")}))
    words = [sys.executable, "-c", RUN, str(tmp_path / "job.json")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out.parquet")["v__f"].to_pylist() == [1, 2]
