"""Values of Parquet column chunks, taken out of their pages without decoding the rows that nobody wants."""

from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

CODECS: dict[str, int]
PLACES_MAX: int

class ChunkKind(NamedTuple):
    """A column chunk: bytes of a value, one of CODECS, whether its column may hold nulls, and its rows."""

    width: int
    codec: int
    is_nullable: bool
    row_count: int

@final
class Places:
    """Ascending rows of a chunk and the slots that their values go to, checked once for all columns."""

    count: int
    row_count: int
    slot_count: int

    def __init__(self, sources: NDArray[np.int64], targets: NDArray[np.int64], row_count: int, slot_count: int) -> None:
        """At most PLACES_MAX rows and slots. Raises ValueError for one that is out of range or order."""

@final
class PageReader:
    """Reads one chunk at a time and keeps the memory it needs for that; for one thread.

    Chunks are flat columns of 4 or 8 bytes a value. False: a page is damaged, or of a kind that is not read here, and
    what was written so far means nothing; a general reader decodes the chunk or says what is wrong with it.
    """

    def __init__(self, inflate: Callable[[memoryview, int], bytes] | None = None) -> None:
        """`inflate` gives the bytes of a zstd block, of the size given; without it such chunks are not read."""

    def take(
        self,
        kind: ChunkKind,
        chunk: bytes | memoryview | NDArray[np.uint8],
        places: Places,
        values: NDArray[np.uint8],
        nulls: NDArray[np.uint8],
    ) -> bool:
        """Copies the value at every source of a chunk into the slot of its target; `nulls` gets a 1 where it is null.

        The chunk has at least the rows of the places, and `values` and `nulls` exactly their slots.

        Threads may share `values` and `nulls` when their targets differ. Releases the GIL.
        """

    def read(self, kind: ChunkKind, chunk: bytes | memoryview | NDArray[np.uint8], values: NDArray[np.uint8]) -> bool:
        """All values of a chunk without nulls. Releases the GIL."""
