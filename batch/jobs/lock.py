"""Lock on the data folder of the service, so that one process alone runs its jobs."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from headrace.errors import FailedPrecondition

FILE_NAME: Final = "jobs.lock"


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Holds the lock; raises FailedPrecondition where another process does. A killed process leaves none behind."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / FILE_NAME, "a+", encoding="ascii")  # noqa: SIM115 - closed below
    except OSError as error:
        raise FailedPrecondition(
            f"data folder {folder} cannot be written: {error.strerror}; choose another with --data",
            reason="DATA_FOLDER_NOT_WRITABLE",
            metadata={"folder": str(folder)},
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FailedPrecondition(
                f"data folder {folder} is in use by another process; stop it or choose another folder",
                reason="DATA_FOLDER_IN_USE",
                metadata={"folder": str(folder)},
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
