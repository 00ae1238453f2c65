"""What files, disks and Arrow raise, as errors of our tree: the one translator of the historical join."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as pa

from headrace.errors import DataLoss, FailedPrecondition, HeadraceError, InvalidArgument, ResourceExhausted

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def refused(reason: str, field: str, message: str) -> InvalidArgument:
    """The caller's mistake in one named field."""
    return InvalidArgument(f"{field}: {message}", reason=reason, field=field)


def changed(name: str) -> FailedPrecondition:
    """A file that is not what it was when the join began."""
    message = f"{name} vanished or was rewritten while the join read it; run the join again on files that stay"
    return FailedPrecondition(message, reason="FILE_CHANGED", metadata={"file": name})


@contextmanager
def reading(name: str, form: str = "Parquet") -> Iterator[None]:
    """Around every read of an input file."""
    try:
        yield
    except HeadraceError:
        raise
    except FileNotFoundError as error:
        raise changed(name) from error
    except (pa.ArrowException, OSError) as error:
        message = f"{name} cannot be read as {form}: {_line(error)}; restore the file, or leave it out"
        raise DataLoss(message, reason="CORRUPT_FILE", metadata={"file": name}) from error


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Around every write of results and spilled rows."""
    try:
        yield
    except HeadraceError:
        raise
    except OSError as error:
        full = error.errno in _FULL or "No space left" in str(error) or "File too large" in str(error)
        if full:
            message = f"{name} cannot be written, the disk is full: free some space, or name another folder"
            raise ResourceExhausted(message, reason="DISK_FULL", metadata={"file": name}) from error
        message = f"{name} cannot be written: {_line(error)}"
        raise FailedPrecondition(message, reason="CANNOT_WRITE", metadata={"file": name}) from error


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]
