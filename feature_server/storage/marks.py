"""A durable bit as a small checked file."""

from pathlib import Path
from typing import Final

from feature_server.storage.files import read_file, sync_folder, write_file
from headrace.errors import DataLoss, Unavailable

_SET: Final = b"whole"


class FileMark:
    """Set while the file is there and sound."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_set(self) -> bool:
        """Whether it is set; a damaged file is not."""
        try:
            return read_file(self._path) == _SET
        except DataLoss:
            return False

    def set(self) -> None:
        """Sets it."""
        write_file(self._path, _SET)

    def clear(self) -> None:
        """Clears it."""
        try:
            self._path.unlink(missing_ok=True)
            sync_folder(self._path.parent)
        except OSError as error:
            raise Unavailable(
                f"file {self._path} cannot be removed: {error.strerror}", reason="FILE_UNUSABLE"
            ) from error
