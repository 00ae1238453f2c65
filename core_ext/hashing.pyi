"""XXH3-64 for slots and tables, CRC32C for stored bytes."""

SLOT_COUNT: int

def xxh3_64(data: bytes) -> int:
    """XXH3 64-bit hash with seed 0 of any length, equal to the reference library's."""

def content_hash_of(rows: dict[bytes, bytes]) -> int:
    """Sum, modulo 2^64, of the XXH3-64 hashes of each key with its row behind it; 0 of none.

    Raises TypeError where a key or a row is no bytes object.
    """

def crc32c(data: bytes, value: int = 0) -> int:
    """CRC-32C (Castagnoli), continuing from `value`."""

def crc32c_portable(data: bytes, value: int = 0) -> int:
    """The same without the processor's own instruction: what machines that lack it run."""
