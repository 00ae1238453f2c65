"""Arrow columns held by their buffers for the length of one call."""

from collections.abc import Sequence
from typing import NamedTuple, final

import pyarrow as pa

class ArrowColumn(NamedTuple):
    """Buffers of one Arrow array, as pyarrow.Array.buffers() gives them; `offset` in elements.

    The buffers must not change while a call reads them.
    """

    length: int
    offset: int
    validity: object | None
    values: object | None
    offsets: object | None
    child: ArrowColumn | None

def arrow_column(array: pa.Array) -> ArrowColumn:
    """Buffers of a pyarrow array of a type in headrace.types, slices included; large types are to be cast first."""

@final
class ArrowBuffers:
    """Holds the buffers of columns for the other cores, which read them in C."""

    def __init__(self, columns: Sequence[ArrowColumn]) -> None: ...
