"""Which rows of two results differ, feature by feature, read side by side in bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch.historical.checks import names_of
from batch.historical.tables import located
from batch.training.manifest import FeatureOrigin, Manifest
from headrace.errors import DataLoss, NotFound

BATCH_ROWS: Final = 16_384
EXAMPLES_MAX: Final = 5  # rows named of each feature


@dataclass(slots=True)
class ChangedRows:
    """One feature: how many rows hold another value or status, and the first of them, counted from 0."""

    output: str
    row_count: int = 0
    status_count: int = 0
    first_rows: list[int] = field(default_factory=list)

    def document(self) -> dict[str, Any]:  # Any: JSON values
        """JSON form."""
        counts = {"row_count": self.row_count, "status_count": self.status_count}
        return {"output": self.output, **counts, "first_rows": self.first_rows}


def changed_rows(first: Manifest, second: Manifest) -> list[ChangedRows]:
    """Every feature of both whose values differ in some row; both sets must be of the same entity rows."""
    other = {origin.output: origin for origin in second.features}
    shared = [one for one in first.features if one.output in other and other[one.output].type == one.type]
    differing = [one for one in shared if first.column_hashes[one.output] != second.column_hashes[one.output]]
    if not differing:
        return []
    found = [ChangedRows(origin.output) for origin in differing]
    names = [name for origin in differing for name in names_of(origin.output)]
    at = 0
    pairs = zip(_batches(first.result, names), _batches(second.result, names), strict=True)
    for ours, theirs in pairs:
        for origin, changed in zip(differing, found, strict=True):
            _compare(ours, theirs, origin, changed, at)
        at += ours.num_rows
    return [one for one in found if one.row_count]


def _compare(ours: pa.Table, theirs: pa.Table, origin: FeatureOrigin, changed: ChangedRows, at: int) -> None:
    value, status = names_of(origin.output)
    statuses = np.asarray(ours[status]) != np.asarray(theirs[status])
    values = _differ(ours[value].combine_chunks(), theirs[value].combine_chunks())
    rows = np.flatnonzero(statuses | values)
    changed.row_count += len(rows)
    changed.status_count += int(np.count_nonzero(statuses))
    room = EXAMPLES_MAX - len(changed.first_rows)
    changed.first_rows += [int(row) + at for row in rows[:room]]


def _differ(ours: pa.Array, theirs: pa.Array) -> NDArray[np.bool_]:
    """Rows that hold other values; every NaN is one value, and both zeros are two."""
    if pa.types.is_floating(ours.type):
        return (
            _bits(ours) != _bits(theirs) if not ours.null_count and not theirs.null_count else _by_value(ours, theirs)
        )
    return _by_value(ours, theirs)


def _bits(column: pa.Array) -> NDArray[np.int64]:
    numbers = np.array(column.to_numpy(zero_copy_only=False), np.float64)
    numbers[np.isnan(numbers)] = np.nan
    return numbers.view(np.int64)


def _by_value(ours: pa.Array, theirs: pa.Array) -> NDArray[np.bool_]:
    pairs = zip(ours.to_pylist(), theirs.to_pylist(), strict=True)
    return np.array([repr(one) != repr(other) for one, other in pairs], np.bool_)


def _batches(uri: str, names: Sequence[str]) -> Iterator[pa.Table]:
    """Tables of BATCH_ROWS rows, the last one shorter, whatever the row groups of the file."""
    filesystem, path = located(uri)
    held = None
    try:
        with filesystem.open_input_file(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=list(names)):
                rows = pa.Table.from_batches([batch])
                held = rows if held is None else pa.concat_tables([held, rows])
                while held.num_rows >= BATCH_ROWS:
                    yield held.slice(0, BATCH_ROWS)
                    held = held.slice(BATCH_ROWS)
    except FileNotFoundError as error:
        raise NotFound(f"the result {uri} is gone", reason="RESULT_MISSING", metadata={"result": uri}) from error
    except (OSError, pa.ArrowException, KeyError) as error:
        message = f"the result {uri} cannot be read: {error}"
        raise DataLoss(message, reason="RESULT_CORRUPT", metadata={"result": uri}) from error
    if held is not None and held.num_rows:
        yield held
