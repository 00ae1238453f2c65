"""What runs inside Spark's Python workers: Arrow in, Arrow out, values and slots by the compiled cores."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from pyspark.errors import PythonException
from pyspark.sql import DataFrame

from core_ext.arrow import arrow_column
from core_ext.hashing import SLOT_COUNT
from core_ext.keys import encode_keys
from headrace.definitions.transform import KERNEL_SEMANTICS_VERSION
from headrace.errors import FailedPrecondition, InternalError
from headrace.types import Scalar, ValueType

GROUP: Final = "_group"
GROUPS_MAX: Final = SLOT_COUNT  # a group is a range of slots


@dataclass(frozen=True)
class JoinKey:
    """A column that is part of an entity's key, with the type that decides its bytes."""

    column: str
    scalar: Scalar


def grouped(frame: DataFrame, keys: Sequence[JoinKey], groups: int) -> DataFrame:
    """The frame with one more column: the number of the slot range in which its entity lies."""
    if not 1 <= groups <= GROUPS_MAX:
        raise InternalError(f"groups must be 1 to {GROUPS_MAX}, not {groups}", reason="GROUPS_OUT_OF_RANGE")
    kernel = KERNEL_SEMANTICS_VERSION
    wanted = tuple(keys)

    def add(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return add_group(batches, wanted, groups, kernel)

    schema = ", ".join(f"`{field.name}` {field.dataType.simpleString()}" for field in frame.schema.fields)
    return frame.mapInArrow(add, f"{schema}, `{GROUP}` int")


def cogrouped(
    left: DataFrame, right: DataFrame, join: Callable[[pa.Table, pa.Table], pa.Table], schema: str
) -> DataFrame:
    """`join` of the rows of both frames, one slot range at a time: what a worker holds is one range of each."""
    return left.groupBy(GROUP).cogroup(right.groupBy(GROUP)).applyInArrow(join, schema)


def add_group(
    batches: Iterable[pa.RecordBatch], keys: Sequence[JoinKey], groups: int, kernel: int
) -> Iterator[pa.RecordBatch]:
    """Batches with the column GROUP. Raises ValueError naming column and row for a null or bad key."""
    require_kernel(kernel)
    for batch in batches:
        slots = slots_of(batch, keys)
        numbers = slots.astype(np.int32) * groups // SLOT_COUNT
        yield batch.append_column(GROUP, pa.array(numbers, pa.int32()))


def slots_of(batch: pa.RecordBatch, keys: Sequence[JoinKey]) -> "np.ndarray[tuple[int], np.dtype[np.uint16]]":
    """Slot of every row, the same number that the online store gives its entity."""
    columns = [batch.column(key.column).cast(ValueType(key.scalar).arrow) for key in keys]
    return encode_keys([key.scalar for key in keys], [arrow_column(column) for column in columns]).slots


def require_kernel(expected: int) -> None:
    """Raises FailedPrecondition when the worker's environment would compute other values than the driver's."""
    if expected != KERNEL_SEMANTICS_VERSION:
        raise FailedPrecondition(
            f"the driver has kernel semantics {expected}, this worker {KERNEL_SEMANTICS_VERSION}: "
            "install the same headrace on every worker",
            reason="KERNEL_VERSIONS_DIFFER",
            metadata={"driver": str(expected), "worker": str(KERNEL_SEMANTICS_VERSION)},
        )


def translated(exc: PythonException) -> FailedPrecondition | None:
    """What a worker's failure means where its environment is at fault, else None."""
    text = str(exc)
    for package in ("batch", "core_ext", "headrace"):
        if f"No module named '{package}" in text:
            return FailedPrecondition(
                f"the workers run a Python without {package}: install headrace[spark] where they run, and name that "
                "interpreter as worker_python",
                reason="WORKERS_WITHOUT_HEADRACE",
                field="worker_python",
                metadata={"package": package},
            )
    return None
