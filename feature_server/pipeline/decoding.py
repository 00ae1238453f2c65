"""Payloads of many messages to the columns of their source; what cannot be decoded is told apart one by one."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.types import ValueType

EVENT_BYTES_MAX: Final = 1 << 20  # of one event; what is larger is no event but a document
ROWS_PER_MESSAGE_MAX: Final = 1 << 20  # of an Arrow message: row numbers take 20 bits of a position


class Rejected(NamedTuple):
    """A message, counted in its batch, that is no event of the source."""

    message: int
    reason: str
    detail: str


class Decoded(NamedTuple):
    """Columns of all events, and of each the message that it came from and its row there; messages ascend."""

    columns: Mapping[str, pa.Array]
    messages: NDArray[np.int64]
    rows: NDArray[np.int64]
    rejected: Sequence[Rejected]


class Decoder(Protocol):
    """Decodes messages of one source; gives up the interpreter where that pays."""

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        """Columns with the types that they were asked for in."""


def single(columns: Mapping[str, pa.Array], messages: NDArray[np.int64], rejected: Sequence[Rejected]) -> Decoded:
    """What messages of one event each became."""
    return Decoded(columns, messages, np.zeros(len(messages), np.int64), rejected)


def oversized(payloads: Sequence[bytes], bytes_max: int) -> list[Rejected]:
    """Messages that are too large to be looked at."""
    return [
        Rejected(place, "EVENT_TOO_LARGE", f"{len(payload)} bytes, and an event has at most {bytes_max}")
        for place, payload in enumerate(payloads)
        if len(payload) > bytes_max
    ]


def arrow_schema(columns: Mapping[str, ValueType]) -> pa.Schema:
    """Columns as decoders give them."""
    return pa.schema([(name, kind.arrow) for name, kind in columns.items()])
