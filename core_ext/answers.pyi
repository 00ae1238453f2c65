"""Answers of GetOnlineFeatures as a client reads them: parsed once, every block aligned and viewed without a copy."""

from typing import final

VALUES: int
OFFSETS: int
STATUSES: int
EVENT_TIMES: int
BLOCK_ALIGNMENT: int

class MalformedAnswerError(ValueError):
    """Bytes that are no answer of this contract."""

@final
class Answer:
    """Columns of one answer.

    Raises MalformedAnswerError for bytes that protobuf's own parser refuses.
    """

    def __new__(cls, message: bytes) -> Answer: ...
    def __len__(self) -> int: ...
    @property
    def blocks(self) -> memoryview:
        """All blocks in one read-only buffer, each at an address that is a multiple of BLOCK_ALIGNMENT."""

    @property
    def row_count(self) -> int: ...
    @property
    def registry_revision(self) -> int: ...
    @property
    def read_time_us(self) -> int: ...
    def name(self, position: int) -> str:
        """Output name of a column; empty where the answer leaves it out."""

    def value_type(self, position: int) -> tuple[int, int, int]:
        """Element type, shape and list size as numbers of the contract; zeros where the answer leaves them out."""

    def check(self, position: int, slot_bytes: int) -> None:
        """Raises MalformedAnswerError unless the blocks fit the rows; slot_bytes is 0 where a value's size varies."""

    def floats(self, slot_bytes: int) -> bytearray:
        """Values of every column one after another, NaN where there is none; of slots of 4 or 8 bytes.

        Raises MalformedAnswerError where `check` would for a column.
        """

    def place(self, position: int, block: int) -> tuple[int, int]:
        """Start and length in bytes of VALUES, OFFSETS, STATUSES or EVENT_TIMES of a column in `blocks`."""
