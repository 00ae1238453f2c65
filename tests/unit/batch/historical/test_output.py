"""Files of results: what their pages hold."""

from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch.historical.group_encoder import WIDE_BATCH_ROWS
from batch.historical.output import ResultFile, schema_of
from headrace.types import parse_type

FEATURES = [("text", parse_type("string")), ("vector", parse_type("list<f32,1024>"))]
VALUE_BYTES = 4_096
COUNT = 4 * WIDE_BATCH_ROWS


def first_page_bytes(file: Path, at: int) -> int:
    """Size of the page at an offset before compression: the second field of its header, in Thrift's compact form."""
    header = file.read_bytes()[at : at + 16]
    assert header[0] == 0x15, "an i32 is the first field, the kind of the page"
    place = 2
    assert header[place] == 0x15
    folded = shift = 0
    while True:
        place += 1
        folded |= (header[place] & 0x7F) << shift
        if header[place] < 0x80:
            return folded >> 1
        shift += 7


def test_pages_of_wide_values_are_small(tmp_path: Path, seed: int) -> None:
    file = tmp_path / "out.parquet"
    spine = pa.table({"n": pa.array(range(COUNT), pa.int64())})
    numbers = np.random.default_rng(seed).random((COUNT, VALUE_BYTES // 4), np.float32)
    statuses = pa.array(np.zeros(COUNT, np.uint8))
    texts = pa.array([f"{n:04d}" * (VALUE_BYTES // 4) for n in range(COUNT)])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), VALUE_BYTES // 4)
    arrays = [texts, statuses, vectors.cast(FEATURES[1][1].arrow), statuses]
    features = pa.Table.from_arrays(arrays, schema=schema_of(FEATURES))
    with ResultFile(str(file), spine.schema, FEATURES, UUID(int=1)) as result:
        result.write(spine, features)
    found = pq.read_table(file)
    assert found.equals(pa.Table.from_arrays([*spine.columns, *features.columns], schema=found.schema))
    group = pq.ParquetFile(file).metadata.row_group(0)
    for column in map(group.column, range(group.num_columns)):
        for at in filter(None, (column.dictionary_page_offset, column.data_page_offset)):
            assert first_page_bytes(file, at) <= 1.1 * WIDE_BATCH_ROWS * VALUE_BYTES, column.path_in_schema
