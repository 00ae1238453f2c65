"""Digest of result rows: SHA-256 over their canonical bytes, and a multiset hash per column."""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import final

import numpy as np
from numpy.typing import NDArray

from core_ext.arrow import ArrowColumn

PREAMBLE: bytes

@final
class RowDigest:
    """Takes the rows of a result in their order, in chunks of any size; file bytes never enter.

    A column is (name, (scalar, shape, list size, element bytes)). One thread at a time may update.
    """

    row_count: int

    def __init__(self, columns: Sequence[tuple[str, tuple[int, int, int, int]]]) -> None: ...
    def update(
        self,
        columns: Sequence[ArrowColumn],
        statuses: Sequence[NDArray[np.uint8]],
        hashing: Executor | None = None,
    ) -> None:
        """Takes rows as one Arrow column and one array of status bytes per column. Raises ValueError for bad buffers.

        A null stands for an empty slot. With `hashing` a thread of it hashes some rows while the next are laid out.
        """

    def hexdigest(self) -> str:
        """SHA-256 over the rows so far, in their order."""

    def column_hashes(self) -> list[int]:
        """Multiset hash of each column, whatever the order of its rows."""
