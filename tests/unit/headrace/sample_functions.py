"""Functions of views for the tests."""

import math

import pyarrow as pa
import pyarrow.compute as pc

LIMIT = 10.0
CALLS: list[int] = []


def _scaled(values: pa.Array) -> pa.Array:
    return pc.multiply(values, 2.0)


def band(batch: pa.RecordBatch) -> pa.Array:
    """Which of three bands a price is in, null without one."""
    prices = _scaled(batch.column(0))
    return pc.if_else(pc.less(prices, LIMIT), "low", pc.if_else(pc.less(prices, 5 * LIMIT), "middle", "high"))


def paid(batch: pa.RecordBatch) -> pa.Array:
    """Price by quantity, rounded down."""
    rows = zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
    return pa.array([None if None in row else math.floor(row[0] * row[1]) for row in rows], pa.int64())


def hour_of(batch: pa.RecordBatch) -> pa.Array:
    """The hour of a time as it comes."""
    return pc.hour(batch.column(0))


def so_far(batch: pa.RecordBatch) -> pa.Array:
    """A sum over rows before: no function of one row."""
    return pc.cumulative_sum(batch.column(0).fill_null(0))


def as_float(batch: pa.RecordBatch) -> pa.Array:
    """Another type than declared."""
    return batch.column(0).cast(pa.float32())


def shorter(batch: pa.RecordBatch) -> pa.Array:
    """Fewer values than rows."""
    return batch.column(0).drop_null()


def listed(batch: pa.RecordBatch) -> list[object]:
    """No array."""
    return list(batch.column(0).to_pylist())


def _text_of(count: int, ends: list[int], text: bytes) -> pa.Array:
    offsets = pa.array([0, *ends], pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.string(), count, [None, offsets, pa.py_buffer(text)])


def not_text(batch: pa.RecordBatch) -> pa.Array:
    """Bytes that are no UTF-8."""
    return _text_of(len(batch), list(range(1, len(batch) + 1)), b"\xff" * len(batch))


def past_its_end(batch: pa.RecordBatch) -> pa.Array:
    """A value that ends before it begins."""
    return _text_of(len(batch), [4, *[2] * (len(batch) - 1)], b"text")


def failing(batch: pa.RecordBatch) -> pa.Array:
    """Fails on any row."""
    if len(batch):
        raise KeyError("no such thing")
    return batch.column(0)


def remembering(batch: pa.RecordBatch) -> pa.Array:
    """Reads what calls before have left."""
    CALLS.append(len(batch))
    return batch.column(0)


def counting(batch: pa.RecordBatch) -> pa.Array:
    """Writes a global."""
    global LIMIT  # noqa: PLW0603 - what is refused
    LIMIT += 1.0
    return batch.column(0)


def generating(batch: pa.RecordBatch) -> object:
    """Returns no array."""
    yield batch.column(0)


def made() -> object:
    """A function around another one."""
    limit = 3

    def inner(batch: pa.RecordBatch) -> pa.Array:
        return pc.add(batch.column(0), limit)

    return inner


class Kept:
    """Methods are no functions at the top of a module."""

    def method(self, batch: pa.RecordBatch) -> pa.Array:
        """The first column."""
        return batch.column(0)
