"""Row groups of a result, whose columns several threads encode."""

from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from batch.historical.encoded import Encoded, encode_numbers, is_number
from batch.historical.encoded_file import encode_others
from batch.historical.parallel import WORKERS

WRITE_BATCH_ROWS: Final = 1 << 17  # the writer's own 1,024 cost a tenth of its time
WIDE_BATCH_ROWS: Final = 1_024  # a page holds a whole batch, whatever its values take


@dataclass(frozen=True, slots=True)
class StartedGroup:
    """The columns of a row group under way."""

    row_count: int
    names: list[str]
    numbers: "dict[int, Future[Encoded]]"
    others: "Future[list[list[Encoded]]] | None"

    def result(self) -> list[Encoded]:
        """All chunks in order, once they are there."""
        others = iter([] if self.others is None else self.others.result())
        out: list[Encoded] = []
        for at, name in enumerate(self.names):
            out += [self.numbers[at].result().named(name)] if at in self.numbers else next(others)
        return out


class GroupEncoder:
    """Encodes columns by workers of its own; those of `dictionaries`, and all that are no numbers, as Arrow does."""

    def __init__(self, schema: pa.Schema, dictionaries: Collection[str]) -> None:
        self._schema = schema
        self._dictionaries = list(dictionaries)
        self._numbers = [at for at, field in enumerate(schema) if is_number(field) and field.name not in dictionaries]
        self._others = [at for at in range(len(schema)) if at not in set(self._numbers)]
        is_narrow = all(pa.types.is_primitive(field.type) for field in schema)
        self._batch_rows = WRITE_BATCH_ROWS if is_narrow else WIDE_BATCH_ROWS
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="encode")

    def start(self, table: pa.Table) -> StartedGroup:
        """Begins with a row group."""
        others = None
        if self._others:
            others = self._pool.submit(encode_others, table.select(self._others), self._dictionaries, self._batch_rows)
        seen: dict[tuple[int, int] | None, Future[Encoded]] = {}
        numbers: dict[int, Future[Encoded]] = {}
        for at in self._numbers:
            field, column = self._schema.field(at), table.column(at)
            place = _place(column, field)
            numbers[at] = seen.get(place) or self._pool.submit(encode_numbers, field, column)
            if place is not None:
                seen[place] = numbers[at]
        return StartedGroup(table.num_rows, self._schema.names, numbers, others)

    def close(self) -> None:
        """Ends the workers; what they have not begun is left."""
        self._pool.shutdown(cancel_futures=True)


def _place(column: pa.ChunkedArray, field: pa.Field) -> tuple[int, int] | None:
    """Equal for columns that share their memory, as the statuses of the features of one view do."""
    if field.type != pa.uint8() or field.nullable or column.num_chunks != 1:
        return None
    return column.chunk(0).buffers()[1].address, column.chunk(0).offset
