"""The result file: written in spine order under a temporary name, and visible only when complete."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from uuid import UUID

import pyarrow as pa

from batch.arrays import numbers_of, whole
from batch.historical.checks import names_of
from batch.historical.encoded_file import EncodedFile
from batch.historical.failures import writing
from batch.historical.group_encoder import GroupEncoder, StartedGroup
from batch.historical.inputs import HistoryInput, kind_of
from batch.historical.tables import located
from core_ext.arrow import arrow_column
from core_ext.digest import RowDigest
from headrace.types import Scalar, ValueType

_REPEATING: Final = {Scalar.STRING, Scalar.BYTES, Scalar.DATE, Scalar.I32, Scalar.BOOL}


@dataclass(frozen=True, slots=True)
class Digest:
    """Proof of the values and statuses of a result, whatever its file: SHA-256, and a multiset hash per feature."""

    sha256: str
    columns: dict[str, int]


def feature_schema(views: Sequence[HistoryInput]) -> pa.Schema:
    """Columns of the result that are looked up: each feature and its status."""
    return schema_of(features_of(views))


def features_of(views: Sequence[HistoryInput]) -> list[tuple[str, ValueType]]:
    """Features of the views in their order, as the result names them."""
    return [(view.output_of(column), column.type) for view in views for column in view.columns]


def schema_of(features: Sequence[tuple[str, ValueType]]) -> pa.Schema:
    """Columns of features: each and its status."""
    fields = []
    for name, kind in features:
        value, status = names_of(name)
        fields += [pa.field(value, kind.arrow), pa.field(status, pa.uint8(), nullable=False)]
    return pa.schema(fields)


class ResultFile:
    """A context manager: a body that ends well leaves the whole file under its name, any other leaves nothing."""

    def __init__(self, uri: str, spine: pa.Schema, features: Sequence[tuple[str, ValueType]], run_id: UUID) -> None:
        self._uri = uri
        self._filesystem, self._path = located(uri)
        self._under_way = f"{self._path}.{run_id.hex}.partial"
        self._names = [name for name, _ in features]
        self._digest = RowDigest([(name, kind_of(kind)) for name, kind in features])
        self._schema = pa.schema([*spine, *schema_of(features)])
        repeating = [name for name, kind in features if kind.scalar in _REPEATING]
        dictionaries = {*(field.name for field in spine if not _is_wide(field.type)), *repeating}
        self._digests = ThreadPoolExecutor(1, thread_name_prefix="digest")
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._encoder = GroupEncoder(self._schema, dictionaries)
        self._digesting: Future[None] | None = None
        self._started: StartedGroup | None = None

    def __enter__(self) -> Self:
        with writing(self._uri):
            self._sink = self._filesystem.open_output_stream(self._under_way)
            self._file = EncodedFile(self._sink, self._schema)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        complete = False
        try:
            if kind is None:
                self._finish()
                with writing(self._uri):
                    self._file.close()
                    self._sink.close()
                    self._filesystem.move(self._under_way, self._path)
                complete = True
        finally:
            for work in (self._digests.shutdown, self._hashing.shutdown, self._encoder.close):
                work()
            if not complete:
                self._drop()

    def _drop(self) -> None:
        for step in (self._sink.close, lambda: self._filesystem.delete_file(self._under_way)):
            try:
                step()
            except (OSError, pa.ArrowException):
                continue  # what failed was the disk, and the error under way says so

    def write(self, spine: pa.Table, features: pa.Table) -> None:
        """Adds rows in spine order; they are encoded and digested while those before them are written."""
        if features.num_rows == 0:
            return
        combined = features.combine_chunks()
        table = pa.Table.from_arrays([*spine.columns, *combined.columns], schema=self._schema)
        started = self._encoder.start(table)
        digesting = self._digests.submit(self._update, combined)
        self._finish()
        self._started, self._digesting = started, digesting

    def _finish(self) -> None:
        """Writes the rows under way."""
        if self._started is not None:
            with writing(self._uri):
                self._file.write(self._started.result(), self._started.row_count)
        if self._digesting is not None:
            self._digesting.result()
        self._started = self._digesting = None

    def _update(self, features: pa.Table) -> None:
        arrays = [whole(column) for column in features.columns]
        values = [arrow_column(array) for array in arrays[::2]]
        self._digest.update(values, [numbers_of(array) for array in arrays[1::2]], self._hashing)

    def digest(self) -> Digest:
        """Digest of the rows written; after the file is complete."""
        return Digest(self._digest.hexdigest(), dict(zip(self._names, self._digest.column_hashes(), strict=True)))


def _is_wide(kind: pa.DataType) -> bool:
    """Numbers and times of 64 bits: ids and instants seldom repeat enough for a dictionary to be less than they are."""
    return pa.types.is_primitive(kind) and not pa.types.is_boolean(kind) and kind.bit_width >= 64
