"""Lock on a data folder, so that one process alone writes there."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from headrace.serving import process

FILE_NAME: Final = "control_plane.lock"


def locked_folder(folder: Path) -> AbstractContextManager[None]:
    """Holds the lock; raises FailedPrecondition where another process does."""
    return process.locked_folder(folder, FILE_NAME)
