"""Pieces of Parquet pages as they are written: levels, numbers in runs, values without the null ones."""

import numpy as np
from numpy.typing import NDArray

RUN_BITS_MAX: int

def levels_of(validity: bytes | NDArray[np.uint8], offset: int, count: int) -> NDArray[np.uint8]:
    """A byte for each of `count` rows of a validity bitmap from `offset` on: 1, or 0 for null. Releases the GIL."""

def in_runs(numbers: NDArray[np.uint8], bits: int) -> bytes:
    """Numbers of `bits` bits as repeated and packed runs. Raises ValueError for a greater one. Releases the GIL."""

def present(values: NDArray[np.uint8], levels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """The values, of 4 or 8 bytes each, whose level is 1. Raises ValueError for another level. Releases the GIL."""

def numbered(values: NDArray[np.uint8]) -> tuple[bytes, NDArray[np.uint8]]:
    """The different bytes in ascending order, and the place of each byte among them. Releases the GIL."""
