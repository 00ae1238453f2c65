"""Small checked files that are replaced whole: bytes with a magic, a length and a checksum."""

import os
from pathlib import Path
from typing import Final

from core_ext.hashing import crc32c
from headrace.errors import DataLoss, HeadraceError, Unavailable

FILE_BYTES_MAX: Final = 128 << 20  # a registry is at most half of it

_MAGIC: Final = b"HRF1"
_NUMBER_BYTES: Final = 4
_HEADER_BYTES: Final = len(_MAGIC) + 2 * _NUMBER_BYTES
_TEMPORARY: Final = ".tmp"


def write_file(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Replaces a file: magic, u32 length, u32 CRC-32C of the data, the data. It is whole after a crash at any point.

    Without `sync` that holds for a crash of the process alone; reads of the disk then wait for nothing.
    """
    header = _MAGIC + len(data).to_bytes(_NUMBER_BYTES, "little") + crc32c(data).to_bytes(_NUMBER_BYTES, "little")
    temporary = path.with_name(path.name + _TEMPORARY)  # one left over from a crash is overwritten
    try:
        with temporary.open("wb") as file:
            file.write(header + data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        raise _failed(path, error) from error


def read_file(path: Path) -> bytes | None:
    """Data of a file, None where there is none; raises DataLoss where it is damaged."""
    try:
        with path.open("rb") as file:
            stored = file.read(FILE_BYTES_MAX + _HEADER_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed(path, error) from error
    data = stored[_HEADER_BYTES:]
    numbers = stored[len(_MAGIC) : _HEADER_BYTES]
    length, checksum = (int.from_bytes(numbers[at : at + _NUMBER_BYTES], "little") for at in (0, _NUMBER_BYTES))
    is_whole = len(stored) >= _HEADER_BYTES and len(data) == length
    if stored[: len(_MAGIC)] != _MAGIC or not is_whole or crc32c(data) != checksum:
        raise DataLoss(
            f"file {path.name} is damaged: its magic, length or checksum is wrong",
            reason="FILE_CORRUPT",
            metadata={"file": path.name},
        )
    return data


def sync_folder(path: Path) -> None:
    """Brings the names in a folder to stable storage; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(path: Path, error: OSError) -> HeadraceError:
    return Unavailable(
        f"file {path} cannot be used: {error.strerror}; check its folder's rights and space",
        reason="FILE_UNUSABLE",
        metadata={"file": path.name},
    )
