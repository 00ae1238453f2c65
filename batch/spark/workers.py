"""What every function of ours inside a Spark worker does: holds the kernel to the driver's, names its refusals."""

import re
from collections.abc import Callable
from typing import Final, TypeVar

from headrace import errors
from headrace.definitions.transform import KERNEL_SEMANTICS_VERSION
from headrace.errors import FailedPrecondition, HeadraceError

Task = TypeVar("Task")
Done = TypeVar("Done")

# An error crosses from a worker as the text of its trace; its class and reason are read from the last line.
_REFUSAL: Final = re.compile(r"headrace\.errors\.(\w+): (.*) \[([A-Z0-9_]+)\]\s*$", re.MULTILINE)
_LACKING: Final = re.compile(r"No module named '(batch|core_ext|headrace|numpy|pyarrow)\b")


def held_to_kernel(work: Callable[[Task], Done], kernel: int = KERNEL_SEMANTICS_VERSION) -> Callable[[Task], Done]:
    """The work of a task. `kernel` is bound where the driver calls this, and compared where it runs."""

    def run(task: Task) -> Done:
        require_kernel(kernel)
        try:
            return work(task)
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


def translated(exc: Exception) -> Exception:
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
    message = " ".join(error.message.split())  # one line, by which the driver finds it
    return type(error)(f"{message} [{error.reason}]", reason=error.reason, field=error.field)
