"""What every function of ours inside a Spark worker does: holds the kernel to the driver's, names its refusals."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import pyarrow as pa
from pyspark.errors import PythonException

from headrace import errors
from headrace.definitions.transform import KERNEL_SEMANTICS_VERSION
from headrace.errors import FailedPrecondition, HeadraceError

Streamed = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
Paired = Callable[[pa.Table, pa.Table], pa.Table]
Grouped = Callable[[pa.Table], pa.Table]

# An error crosses from a worker as the text of its trace; its class and reason are read from the last line.
_REFUSAL: Final = re.compile(r"headrace\.errors\.(\w+): (.*) \[([A-Z0-9_]+)\]\s*$", re.MULTILINE)
_LACKING: Final = re.compile(r"No module named '(batch|core_ext|headrace|numpy|pyarrow)\b")


def streamed(work: Streamed, kernel: int = KERNEL_SEMANTICS_VERSION) -> Streamed:
    """A function for mapInArrow. `kernel` is bound where the driver calls this, and compared where it runs."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        require_kernel(kernel)
        try:
            yield from work(batches)
        except HeadraceError as error:
            raise _named(error) from error

    return run


def of_pair(work: Paired, kernel: int = KERNEL_SEMANTICS_VERSION) -> Paired:
    """A function for the applyInArrow of a cogroup; else like `streamed`. Spark looks at the number of parameters."""

    def run(left: pa.Table, right: pa.Table) -> pa.Table:
        require_kernel(kernel)
        try:
            return work(left, right)
        except HeadraceError as error:
            raise _named(error) from error

    return run


def of_group(work: Grouped, kernel: int = KERNEL_SEMANTICS_VERSION) -> Grouped:
    """A function for the applyInArrow of one group; else like `streamed`."""

    def run(table: pa.Table) -> pa.Table:
        require_kernel(kernel)
        try:
            return work(table)
        except HeadraceError as error:
            raise _named(error) from error

    return run


def require_kernel(expected: int) -> None:
    """Raises FailedPrecondition when the worker's environment would compute other values than the driver's."""
    if expected != KERNEL_SEMANTICS_VERSION:
        raise _named(
            FailedPrecondition(
                f"the driver has kernel semantics {expected}, this worker {KERNEL_SEMANTICS_VERSION}: "
                "install the same headrace on every worker",
                reason="KERNEL_VERSIONS_DIFFER",
            )
        )


def translated(exc: PythonException) -> Exception:
    """A worker's failure as the error that it raised there, or that its environment stands for."""
    text = str(exc)
    if found := _REFUSAL.search(text):
        kind = getattr(errors, found[1], None)
        if isinstance(kind, type) and issubclass(kind, HeadraceError):
            return kind(found[2], reason=found[3])
    if lacking := _LACKING.search(text):
        return FailedPrecondition(
            f"the workers run a Python without {lacking[1]}: install headrace[spark] where they run, and name that "
            "interpreter as worker_python",
            reason="WORKERS_WITHOUT_HEADRACE",
            field="worker_python",
            metadata={"package": lacking[1]},
        )
    return exc


def _named(error: HeadraceError) -> HeadraceError:
    """The error with its reason in its text, which is all that crosses to the driver."""
    return type(error)(f"{error.message} [{error.reason}]", reason=error.reason, field=error.field)
