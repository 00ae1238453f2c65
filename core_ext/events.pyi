"""JSON events to Arrow buffers, many messages at a time."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from core_ext.arrow import ArrowColumn

REASONS: Final[Mapping[int, str]]
"""Words for the statuses of faults."""

class DecodedEvents(NamedTuple):
    """Columns of the messages that are events.

    `messages` are their places among those given; `faults` hold place, status and column of every other message, -1
    where no column is at fault.
    """

    columns: list[ArrowColumn]
    messages: NDArray[np.int64]
    faults: list[tuple[int, int, int]]

@final
class JsonDecoder:
    """Reads messages that are one JSON object each. Immutable; any number of threads may use one.

    Columns are names and types: scalar, shape, list size, and bytes of an element, 0 for STRING and BYTES. Members that
    are no column are passed over, missing ones and `null` are null; a member that stands twice is refused.
    Whole numbers lose no digit and floats are rounded once to f64, then to f32; BYTES are base64 text, TIMESTAMP_US
    whole microseconds or RFC 3339 with a zone, DATE whole days or YYYY-MM-DD. Nesting ends at 32.
    """

    @property
    def bytes_max(self) -> int: ...
    def __init__(self, columns: Sequence[tuple[str, tuple[int, int, int, int]]], bytes_max: int) -> None: ...
    def decode(self, payloads: Sequence[bytes]) -> DecodedEvents:
        """Columns of the messages that are events, and what is wrong with the others. Releases the GIL.

        Raises MemoryError where the columns of a batch exceed 1 GiB.
        """
