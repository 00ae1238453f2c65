"""Reads a result again and compares it with its manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch.historical.checks import names_of
from batch.historical.inputs import kind_of
from batch.historical.output import Digest
from batch.historical.tables import located
from batch.training.manifest import FeatureOrigin, Manifest
from core_ext.arrow import arrow_column
from core_ext.digest import RowDigest
from headrace.errors import DataLoss, NotFound

BATCH_ROWS: Final = 16_384  # held in memory at once


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a result is what its manifest says; the columns whose values or statuses are others."""

    is_same: bool
    row_count: int
    digest: str
    changed_columns: tuple[str, ...]


def verify(manifest: Manifest) -> Verdict:
    """Verdict over every row of the result, in bounded memory."""
    row_count, digest = digest_of(manifest.result, manifest.features)
    changed = [name for name, value in digest.columns.items() if manifest.column_hashes[name] != value]
    is_same = digest.sha256 == manifest.digest and row_count == manifest.row_count
    return Verdict(is_same, row_count, digest.sha256, tuple(changed))


def digest_of(uri: str, features: Sequence[FeatureOrigin]) -> tuple[int, Digest]:
    """Rows and digest of a result file. A file that cannot be read raises an error and gives no verdict."""
    digest = RowDigest([(origin.output, kind_of(origin.value_type)) for origin in features])
    columns = [name for origin in features for name in names_of(origin.output)]
    filesystem, path = located(uri)
    try:
        with filesystem.open_input_file(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=columns):
                _update(digest, batch, features)
    except FileNotFoundError as error:
        raise NotFound(f"the result {uri} is gone", reason="RESULT_MISSING", metadata={"result": uri}) from error
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise DataLoss(
            f"the result {uri} cannot be read: {error}", reason="RESULT_CORRUPT", metadata={"result": uri}
        ) from error
    names = [origin.output for origin in features]
    return digest.row_count, Digest(digest.hexdigest(), dict(zip(names, digest.column_hashes(), strict=True)))


def _update(digest: RowDigest, batch: pa.RecordBatch, features: Sequence[FeatureOrigin]) -> None:
    values, statuses = [], []
    for origin in features:
        value, status = names_of(origin.output)
        array = batch.column(value)
        if _element(array.type) != _element(origin.value_type.arrow):
            raise ValueError(f"column {value} is {array.type}, and {origin.type} was written")
        values.append(arrow_column(array))
        statuses.append(np.asarray(batch.column(status)))
    digest.update(values, statuses)


def _element(kind: pa.DataType) -> tuple[pa.DataType, int]:
    # Parquet keeps neither the name of a list's element nor, where a list is null, that elements are not.
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return kind.value_type, getattr(kind, "list_size", -1)
    return kind, 0
