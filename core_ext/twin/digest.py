"""Twin of core_ext.digest: canonical bytes of a result row."""

import hashlib
import math
import struct
from collections.abc import Sequence
from typing import Any, Final

from core_ext.twin.hashing import xxh3_64

PREAMBLE: Final = b"headrace result rows 1\0"

Kind = tuple[int, int, int, int]  # scalar, shape, list size, element bytes

_FORMATS: Final = {1: "<?", 2: "<i", 3: "<q", 4: "<f", 5: "<d", 8: "<q", 9: "<i"}
_NANS: Final = {4: struct.pack("<I", 0x7FC00000), 5: struct.pack("<Q", 0x7FF8000000000000)}


def digest(columns: Sequence[tuple[str, Kind]], rows: Sequence[Sequence[tuple[int, Any]]]) -> tuple[str, list[int]]:
    """SHA-256 and column hashes of rows of (status, value or None for an empty slot)."""
    sha = hashlib.sha256(PREAMBLE + struct.pack("<I", len(columns)))
    for name, (scalar, shape, list_size, _) in columns:
        sha.update(struct.pack("<I", len(name.encode())) + name.encode())
        sha.update(struct.pack("<BBI", scalar, shape, list_size))
    sums = [0] * len(columns)
    for row in rows:
        for i, ((_, kind), (status, value)) in enumerate(zip(columns, row, strict=True)):
            cell = bytes([status]) + canonical(kind, value)
            sums[i] = (sums[i] + xxh3_64(cell)) % 2**64
            sha.update(cell)
    sha.update(struct.pack("<q", len(rows)))
    return sha.hexdigest(), sums


def canonical(kind: Kind, value: Any) -> bytes:  # a value of any type of the table
    """Bytes of one value."""
    scalar, shape, list_size, element_bytes = kind
    if value is None:
        return bytes(element_bytes * max(list_size, 1)) if shape == 1 or (shape == 0 and element_bytes) else bytes(4)
    if shape == 0:
        return _element(scalar, value)
    body = b"".join(_element(scalar, one) for one in value)
    return body if shape == 1 else struct.pack("<I", len(value)) + body


def _element(scalar: int, value: Any) -> bytes:  # a value of any type of the table
    if scalar in (6, 7):
        data = value.encode() if isinstance(value, str) else value
        return struct.pack("<I", len(data)) + data
    if scalar in _NANS and math.isnan(value):
        return _NANS[scalar]
    return struct.pack(_FORMATS[scalar], value)
