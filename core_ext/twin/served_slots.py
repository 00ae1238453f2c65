"""Twin of core_ext.served_slots: the values of an answer as the log of served answers keeps them."""

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from core_ext.twin import rules
from core_ext.twin.answers import Column, read_answer

VARIABLE: Final = 0
TEXTS: Final = -1


def read_slots(message: bytes, kinds: Sequence[int]) -> tuple[bytes, bytes, bytes, int, int, int]:
    """As core_ext.served_slots.read_slots; raises ValueError for bytes that are not such an answer."""
    answer = read_answer(message)
    if len(answer.columns) != len(kinds) or not kinds:
        raise ValueError("other columns than were selected")
    statuses, values = b"", []
    for column, kind in zip(answer.columns, kinds, strict=True):
        if not column.fits(answer.row_count, max(kind, 0)):
            raise ValueError("a column is not as it was selected")
        statuses += column.blocks[2]
        values += [_texts(part) if kind == TEXTS else part for part in _parts(column, kind, answer.row_count)]
    lengths = struct.pack(f"<{len(values)}I", *map(len, values))
    return statuses, lengths, b"".join(values), answer.row_count, answer.registry_revision, answer.read_time_us


def _parts(column: Column, kind: int, row_count: int) -> list[bytes]:
    values, offsets, statuses, _ = column.blocks
    if kind > 0:
        return [values[at * kind : (at + 1) * kind] if _is_held(status) else b"" for at, status in enumerate(statuses)]
    return [values[begin:end] for begin, end in pairwise(struct.unpack(f"<{row_count + 1}I", offsets))]


def _is_held(status: int) -> bool:
    state = status & rules.STATE_MASK
    return bool(
        state == rules.PRESENT or status & rules.DEFAULTED or (state == rules.EXPIRED and not status & rules.WITHHELD)
    )


def _texts(value: bytes) -> bytes:
    if not value:
        return b""
    try:
        (count,) = struct.unpack_from("<I", value)
        ends = struct.unpack_from(f"<{count}I", value, 4)
    except struct.error as error:
        raise ValueError("a list of texts is none") from error
    body = value[4 + 4 * count :]
    if list(ends) != sorted(ends) or (count and ends[-1] > len(body)):
        raise ValueError("a list of texts is none")
    return b"".join(struct.pack("<I", end - begin) + body[begin:end] for begin, end in pairwise([0, *ends]))
