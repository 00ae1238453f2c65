"""Twin of core_ext.answers: an answer of GetOnlineFeatures read field by field."""

import math
import struct
from dataclasses import dataclass, field

from core_ext.twin.rules import DEFAULTED, EXPIRED, PRESENT, STATE_MASK, WITHHELD
from core_ext.wire import fields, int32_of, typed_fields, unsigned_to_signed

_DELIMITED, _VARINT = 2, 0


@dataclass
class Column:
    """One column; `blocks` are values, offsets, statuses and event times."""

    name: str = ""
    blocks: list[bytes] = field(default_factory=lambda: [b""] * 4)
    value_type: list[int] = field(default_factory=lambda: [0] * 3)

    def fits(self, row_count: int, slot_bytes: int) -> bool:
        """Whether the blocks have the sizes that the rows ask for; slot_bytes is 0 where a value's size varies."""
        values, offsets, statuses, event_times = self.blocks
        if len(statuses) != row_count or len(event_times) not in {0, 8 * row_count}:
            return False
        if slot_bytes:
            return not offsets and len(values) == row_count * slot_bytes
        if len(offsets) != 4 * (row_count + 1):
            return False
        ends = struct.unpack(f"<{row_count + 1}I", offsets)
        return ends[0] == 0 and ends[-1] == len(values) and list(ends) == sorted(ends)


@dataclass
class Answer:
    """A whole answer."""

    columns: list[Column] = field(default_factory=list)
    row_count: int = 0
    registry_revision: int = 0
    read_time_us: int = 0


def read_answer(message: bytes) -> Answer:
    """The answer; raises ValueError for bytes that are none."""
    out = Answer()
    heads = {2: "row_count", 3: "registry_revision", 4: "read_time_us"}
    for number, kind, value in typed_fields(message):
        if number == 1 and kind == _DELIMITED and isinstance(value, bytes):
            out.columns.append(_column(value))
        elif number in heads and kind == _VARINT and isinstance(value, int):
            setattr(out, heads[number], unsigned_to_signed(value))
    return out


def floats(answer: Answer, slot_bytes: int) -> bytes:
    """Values of every column one after another, NaN where there is none; of columns that fit slots of 4 or 8 bytes."""
    nan = struct.pack("<f" if slot_bytes == 4 else "<d", math.nan)
    out = []
    for column in answer.columns:
        values, _, statuses, _ = column.blocks
        slots = [values[at : at + slot_bytes] for at in range(0, len(values), slot_bytes)]
        out += [slot if _is_served(status) else nan for slot, status in zip(slots, statuses, strict=True)]
    return b"".join(out)


def _is_served(status: int) -> bool:
    state = status & STATE_MASK
    return state == PRESENT or bool(status & DEFAULTED) or (state == EXPIRED and not status & WITHHELD)


def _column(data: bytes) -> Column:
    out = Column()
    for number, value in fields(data, 1):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            out.name = value.decode()
        elif number <= 5:
            out.blocks[number - 2] = value
        elif number == 6:
            for part, kind, part_value in typed_fields(value, 2):
                if part <= 3 and kind == _VARINT and isinstance(part_value, int):
                    out.value_type[part - 1] = int32_of(part_value)
    return out
