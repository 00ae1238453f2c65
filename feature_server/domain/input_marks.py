"""How far a partition of a stream was taken, kept by its shard in the same batch as the rows that it made.

Key of what a view has taken: u32 entity id 0, "input", u32 view id, u32 partition, big-endian; of what all views of an
entity have: the same with "begin" and the entity's id. Value, little-endian: u8 magic 0xD9, u8 layout 1, u16 zero, u32
length of all bytes, 16 bytes id of the topic, i64 next offset, u32 count; of each source partition u32 source id, i32
partition, i64 position of the last event taken; u32 CRC-32C of the bytes before it.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from core_ext.hashing import crc32c
from headrace.errors import DataLoss

NO_TOPIC: Final = bytes(16)
NOTHING_TAKEN: Final = -1

_VIEW: Final = b"\0\0\0\0input"
_ENTITY: Final = b"\0\0\0\0begin"
_KEY: Final = struct.Struct(">II")
_MAGIC: Final = 0xD9
_LAYOUT: Final = 1
_HEAD: Final = struct.Struct("<BBHI16sqI")
_ITEM: Final = struct.Struct("<Iiq")
_CHECKSUM: Final = struct.Struct("<I")

SourcePartition = tuple[int, int]


@dataclass(frozen=True, slots=True)
class InputMark:
    """`next_offset` is the first message of the keyed partition that may hold events not taken by the view, or by any.

    `taken` holds, by source id and source partition, the position of the last event; one at or below it was taken.
    """

    topic: bytes = NO_TOPIC
    next_offset: int = 0
    taken: Mapping[SourcePartition, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Stored form."""
        items = b"".join(_ITEM.pack(*place, position) for place, position in sorted(self.taken.items()))
        length = _HEAD.size + len(items) + _CHECKSUM.size
        body = _HEAD.pack(_MAGIC, _LAYOUT, 0, length, self.topic, self.next_offset, len(self.taken)) + items
        return body + _CHECKSUM.pack(crc32c(body))


def mark_key(view_id: int, partition: int) -> bytes:
    """Key of the mark of a view; entity id 0 keeps it apart from every row."""
    return _VIEW + _KEY.pack(view_id, partition)


def begin_key(entity_id: int, partition: int) -> bytes:
    """Key of the mark before which every view of an entity has taken all."""
    return _ENTITY + _KEY.pack(entity_id, partition)


def decode_mark(data: bytes) -> InputMark:
    """Mark of stored bytes; raises DataLoss where they are none."""
    if len(data) < _HEAD.size + _CHECKSUM.size:
        raise _corrupt("it is too short")
    body, checksum = data[: -_CHECKSUM.size], data[-_CHECKSUM.size :]
    if _CHECKSUM.unpack(checksum)[0] != crc32c(body):
        raise _corrupt("its checksum is wrong")
    magic, layout, _, length, topic, next_offset, count = _HEAD.unpack(body[: _HEAD.size])
    if (magic, layout, length) != (_MAGIC, _LAYOUT, len(data)) or len(body) != _HEAD.size + count * _ITEM.size:
        raise _corrupt(f"its layout {layout} is unknown; it was written by another version")
    items = _ITEM.iter_unpack(body[_HEAD.size :])
    return InputMark(topic, next_offset, {(source_id, partition): position for source_id, partition, position in items})


def _corrupt(problem: str) -> DataLoss:
    return DataLoss(f"the mark of a stream is damaged: {problem}", reason="INPUT_MARK_CORRUPT")
