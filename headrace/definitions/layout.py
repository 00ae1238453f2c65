"""How much a row and an answer may hold; fixed parts as core_ext/native/hr_layout.h lays them out."""

from collections.abc import Sequence
from typing import Final

from headrace.definitions.checks import invalid
from headrace.types import ValueType

ROW_BYTES_MAX: Final = 1 << 20  # HR_ROW_BYTES_MAX
FEATURE_COUNT_MAX: Final = 2_000  # of one view and of one answer, DESIGN section 6
HEADER_BYTES: Final = 64
CHECKSUM_BYTES: Final = 4
VARIABLE_SLOT_BYTES: Final = 8  # start and length of a value in the heap
_WORD_BYTES: Final = 8


def fixed_row_bytes(types: Sequence[ValueType]) -> int:
    """Bytes of a row before its heap, with its checksum."""
    bitmap = (len(types) + 7) // 8
    position = HEADER_BYTES + _aligned(bitmap, _WORD_BYTES)
    for value_type in types:
        if value_type.is_variable:
            position = _aligned(position, VARIABLE_SLOT_BYTES) + VARIABLE_SLOT_BYTES
        else:
            position = _aligned(position, value_type.element_bytes) + value_type.slot_bytes
    return _aligned(position, CHECKSUM_BYTES) + CHECKSUM_BYTES


def check_row_size(name: str, types: Sequence[ValueType]) -> None:
    """Raises ROW_TOO_LARGE, with the numbers, where no row of a view could be stored."""
    size = fixed_row_bytes(types)
    if size > ROW_BYTES_MAX:
        raise invalid(
            f"rows of {name!r} have a fixed part of {size} bytes; at most {ROW_BYTES_MAX} are allowed: "
            "split the view or shorten its fixed lists",
            "ROW_TOO_LARGE",
            "features",
            name=name,
            row_bytes=size,
            row_bytes_max=ROW_BYTES_MAX,
        )


def _aligned(position: int, width: int) -> int:
    return -(-position // width) * width
